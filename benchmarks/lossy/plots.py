"""The plot of a lossy run: size against signal-to-noise ratio, and against quality at the task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.plots import GRID, RIVAL, TEXT

from . import ours
from .measure import NNCODEC, Point, Results

# Each line by its codec: colour, and the sign of its points.
LINES = {
    NNCODEC: (RIVAL, "s"),
    ours.NAMES[1]: ("#fdba74", "v"),
    ours.NAMES[5]: ("#ea580c", "o"),
    ours.NAMES[9]: ("#7c2d12", "^"),
    ours.CALIBRATED: ("#15803d", "D"),
}


def draw(results: Results, path: Path) -> bool:
    """Write a PNG; False when there is nothing to show."""
    works = [work for work in results.titles if any(p.work == work for p in results.points)]
    if not works:
        return False
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        len(works), 2, figsize=(12, 0.6 + 4.4 * len(works)), squeeze=False, facecolor="white",
        layout="constrained",
    )  # fmt: skip
    for work, (left, right) in zip(works, axes, strict=True):
        points = [p for p in results.points if p.work == work]
        title = results.titles[work]
        _panel(left, points, [p.snr for p in points], title, "SNR of the weights, dB")
        axis, plotted = results.axes[work]
        first = results.measures[work][0]
        values = [plotted(p.quality[first]) for p in points]
        _panel(right, points, values, title, f"{axis} (down is better)")
        if min(values) > 0:
            right.set_yscale("log")
    axes[0][0].legend(frameon=False, labelcolor=TEXT)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return True


def _panel(axes: Any, points: list[Point], values: list[float], title: str, label: str) -> None:
    for codec, (color, marker) in LINES.items():
        line = sorted(
            (_bits(p), value) for p, value in zip(points, values, strict=True) if p.codec == codec
        )
        if line:
            xs, ys = zip(*line, strict=True)
            axes.plot(xs, ys, color=color, marker=marker, markersize=5, linewidth=1.3, label=codec)
    axes.set_title(title, loc="left", color=TEXT, fontsize=12, fontweight="bold")
    axes.set_xlabel("bits a weight, whole file (left is smaller)", color=TEXT)
    axes.set_ylabel(label, color=TEXT)
    axes.grid(color=GRID, which="major")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _bits(point: Point) -> float:
    return 32 * point.bytes / point.raw_bytes
