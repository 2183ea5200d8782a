"""The paper's figures 2, 4, 5 and 6, drawn from the measurements."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .measure import Curve, Measurements
from .models import State

BIN = 0.002
"""Width of the histogram bins, as in the paper's figure 2."""
CLOSER = 0.05
"""Share of the paper's range, and of its bins, that the third panel shows."""


def _new(columns: int, width: float) -> tuple[Figure, list[Axes]]:
    figure, axes = plt.subplots(
        1, columns, figsize=(width, 3.8), squeeze=False, layout="constrained"
    )
    for axis in axes[0]:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, list(axes[0])


def _save(figure: Figure, path: Path) -> None:
    # Without a date, the same measurements give the same file.
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _values(state: State) -> np.ndarray:
    floats = [a.ravel() for a in state.values() if np.issubdtype(a.dtype, np.floating)]
    return np.concatenate(floats)


def _histogram(axis: Axes, label: str, state: State, reach: float, width: float) -> None:
    values = _values(state)
    edges = np.arange(-reach - width / 2, reach + width, width)
    counts, _ = np.histogram(values, edges)
    # Versions lie on each other: dashes let the one below be seen.
    style = "--" if axis.lines and len(axis.lines) % 2 else "-"
    axis.plot(
        edges[:-1] + width / 2, counts / values.size, label=label, linewidth=1.4, linestyle=style
    )


def distributions(
    path: Path, models: dict[str, State], versions: dict[str, State], differences: dict[str, State]
) -> None:
    """Figure 2: (a) weights of models, (b) of versions and of differences, (c) a closer look."""
    figure, axes = _new(3, 13)
    titles = ("(a) models", "(b) versions, and differences", "(c) differences, closer")
    contents = (models, versions | differences, differences)
    for axis, title, states, scale in zip(axes, titles, contents, (5, 1, CLOSER), strict=True):
        width = BIN if scale >= 1 else BIN * scale
        for label, state in states.items():
            _histogram(axis, label, state, 0.1 * scale, width)
        axis.set(title=title, xlabel="value", yscale="log", ylabel=f"share in a bin of {width:g}")
        axis.locator_params(axis="x", nbins=5)
        axis.legend(fontsize=8)
    _save(figure, path)


def _plot(axis: Axes, curve: Curve, *, inverse: bool) -> None:
    def height(ratio: float) -> float:
        return 1 / ratio if inverse else ratio

    digits = sorted(curve.ratio)
    line = axis.plot(
        digits, [height(curve.ratio[p]) for p in digits], marker="o", markersize=3.5,
        label=f"{curve.label}",
    )[0]  # fmt: skip
    digits = sorted(curve.lzma)
    axis.plot(
        digits, [height(curve.lzma[p]) for p in digits], color=line.get_color(),
        linestyle="--", marker="x", markersize=5, linewidth=1,
    )  # fmt: skip


def ratios(path: Path, curves: list[Curve]) -> None:
    """Figure 4: compression ratio of single models against RP."""
    figure, (axis,) = _new(1, 6)
    for curve in curves:
        _plot(axis, curve, inverse=False)
    axis.set(xlabel="RP (decimal digits)", ylabel="compression ratio", yscale="log")
    axis.legend(fontsize=8, title="— limosa   - - lzma", title_fontsize=8)
    _save(figure, path)


def accuracies(path: Path, curves: list[Curve], sets: list[str]) -> None:
    """Figure 5: retrieval mAP of single models against RP, one panel a set."""
    figure, axes = _new(len(sets), 12)
    for index, (axis, name) in enumerate(zip(axes, sets, strict=True)):
        for curve in curves:
            digits = sorted(curve.accuracy)
            axis.plot(
                digits, [curve.accuracy[p][index] for p in digits], marker="o", markersize=3.5,
                label=curve.label,
            )  # fmt: skip
        axis.set(title=name, xlabel="RP (decimal digits)", ylim=(0, None))
    axes[0].set_ylabel("mAP")
    axes[-1].legend(fontsize=8)
    _save(figure, path)


def inverse_ratios(path: Path, curves: list[Curve]) -> None:
    """Figure 6: size over raw size against RP, single models beside differences."""
    figure, (axis,) = _new(1, 6)
    for curve in curves:
        _plot(axis, curve, inverse=True)
    axis.set(xlabel="RP (decimal digits)", ylabel="1 / compression ratio", ylim=(0, None))
    axis.legend(fontsize=8, title="— limosa   - - lzma", title_fontsize=8)
    _save(figure, path)


def draw(folder: Path, measured: Measurements) -> None:
    """Write ``knowledge_centric_figure{2,4,5,6}.png`` into ``folder``."""
    stem = "knowledge_centric_figure"
    base, near, last = (measured.states[key] for key in ("base", "near", "last"))
    names = measured.names
    distributions(
        folder / f"{stem}2.png",
        measured.others | {names["base"]: base},
        {names["base"]: base, names["last"]: last},
        {"DoM1": subtract(last, base), "DoM2": subtract(last, near)},
    )
    singles = [measured.curves[k] for k in ("base", "last", "partial")]
    ratios(folder / f"{stem}4.png", singles)
    accuracies(folder / f"{stem}5.png", singles, measured.sets)
    inverse_ratios(
        folder / f"{stem}6.png",
        [measured.curves[k] for k in ("last", "dom1", "dom2", "partial", "partial_dom")],
    )


def subtract(new: State, base: State) -> State:
    """Return the difference of two states, tensor by tensor, floats only."""
    return {n: a - base[n] for n, a in new.items() if np.issubdtype(a.dtype, np.floating)}
