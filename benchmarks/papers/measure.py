"""All that is measured: bytes and retrieval mAP against RP, for models and for differences."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import limosa

from . import models
from .models import Network, State
from .retrieval import RetrievalSet
from .transmit import Arrival, kept_or_truncated, same, send

RATIO_DIGITS = tuple(range(13))
"""RPs of figures 4 and 6."""
TABLE_DIGITS = (6, 5, 4, 3)
"""RPs of the tables; lzma, which takes far the longest, is measured at these only."""
LZMA_DIGITS = {"base": TABLE_DIGITS[:1], "last": TABLE_DIGITS, "partial": TABLE_DIGITS}
"""Models sent alone, and the RPs at which lzma sends them; the base stands in table 2 only."""
MODEL_DIGITS = tuple(range(1, 8))
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
        curves: ``base``, ``last`` and ``partial`` alone, then the differences ``dom1``, ``dom2``,
            ``partial_dom`` and ``corrupted``.
    """

    network: Network
    states: dict[str, State]
    others: dict[str, State]
    names: dict[str, str]
    sets: list[str]
    original: dict[str, Accuracy] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)


def write_figures(measured: Measurements, path: Path) -> None:
    """Write all that was measured as JSON, so that tables and plots can be made again."""
    found = {
        "original": measured.original,
        "curves": {key: asdict(curve) for key, curve in measured.curves.items()},
    }
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def read_figures(measured: Measurements, path: Path) -> None:
    """Fill ``measured.original`` and ``measured.curves`` from what ``write_figures`` wrote.

    Raises:
        OSError: there is no such file.
    """
    found = json.loads(path.read_text(encoding="utf-8"))
    measured.original = {key: tuple(values) for key, values in found["original"].items()}
    for key, curve in found["curves"].items():
        measured.curves[key] = Curve(
            curve["label"],
            ratio={int(p): ratio for p, ratio in curve["ratio"].items()},
            lzma={int(p): ratio for p, ratio in curve["lzma"].items()},
            exact=curve["exact"],
            accuracy={int(p): tuple(values) for p, values in curve["accuracy"].items()},
        )


class Bench:
    """Measures models; a context manager, at whose end the slow lzma figures are complete.

    Args:
        network: The network of every model.
        sets: The retrieval sets that judge it.
        progress: Called with a line of text after each step.
    """

    def __init__(
        self, network: Network, sets: list[RetrievalSet], progress: Callable[[str], object]
    ) -> None:
        self._network = network
        self._sets = sets
        self._progress = progress
        # lzma takes half a minute a model, and lets other threads run meanwhile.
        self._beside = ThreadPoolExecutor(2)
        self._pending: list[Future[None]] = []

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._beside.shutdown(cancel_futures=kind is not None)
        if kind is None:
            for future in self._pending:
                future.result()

    def accuracy(self, state: State) -> Accuracy:
        """Return the mAP of these weights on each set."""
        module = models.to_module(self._network, state)
        return tuple(
            s.mean_average_precision(lambda crops: models.describe(self._network, module, crops))
            for s in self._sets
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
        for job in self._pending:
            if job.done():
                job.result()  # an error there should not wait for the end
        curve = Curve(label)
        exact = send(state, limosa.Lossless(), base)
        if not same(exact.state, state):
            raise ValueError(f"{label}: a lossless round trip changed the weights")
        curve.exact = exact.ratio
        for digits in sorted({*ratio, *lzma, *accuracy}):
            arrival = send(state, limosa.Digits(digits), base)
            curve.ratio[digits] = arrival.ratio
            if digits in lzma:
                job = self._beside.submit(self._lzma, curve, digits, state, base, arrival)
                self._pending.append(job)
            if digits in accuracy:
                curve.accuracy[digits] = self.accuracy(arrival.state)
            self._progress(f"{label}, RP {digits}: ratio {arrival.ratio:.3f}")
        return curve

    def _lzma(
        self, curve: Curve, digits: int, state: State, base: State | None, arrival: Arrival
    ) -> None:
        other = send(state, limosa.Digits(digits, coder="lzma"), base)
        if not kept_or_truncated(arrival.state, other.state, state):
            raise ValueError(f"{curve.label}, RP {digits}: the two coders decode differently")
        curve.lzma[digits] = other.ratio
        self._progress(f"{curve.label}, RP {digits}: ratio {other.ratio:.3f} with lzma")


def measure(measured: Measurements, bench: Bench) -> None:
    """Fill ``measured.original`` and ``measured.curves``."""
    states, names = measured.states, measured.names
    measured.original = {key: bench.accuracy(state) for key, state in states.items()}
    for key, lzma in LZMA_DIGITS.items():
        measured.curves[key] = bench.sweep(
            names[key],
            states[key],
            None,
            ratio=RATIO_DIGITS,
            lzma=lzma,
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
