"""Distributions of weights and of their difference to the base, as figure 2 of the first paper.

Densities on a logarithmic scale: differences are so much narrower than weights that a linear one
would show a needle beside a flat line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from limosa.hub.pages.svg import coordinate, drawing, element, text
from limosa.hub.pages.views import Histogram, TensorRow
from limosa.hub.pages.words import number, plural

_WIDTH, _HEIGHT = 600.0, 270.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 26.0, 24.0, 40.0
_SMALL = (150.0, 30.0)


@dataclass(frozen=True)
class _Frame:
    """A part of the drawing and the values that it spans: decades upward, values to the right."""

    x: float
    y: float
    width: float
    height: float
    low: float
    high: float
    floor: float
    decades: float

    def across(self, value: float) -> float:
        return self.x + self.width * (value - self.low) / (self.high - self.low)

    def up(self, density: float) -> float:
        level = (math.log10(density) - self.floor) / self.decades if density > 0 else 0.0
        return self.y + self.height * (1 - min(max(level, 0.0), 1.0))


def sparkline(row: TensorRow, key: str) -> str:
    """Both distributions in the height of a table's row, on the axis of the weights; "" without."""
    shown = _usable(row.histogram, row.delta)
    if not shown:
        return ""
    width, height = _SMALL
    frame = _frame([histogram for _, histogram in shown], 1, 1, width - 2, height - 2)
    return drawing(
        *(_curve(histogram, frame, name) for name, histogram in shown),
        width=width, height=height, key=key, class_="histogram small",
        name=f"Distribution of {row.name}", description=_described(shown),
    )  # fmt: skip


def figure(row: TensorRow, base: str) -> str:
    """Weights and difference on one axis, and the difference alone on its own; "" without any."""
    shown = _usable(row.histogram, row.delta)
    if not shown:
        return ""
    legends = {
        "weights": "weights",
        "difference": f"difference to {base}" if base else "difference",
    }
    panels = [_panel(shown, 0.0, legends)]
    if row.histogram is not None and len(shown) == 2:
        panels.append(_panel(shown[1:], _WIDTH, {"difference": "the difference, closer"}))
    return drawing(
        *panels, width=_WIDTH * len(panels), height=_HEIGHT, key="figure",
        class_="histogram" if len(panels) > 1 else "histogram single",
        name=f"Distribution of {row.name}", description=_described(shown),
    )  # fmt: skip


def _usable(*histograms: Histogram | None) -> list[tuple[str, Histogram]]:
    names = ("weights", "difference")
    return [
        (name, histogram)
        for name, histogram in zip(names, histograms, strict=True)
        if histogram is not None
        and math.isfinite(histogram.high - histogram.low)
        and any(count > 0 for count in histogram.counts)
    ]


def _described(shown: Sequence[tuple[str, Histogram]]) -> str:
    spans = [
        f"{name}: {plural(sum(histogram.counts), 'element')} from {number(histogram.low)} to "
        f"{number(histogram.high)}"
        for name, histogram in shown
    ]
    return "Density on a logarithmic scale. " + "; ".join(spans) + "."


def _densities(histogram: Histogram) -> list[float]:
    """Share of all elements per unit of the axis, bin by bin."""
    total = sum(histogram.counts)
    unit = (histogram.high - histogram.low) / len(histogram.counts) or 1.0
    return [count / total / unit for count in histogram.counts]


def _frame(
    histograms: Sequence[Histogram], x: float, y: float, width: float, height: float
) -> _Frame:
    low = min(histogram.low for histogram in histograms)
    high = max(histogram.high for histogram in histograms)
    if not high > low:  # all elements are equal
        spread = abs(low) or 1.0
        low, high = low - spread, high + spread
    densities = [d for histogram in histograms for d in _densities(histogram) if d > 0]
    floor = math.floor(math.log10(min(densities)))
    top = math.log10(max(densities))
    # Six decades show all that matters; below are single elements.
    floor = max(floor, math.floor(top) - 6)
    return _Frame(x, y, width, height, low, high, floor, max(top - floor, 1.0) * 1.04)


def _curve(histogram: Histogram, frame: _Frame, name: str) -> str:
    bins = _densities(histogram)
    step = (histogram.high - histogram.low) / len(bins)
    bottom = coordinate(frame.y + frame.height)
    first, last = frame.across(histogram.low), frame.across(histogram.high)
    if last - first < 1:  # narrower than a pixel: still to be seen
        first, last = (first + last) / 2 - 0.75, (first + last) / 2 + 0.75
        bins, step = [max(bins)], 0.0
    parts = [f"M{coordinate(first)} {bottom}"]
    for i, density in enumerate(bins):
        end = last if i + 1 == len(bins) else frame.across(histogram.low + (i + 1) * step)
        parts.append(f"V{coordinate(frame.up(density))} H{coordinate(end)}")
    parts.append(f"V{bottom} Z")
    return element("path", d=" ".join(parts), class_=f"curve {name}")


def _panel(shown: Sequence[tuple[str, Histogram]], left: float, legends: dict[str, str]) -> str:
    frame = _frame(
        [histogram for _, histogram in shown],
        left + _LEFT, _TOP, _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM,
    )  # fmt: skip
    right = frame.x + frame.width
    parts = [*_grid(frame), text("density", x=right, y=16, class_="axis end")]
    parts += [_curve(histogram, frame, name) for name, histogram in shown]
    x = frame.x
    for name, _ in shown:
        parts.append(element("rect", x=x, y=7, width=10, height=10, class_=f"key {name}"))
        parts.append(text(legends[name], x=x + 15, y=16, class_="legend"))
        x += 26 + 7 * len(legends[name])
    parts.append(text("value", x=frame.x + frame.width / 2, y=_HEIGHT - 6, class_="axis centre"))
    return element("g", *parts)


def _grid(frame: _Frame) -> list[str]:
    parts = []
    step = max(1, math.ceil(frame.decades / 4))
    for decade in range(int(frame.floor), int(frame.floor + frame.decades) + 1, step):
        y = frame.up(10.0**decade)
        parts.append(_rule(frame.x, y, frame.x + frame.width, y, "grid"))
        parts.append(text(_power(decade), x=frame.x - 6, y=y + 4, class_="axis end"))
    for i in range(5):
        value = frame.low + (frame.high - frame.low) * i / 4
        if abs(value) < 1e-9 * (frame.high - frame.low):
            value = 0.0
        x = frame.across(value)
        bottom = frame.y + frame.height
        parts.append(_rule(x, bottom, x, bottom + 4, "tick"))
        parts.append(text(number(value), x=x, y=bottom + 17, class_="axis centre"))
    return parts


def _power(exponent: int) -> str:
    digits = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{digits}"


def _rule(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)
