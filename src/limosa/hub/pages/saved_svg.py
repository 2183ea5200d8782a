"""Bytes that travelled and bytes that did not have to, day by day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from limosa.hub.pages.svg import drawing, element, text, title
from limosa.hub.pages.views import SavedPoint
from limosa.hub.pages.words import day, human

#: Series from the bottom upward: class and meaning.
SERIES = (
    ("sent", "sent"),
    ("by-updates", "saved by updates"),
    ("by-coding", "saved by coding"),
)
_WIDTH, _HEIGHT = 1200.0, 260.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 70.0, 8.0, 12.0, 28.0
# A year; older days would be narrower than a pixel.
_DAYS = 366


@dataclass(frozen=True)
class Totals:
    """Sums over days."""

    pulls: int
    sent: int
    whole: int
    raw: int

    @property
    def saved(self) -> int:
        """Bytes that did not travel."""
        return max(self.raw - self.sent, 0)


def totals(points: Sequence[SavedPoint]) -> Totals:
    """Sums over *points*.

    >>> totals([SavedPoint(date(2026, 1, 1), 10, 50, 100, 2)]).saved
    90
    """
    return Totals(
        sum(point.pulls for point in points),
        sum(point.bytes_sent for point in points),
        sum(point.bytes_whole for point in points),
        sum(point.bytes_raw for point in points),
    )


def saved_chart(points: Sequence[SavedPoint]) -> str:
    """A bar for each day from the first to the last of *points*; "" without any."""
    if not points:
        return ""
    by_day = _by_day(points)
    last = max(by_day)
    first = max(min(by_day), last - timedelta(days=_DAYS - 1))
    days = [first + timedelta(days=i) for i in range((last - first).days + 1)]
    highest = max(sum(_heights(by_day.get(when))) for when in days)
    top, step = _scale(highest)
    width = (_WIDTH - _LEFT - _RIGHT) / max(len(days), 14)
    bars = [_bar(by_day[when], i, width, top) for i, when in enumerate(days) if when in by_day]
    sums = totals(points)
    return drawing(
        *_levels(top, step), *_dates(days, width), *bars,
        width=_WIDTH, height=_HEIGHT, key="saved", class_="saved",
        name="Bytes sent and saved by day",
        description=f"From {first} to {last}: {human(sums.sent)} sent instead of "
        f"{human(sums.raw)}. The table below says the same.",
    )  # fmt: skip


def _by_day(points: Sequence[SavedPoint]) -> dict[date, SavedPoint]:
    found: dict[date, list[SavedPoint]] = {}
    for point in points:
        found.setdefault(point.day, []).append(point)
    sums = {when: totals(same) for when, same in found.items()}
    return {when: SavedPoint(when, s.sent, s.whole, s.raw, s.pulls) for when, s in sums.items()}


def _heights(point: SavedPoint | None) -> tuple[int, int, int]:
    """Bytes of each series; what was sent is drawn even where it was more than it had to be."""
    if point is None:
        return 0, 0, 0
    whole = max(point.bytes_whole, point.bytes_sent)
    raw = max(point.bytes_raw, whole)
    return point.bytes_sent, whole - point.bytes_sent, raw - whole


def _scale(highest: int) -> tuple[int, int]:
    """The end of the axis, and the step between its levels: 1, 2, 5 … of a binary unit."""
    unit = 1
    while unit * 1024 <= highest:
        unit *= 1024
    step = unit
    for factor in (1, 2, 5, 10, 20, 50, 100, 200, 250, 500):
        step = factor * unit
        if step * 4 >= highest:
            break
    if unit > 1 and highest < 2 * unit:
        step = unit // 2
    return max(-(-highest // step), 1) * step, step


def _bar(point: SavedPoint, place: int, width: float, top: int) -> str:
    x = _LEFT + place * width
    plot = _HEIGHT - _TOP - _BOTTOM
    y = _HEIGHT - _BOTTOM
    parts = [
        title(
            f"{point.day}: {human(point.bytes_sent)} sent instead of {human(point.bytes_whole)} "
            f"(whole, coded) or {human(point.bytes_raw)} (as files)"
        )
    ]
    thick = max(width - (2 if width > 5 else 0.5), 0.5)
    for (kind, _), nbytes in zip(SERIES, _heights(point), strict=True):
        height = plot * (nbytes / top)
        if nbytes:
            height = max(height, 1.0 if kind == "sent" else 0.0)
            y -= height
            parts.append(element("rect", x=x + 0.5, y=y, width=thick, height=height, class_=kind))
    return element("g", *parts, class_="bar")


def _levels(top: int, step: int) -> list[str]:
    parts = []
    plot = _HEIGHT - _TOP - _BOTTOM
    for level in range(0, top + 1, step):
        y = _HEIGHT - _BOTTOM - plot * (level / top)
        parts.append(element("line", x1=_LEFT, y1=y, x2=_WIDTH - _RIGHT, y2=y, class_="grid"))
        label = human(level).replace(".0 ", " ") if level else "0"
        parts.append(text(label, x=_LEFT - 7, y=y + 4, class_="axis end"))
    return parts


def _dates(days: Sequence[date], width: float) -> list[str]:
    every = max(1, -(-len(days) // 12))
    return [
        text(
            day(when),
            x=_LEFT + (i + 0.5) * width,
            y=_HEIGHT - 8,
            class_="axis centre" if i else "axis",
        )
        for i, when in enumerate(days)
        if i % every == 0 and (len(days) - i) * width > 20
    ]
