"""The plot of the places to cut a model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol

from limosa.errors import MissingExtraError

_COLOURS = {
    "conv": "#2563eb", "pool": "#16a34a", "fc": "#9333ea", "norm": "#64748b",
    "activation": "#c2410c", "other": "#a8a29e",
}  # fmt: skip


_LONGEST_NAME = 28


class Place(Protocol):
    """What is drawn of a cut."""

    @property
    def name(self) -> str:
        """Of the node before it."""

    @property
    def kind(self) -> str:
        """Of the operation before it."""

    @property
    def nbytes(self) -> int:
        """What crosses, as it is."""

    @property
    def coded_nbytes(self) -> int | None:
        """What crosses, coded."""

    @property
    def share(self) -> float:
        """Of the operations, those before it."""


def draw(places: Sequence[Place], path: str | os.PathLike[str]) -> None:
    """Draw the bytes that cross each place, by its kind, and the share of compute before it.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError.for_extra("plot", "drawing") from None
    # Without pyplot, the caller's own figures and backend stay as they are.
    figure = Figure(figsize=(max(6.0, 0.16 * len(places) + 2.5), 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    _draw_bytes(axes, places)
    _draw_compute(axes.twinx(), places)
    figure.legend(loc="outside upper center", ncols=len(_COLOURS) + 1, fontsize="small")
    figure.savefig(path, dpi=120, format="png")


def _draw_bytes(axes: Any, places: Sequence[Place]) -> None:
    for kind, colour in _COLOURS.items():
        chosen = [number for number, place in enumerate(places) if place.kind == kind]
        if chosen:
            axes.bar(chosen, [places[n].nbytes for n in chosen], color=colour, label=kind)
    coded = [(n, place.coded_nbytes) for n, place in enumerate(places) if place.coded_nbytes]
    if coded:
        numbers, sizes = zip(*coded, strict=True)
        axes.scatter(numbers, sizes, color="black", s=10, zorder=3, label="coded, lossless")
    axes.set_yscale("log")
    axes.set_ylabel("bytes that cross the cut")
    names = [_short(place.name) for place in places]
    axes.set_xticks(range(len(places)), names, rotation=90, fontsize=6)
    axes.set_xlim(-0.8, len(places) - 0.2)


def _short(name: str) -> str:
    """The end of a long name, where its layer stands."""
    return name if len(name) <= _LONGEST_NAME else "…" + name[1 - _LONGEST_NAME :]


def _draw_compute(axes: Any, places: Sequence[Place]) -> None:
    axes.plot(
        range(len(places)), [100 * place.share for place in places], color="black", linewidth=1
    )
    axes.set_ylim(0, 105)
    axes.set_ylabel("compute before the cut, % (line)")
