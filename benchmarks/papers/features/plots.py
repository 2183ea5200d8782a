"""Figure 4, and bits against divergence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.papers.features.neighbours import WANTED, Curve
from benchmarks.papers.features.tables import CODERS, Row
from benchmarks.papers.features.verdicts import Results, by_feature

_COLOURS = plt.get_cmap("tab10").colors
# Of the picture of bits and divergence: how far from the wanted divergence it reaches.
_BELOW, _ABOVE = 12.0, 25.0


def draw(out: Path, name: str, results: Results) -> None:
    """Write both pictures, as far as there is something to show."""
    if results.rows:
        _figure4(out / f"{name}_figure4.png", results.rows)
    if results.curves:
        _rates(out / f"{name}_rates.png", results.curves)


def _figure4(path: Path, rows: Sequence[Row]) -> None:
    networks = list(dict.fromkeys(row.network for row in rows))
    tables = {name: by_feature([r for r in rows if r.network == name]) for name in networks}
    wide = [name for name in networks if len(tables[name]) > 20]
    narrow = [name for name in networks if name not in wide]
    layout = [[name] * max(1, len(narrow)) for name in wide] + ([narrow] if narrow else [])
    figure, axes = plt.subplot_mosaic(
        layout, figsize=(12, 0.5 + 3.9 * len(layout)), layout="constrained"
    )
    for name, axis in axes.items():
        _rate_by_layer(axis, name, tables[name])
    first = axes[networks[0]]
    handles, labels = first.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    _save(figure, path)


def _rate_by_layer(axis: Axes, network: str, table: dict[str, dict[str, Row]]) -> None:
    features = list(table)
    places = range(len(features))
    nonzero = [next(iter(table[feature].values())).nonzero[0] for feature in features]
    axis.bar(places, nonzero, width=0.8, color="0.85", label="non-zeros")
    for number, coder in enumerate(CODERS):
        own = coder.startswith("limosa")
        axis.plot(
            places, [table[feature][coder].ratio[0] for feature in features],
            color="black" if own else _COLOURS[number], marker="o" if own else ".",
            markersize=4, linewidth=1.4 if own else 0.9,
            linestyle="--" if coder.endswith("lossy") else "-", label=coder,
        )  # fmt: skip
    axis.set_xticks(places, features, rotation=90 if len(features) > 9 else 45, fontsize=8)
    axis.set_xlim(-0.6, len(features) - 0.4)
    highest = max(row.ratio[0] for own in table.values() for row in own.values())
    axis.set_ylim(0, max(1.12, 1.04 * highest))
    axis.set_ylabel("coded bytes / raw bytes")
    axis.set_title(network, fontsize=10)
    axis.grid(alpha=0.3, axis="y")
    axis.spines[["top", "right"]].set_visible(False)


def _rates(path: Path, curves: Sequence[Curve]) -> None:
    cuts = list(dict.fromkeys(curve.cut for curve in curves))
    columns = min(4, len(cuts))
    lines = -(-len(cuts) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(3.1 * columns + 0.6, 3.2 * lines + 0.5), sharey=True,
        layout="constrained", squeeze=False,
    )  # fmt: skip
    coders = list(dict.fromkeys(curve.coder for curve in curves))
    for cut, axis in zip(cuts, axes.flat, strict=False):
        for curve in (curve for curve in curves if curve.cut == cut):
            _rate(axis, curve, coders.index(curve.coder))
        axis.axhline(WANTED, color="0.5", linewidth=0.8, linestyle=":")
        axis.set_title(cut, fontsize=10)
        axis.set_yscale("log")
        axis.set_xscale("log")
        axis.set_ylim(WANTED / _BELOW, WANTED * _ABOVE)
        axis.set_xticks([0.3, 0.5, 0.7, 1, 1.5, 2, 3, 4, 6, 8])
        shown = [
            point.bits
            for curve in curves
            for point in curve.points
            if curve.cut == cut and WANTED / _BELOW < point.divergence < WANTED * _ABOVE
        ]
        axis.set_xlim(0.9 * min(shown), 1.1 * max(shown))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.3, which="both")
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[:, 0]:
        axis.set_ylabel("KL of the outputs, nats")
    for axis in axes.flat[len(cuts) - columns if lines > 1 else 0 : len(cuts)]:
        axis.set_xlabel("bits an element")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    empty = list(axes.flat[len(cuts) :])
    for axis in empty:
        axis.set_axis_off()
    if empty:
        empty[0].legend(handles, labels, loc="center", frameon=False, fontsize=9)
    else:
        figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
    _save(figure, path)


def _rate(axis: Axes, curve: Curve, number: int) -> None:
    own = number == 0
    points = sorted(curve.points, key=lambda one: one.bits)
    axis.plot(
        [point.bits for point in points], [point.divergence for point in points],
        color="black" if own else _COLOURS[number - 1], marker="o" if own else ".",
        markersize=4, linewidth=1.8 if own else 1.0,
        linestyle="--" if number == 1 else "-", label=curve.coder, zorder=3 if own else 2,
    )  # fmt: skip


def _save(figure: plt.Figure, path: Path) -> None:
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
