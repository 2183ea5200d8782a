"""The plot of a run: size against decode speed and encode speed, one row for each kind of work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.codecs import LIMOSA, LIMOSA_DIFF, LIMOSA_FAST
from benchmarks.timing import Record

# The works that the plot shows, where the run has them: the most common format of a large model,
# and the difference that a fine-tune makes.
SHOWN = (
    ("minilm-bf16", "all-MiniLM-L6-v2, BF16"),
    ("finetune-bf16", "60 steps of a fine-tune, BF16"),
)
OURS, RIVAL, TEXT, GRID = "#c2410c", "#64748b", "#1e293b", "#e2e8f0"


def draw(records: list[Record], path: Path) -> bool:
    """Write a PNG of the one-thread records to ``path``; False when there is nothing to show."""
    rows = [(title, _of(records, work)) for work, title in SHOWN]
    rows = [(title, chosen) for title, chosen in rows if len(chosen) > 1]
    if not rows:
        return False
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        len(rows), 2, figsize=(12, 0.6 + 4.7 * len(rows)), squeeze=False, facecolor="white",
        layout="constrained",
    )  # fmt: skip
    for (title, chosen), (left, right) in zip(rows, axes, strict=True):
        _panel(left, chosen, [r.speed(r.decode_best) for r in chosen], f"{title}: decode")
        _panel(right, chosen, [r.speed(r.encode_best) for r in chosen], f"{title}: encode")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return True


def _of(records: list[Record], work: str) -> list[Record]:
    # A codec that makes the data larger would squeeze all others into a corner.
    return [r for r in records if r.work == work and r.threads == 1 and r.ratio < 1]


def _panel(axes: Any, records: list[Record], speeds: list[float], title: str) -> None:
    sizes = [100 * record.ratio for record in records]
    ours = [record.codec in (LIMOSA, LIMOSA_FAST, LIMOSA_DIFF) for record in records]
    axes.scatter(speeds, sizes, s=[70 if o else 38 for o in ours], zorder=3,
                 c=[OURS if o else RIVAL for o in ours])  # fmt: skip
    axes.set_xscale("log")
    axes.set_title(title, loc="left", color=TEXT, fontsize=12, fontweight="bold")
    axes.set_xlabel("MB of raw tensors a second, one thread (right is faster)", color=TEXT)
    axes.set_ylabel("size, % of raw (down is smaller)", color=TEXT)
    axes.grid(color=GRID, which="major")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")  # in less than a decade its labels would cover each other
    # Room for the names, which stand to the right of their points or to the left.
    axes.set_xlim(min(speeds) / 1.6, max(speeds) * 1.9)
    axes.margins(y=0.12)
    axes.figure.canvas.draw()
    _label(axes, records, speeds, sizes, ours)


def _label(
    axes: Any,
    records: list[Record],
    speeds: Sequence[float],
    sizes: Sequence[float],
    ours: Sequence[bool],
) -> None:
    """Put each name at the first free place beside its point; limosa's first."""
    renderer = axes.figure.canvas.get_renderer()
    points = axes.transData.transform(list(zip(speeds, sizes, strict=True)))
    taken = [_Box(x - 5, y - 5, x + 5, y + 5) for x, y in points]
    order = sorted(range(len(records)), key=lambda i: (not ours[i], sizes[i]))
    for i in order:
        text = axes.annotate(
            records[i].codec, (speeds[i], sizes[i]), textcoords="offset points", xytext=(0, 0),
            fontsize=9, color=OURS if ours[i] else TEXT, fontweight="bold" if ours[i] else "normal",
        )  # fmt: skip
        taken.append(_place(axes, text, renderer, taken))


class _Box:
    def __init__(self, left: float, bottom: float, right: float, top: float) -> None:
        self.left, self.bottom, self.right, self.top = left, bottom, right, top

    def overlap(self, other: _Box) -> float:
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0.0) * max(height, 0.0)

    def outside(self, frame: _Box) -> float:
        return max(self.right - frame.right, 0.0) + max(frame.left - self.left, 0.0)


def _place(axes: Any, text: Any, renderer: Any, taken: list[_Box]) -> _Box:
    """Move ``text`` to where it covers least, and return its box in pixels."""
    frame = axes.get_window_extent(renderer)
    inside = _Box(frame.x0, frame.y0, frame.x1, frame.y1)
    places = [
        ((dx, dy), side)
        for dy in (-3, 8, -14, 19, -25, 30, -36)
        for dx, side in ((7, "left"), (-7, "right"), (0, "center"))
        if side != "center" or dy != -3
    ]

    def cost(place: tuple[tuple[int, int], str]) -> tuple[float, _Box]:
        text.xyann, side = place
        text.set_ha(side)
        extent = text.get_window_extent(renderer)
        box = _Box(extent.x0, extent.y0, extent.x1, extent.y1)
        covered = sum(box.overlap(other) for other in taken)
        return covered + 1000 * box.outside(inside) + 0.5 * abs(place[0][1] + 3), box

    best = min(places, key=lambda place: cost(place)[0])
    return cost(best)[1]
