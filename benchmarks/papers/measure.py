"""All that is measured: bytes and retrieval mAP against RP, for models and for differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import limosa

from . import models
from .models import Network, State
from .retrieval import RetrievalSet
from .transmit import LZMA, Arrival, same, send

RATIO_DIGITS = tuple(range(13))
"""RPs of figures 4 and 6."""
TABLE_DIGITS = (6, 5, 4, 3)
"""RPs of the tables; lzma, which is slow, is measured at these only."""
MODEL_DIGITS = tuple(range(1, 9))
"""RPs of figure 5."""
CORRUPT_DIGITS = 3
"""RP at which the corrupted base was received (table 5)."""
CORRUPT_TABLE_DIGITS = 4
"""RP of the rows of table 5."""

Accuracy = tuple[float, ...]
"""One mAP (0..1) for each retrieval set."""


@dataclass(eq=False)
class Curve:
    """One model, or one difference, at every RP.

    Attributes:
        label: Its name in tables and plots.
        ratio: Compression ratio of limosa's own coder, by RP.
        lzma: The same of the paper's pipeline.
        exact: Compression ratio with every bit kept.
        accuracy: mAP of what is decoded, by RP.
    """

    label: str
    ratio: dict[int, float] = field(default_factory=dict)
    lzma: dict[int, float] = field(default_factory=dict)
    exact: float = 0.0
    accuracy: dict[int, Accuracy] = field(default_factory=dict)


@dataclass(eq=False)
class Measurements:
    """What the tables and the figures show.

    Attributes:
        network: The network of all versions.
        states: ``base``, ``near`` (early epoch), ``last`` and ``partial`` (last blocks retrained).
        others: Further models for figure 2, by name.
        names: The title of each state.
        sets: Names of the retrieval sets.
        original: mAP of the states before any coding.
        curves: By the keys of ``states``, and ``dom1``, ``dom2``, ``partial_dom``, ``corrupted``.
    """

    network: Network
    states: dict[str, State]
    others: dict[str, State]
    names: dict[str, str]
    sets: list[str]
    original: dict[str, Accuracy] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Bench:
    """The network and the retrieval sets that judge it."""

    network: Network
    sets: list[RetrievalSet]
    progress: Callable[[str], object]

    def accuracy(self, state: State) -> Accuracy:
        """Return the mAP of these weights on each set."""
        module = models.to_module(self.network, state)
        return tuple(
            s.mean_average_precision(lambda crops: models.describe(self.network, module, crops))
            for s in self.sets
        )

    def sweep(
        self,
        label: str,
        state: State,
        base: State | None,
        *,
        ratio: tuple[int, ...],
        lzma: tuple[int, ...],
        accuracy: tuple[int, ...],
    ) -> Curve:
        """Send ``state`` at each RP; the three last arguments say where each figure is taken."""
        curve = Curve(label)
        exact = send(state, limosa.Lossless(), base)
        if not same(exact.state, state):
            raise ValueError(f"{label}: a lossless round trip changed the weights")
        curve.exact = exact.ratio
        for digits in sorted({*ratio, *lzma, *accuracy}):
            arrival = send(state, limosa.Digits(digits), base)
            curve.ratio[digits] = arrival.ratio
            if digits in lzma:
                curve.lzma[digits] = self._lzma(label, state, base, digits, arrival)
            if digits in accuracy:
                curve.accuracy[digits] = self.accuracy(arrival.state)
            self.progress(f"{label}, RP {digits}: ratio {arrival.ratio:.3f}")
        return curve

    def _lzma(
        self, label: str, state: State, base: State | None, digits: int, arrival: Arrival
    ) -> float:
        other = send(state, limosa.Digits(digits, coder=LZMA), base)
        if not same(other.state, arrival.state):
            raise ValueError(f"{label}, RP {digits}: the two coders decode different weights")
        return other.ratio


def measure(measured: Measurements, bench: Bench) -> None:
    """Fill ``measured.original`` and ``measured.curves``."""
    states, names = measured.states, measured.names
    measured.original = {key: bench.accuracy(state) for key, state in states.items()}
    for key, state in states.items():
        # The near version is nobody's row in tables 2 to 5: only figure 5 shows it.
        shown = key != "near"
        measured.curves[key] = bench.sweep(
            names[key],
            state,
            None,
            ratio=RATIO_DIGITS if shown else (),
            lzma=TABLE_DIGITS if shown else (),
            accuracy=MODEL_DIGITS,
        )
    title = measured.network.title
    for key, label, new, base in (
        ("dom1", f"{title}-DoM1", "last", "base"),
        ("dom2", f"{title}-DoM2", "last", "near"),
        ("partial_dom", f"{title}-partial-DoM", "partial", "base"),
    ):
        measured.curves[key] = bench.sweep(
            label,
            states[new],
            states[base],
            ratio=RATIO_DIGITS,
            lzma=TABLE_DIGITS,
            accuracy=TABLE_DIGITS,
        )
    received = send(states["base"], limosa.Digits(CORRUPT_DIGITS), None).state
    measured.curves["corrupted"] = bench.sweep(
        f"{title}-partial-DoM-U",
        states["partial"],
        received,
        ratio=(CORRUPT_TABLE_DIGITS,),
        lzma=(CORRUPT_TABLE_DIGITS,),
        accuracy=(CORRUPT_TABLE_DIGITS,),
    )
