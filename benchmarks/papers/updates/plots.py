"""The paper's figures, each against parameters and against bytes on the wire."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from benchmarks.papers.updates.summary import FINE, Row

MARKERS = {
    "KA": "o", "ML": "s", "LRA": "^", "LRU": "v", "RM": "x", "FP": "P", "difference": "*",
    "core": "D",
}  # fmt: skip
COLOURS = dict(zip(MARKERS, plt.get_cmap("tab10").colors, strict=False))
# Points of accuracy below the best that a picture shows.
_SHOWN = 6.0
Size = Callable[[Row], float]


def draw(out: Path, rows: Sequence[Row]) -> None:
    """Write a picture for each network, and figure 6 if it was run."""
    for network in dict.fromkeys(row.network for row in rows):
        _sizes(out / f"update_compression_{network}.png", rows, network)
    later = [row for row in rows if row.first != 120 and row.step == FINE and row.nbytes]
    if later:
        _lifts(out / "update_compression_figure6.png", later)


def _sizes(path: Path, rows: Sequence[Row], network: str) -> None:
    chosen = [row for row in rows if row.network == network and row.first == 120]
    refined = [row for row in chosen if row.nbytes]
    if not refined:
        return
    # Coarse steps ruin some rows; the picture is about the others.
    top = max(row.accuracy for row in refined)
    refined = [row for row in refined if row.accuracy > top - _SHOWN]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), sharey=True, layout="constrained")
    plain = [row for row in refined if not row.lam and row.step == FINE]
    _scatter(left, plain, lambda row: 100 * row.parameters / row.model_parameters)
    left.set_xlabel("parameters of the update, % of the network's")
    left.set_ylabel("accuracy on the test set, %")
    left.set_title(f"{network}: as the paper counts")
    _scatter(right, refined, lambda row: row.nbytes)
    right.set_xlabel("bytes on the wire")
    right.set_title("what travels; filled: rate-aware")
    before = [row.accuracy for row in chosen if row.family == "first network"]
    if before:
        left.text(0.02, 0.03, f"before: {before[0]:.1f} %", transform=left.transAxes, fontsize=8)
    for axis in (left, right):
        axis.set_xscale("log")
        axis.grid(alpha=0.3, which="both")
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_ylim(top - _SHOWN, top + 0.8)
        low, high = axis.get_xlim()
        ticks = [m * 10.0**e for e in range(-1, 7) for m in (1, 2, 5)]
        axis.set_xticks([tick for tick in ticks if low <= tick <= high])
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
    right.legend(fontsize=8, loc="lower right")
    _save(figure, path)


def _scatter(axis: Axes, rows: Sequence[Row], size: Size) -> None:
    for name, marker in MARKERS.items():
        own = [row for row in rows if row.family.split(",")[0] == name]
        for rated in (False, True):
            points = sorted((r for r in own if bool(r.lam) == rated), key=size)
            if not points:
                continue
            colour = COLOURS[name]
            face = {} if marker == "x" else {"markerfacecolor": colour if rated else "white"}
            axis.errorbar(
                [size(row) for row in points], [row.accuracy for row in points],
                yerr=[row.interval for row in points], fmt=marker, color=colour, capsize=2,
                elinewidth=0.7, label=name if not rated or len(own) == len(points) else None,
                **face,
            )  # fmt: skip


def _lifts(path: Path, rows: Sequence[Row]) -> None:
    figure, axis = plt.subplots(figsize=(6, 4.2), layout="constrained")
    for family in dict.fromkeys(row.family for row in rows):
        points = sorted((r for r in rows if r.family == family), key=lambda r: r.first)
        sizes = ", ".join(dict.fromkeys(f"{r.parameters:,.0f}" for r in points))
        axis.errorbar(
            [row.first / 4000 for row in points], [row.lift for row in points],
            yerr=[row.lift_interval for row in points], marker=MARKERS[family],
            color=COLOURS[family], capsize=2, label=f"{points[0].label} ({sizes} parameters)",
        )  # fmt: skip
    axis.set_xlabel("|D1| / |D2|")
    axis.set_ylabel("lift of accuracy, points")
    axis.set_title("VGG-tiny")
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8)
    _save(figure, path)


def _save(figure: plt.Figure, path: Path) -> None:
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
