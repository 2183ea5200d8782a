"""Means over seeds, and the numbers to reach."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from benchmarks.networks import NETWORKS
from benchmarks.papers.updates.runs import Result
from benchmarks.targets import Verdict

# Student's t for a two-sided interval of 90 %, by degrees of freedom.
_T90 = {1: 6.314, 2: 2.920, 3: 2.353, 4: 2.132, 5: 2.015, 6: 1.943, 7: 1.895, 8: 1.860, 9: 1.833}
EQUAL = 0.3
"""Points of accuracy within which two means count as equal."""
FINE = 0.0625
"""Steps so fine that the quantized update is what was trained."""


@dataclass(frozen=True)
class Row:
    """One setting, or one step of it, over its seeds."""

    network: str
    family: str
    label: str
    value: float
    lam: float
    step: float
    first: int
    epochs: float
    parameters: float
    nbytes: float
    accuracy: float
    interval: float
    trained: float
    lift: float
    lift_interval: float
    runs: int
    model_parameters: int
    statistics: int = 0

    @property
    def bytes_as_float32(self) -> float:
        """What the paper's count takes uncoded, and the statistics of batch norms with it."""
        return 4 * (self.parameters + self.statistics)


def rows_of(results: Iterable[Result]) -> list[Row]:
    """A row for each step of each setting."""
    groups: dict[tuple, list[Result]] = defaultdict(list)
    for result in results:
        key = (
            result["network"], result["family"], result["value"], result["lam"], result["step"],
            result["first"], result["epochs"],
        )  # fmt: skip
        groups[key].append(result)
    return [row for group in groups.values() for row in _rows(group)]


def together(earlier: Sequence[Row], now: Sequence[Row]) -> list[Row]:
    """Rows of now and of an earlier run; of two of the same setting that of more runs."""
    found: dict[tuple, Row] = {}
    for row in (*earlier, *now):
        key = (
            row.network, row.family, row.value, row.lam, row.step, row.first, row.epochs,
        )  # fmt: skip
        if key not in found or row.runs >= found[key].runs:
            found[key] = row
    return list(found.values())


def _rows(group: Sequence[Result]) -> Iterator[Row]:
    one = group[0]
    for number, point in enumerate(one["points"] or [{"step": 0.0, "bytes": 0}]):
        points = [result["points"][number] for result in group] if one["points"] else []
        found = [p["accuracy"] for p in points] or [result["accuracy"] for result in group]
        lifts = [a - result["before"] for a, result in zip(found, group, strict=True)]
        yield Row(
            network=one["network"], family=one["family"], label=one["label"], value=one["value"],
            lam=one["lam"], step=point["step"] or one["step"], first=one["first"],
            epochs=one["epochs"],
            parameters=one.get("parameters", 0),
            nbytes=statistics.fmean([p["bytes"] for p in points]) if points else 0.0,
            accuracy=statistics.fmean(found), interval=_interval(found),
            trained=statistics.fmean(result["accuracy"] for result in group),
            lift=statistics.fmean(lifts), lift_interval=_interval(lifts), runs=len(group),
            model_parameters=one["model_parameters"],
            statistics=_statistics(one["network"]),
        )  # fmt: skip


@cache
def _statistics(network: str) -> int:
    """Running means and variances, which an update carries and the paper does not count."""
    buffers = NETWORKS[network]().named_buffers()
    return sum(b.numel() for name, b in buffers if not name.endswith("num_batches_tracked"))


def _interval(values: Sequence[float]) -> float:
    """Half of the 90 % interval of the mean."""
    if len(values) < 2:
        return 0.0
    spread = statistics.stdev(values) / math.sqrt(len(values))
    return _T90.get(len(values) - 1, 1.7) * spread


def verdicts(rows: Sequence[Row], seconds: dict[str, float]) -> list[Verdict]:
    """The numbers that the project set itself, on VGG-small."""
    small = [row for row in rows if row.network == "vgg-small" and row.first == 120]
    refined = [row for row in small if row.nbytes]
    dense = [row for row in refined if row.family == "difference"]
    augmented = [row for row in refined if row.label.startswith("KA n=3") and row.lam]
    plain = next((r for r in refined if r.label == "KA n=3" and r.step == FINE), None)
    rate = [row for row in refined if row.lam and "KA" not in row.label]
    found: list[Verdict] = []
    if plain and augmented:
        # The largest price that still keeps the accuracy, or the smallest loss.
        kept = [row for row in augmented if row.accuracy >= plain.trained - 0.2]
        coded = (
            min(kept, key=lambda r: r.nbytes) if kept else max(augmented, key=lambda r: r.accuracy)
        )
        share, lost = coded.nbytes / plain.bytes_as_float32, plain.trained - coded.accuracy
        found.append(Verdict(
            "KA n=3, coded against float32", "≤ 1/9 of the bytes, ≤ 0.2 point lost",
            f"1/{1 / share:.1f} ({coded.nbytes:,.0f} of {plain.bytes_as_float32:,.0f} bytes), "
            f"{lost:+.2f} points lost", share <= 1 / 9 and lost <= 0.2,
        ))  # fmt: skip
        best = _smallest(rate, coded.accuracy - EQUAL)
        found.append(_ratio("best of limosa against coded KA n=3", 0.60, best, coded))
    if dense and rate:
        found += _against_dense(dense, rate)
    found += _at_98(refined)
    for name, limit in (("vgg-medium", 0.5), ("resnet-18", 10.0)):
        if name in seconds:
            found.append(Verdict(
                f"rebuild {name}, one core, without torch", f"< {limit} s",
                f"{seconds[name]:.2f} s", seconds[name] < limit,
            ))  # fmt: skip
    return [*found, *_equal_parameters(rows)]


def _against_dense(dense: Sequence[Row], rate: Sequence[Row]) -> Iterator[Verdict]:
    """Of all pairs whose means are within 0.3 point, the one with the smallest ratio."""
    pairs = []
    for row in rate:
        near = [d for d in dense if abs(d.accuracy - row.accuracy) <= EQUAL]
        if near:
            pairs.append((row, min(near, key=lambda d: d.nbytes)))
    what = "best of limosa against dense, then quantized"
    if not pairs:
        yield _ratio(what, 0.15, None, None)
        return
    yield _ratio(what, 0.15, *min(pairs, key=lambda pair: pair[0].nbytes / pair[1].nbytes))


def _ratio(what: str, goal: float, one: Row | None, other: Row | None) -> Verdict:
    if one is None or other is None:
        return Verdict(what, f"≤ {goal:.2f} × the bytes", "no row of equal accuracy", False)
    share = one.nbytes / other.nbytes
    figure = (
        f"{share:.3f} × ({one.nbytes:,.0f} bytes at {one.accuracy:.2f}, {_name(one)}; "
        f"{other.nbytes:,.0f} at {other.accuracy:.2f}, {_name(other)})"
    )
    return Verdict(what, f"≤ {goal:.2f} × the bytes, equal accuracy", figure, share <= goal)


def _at_98(refined: Sequence[Row]) -> Iterator[Verdict]:
    reached = sorted((r for r in refined if r.accuracy >= 98.0), key=lambda r: r.nbytes)
    if not reached:
        best = max(refined, key=lambda r: r.accuracy)
        yield Verdict(
            "bytes at 98 %", "the smallest of all rows",
            f"no row reaches 98 %; the best is {best.accuracy:.2f} ({_name(best)}, "
            f"{best.nbytes:,.0f} bytes)", False,
        )  # fmt: skip
        return
    first = reached[0]
    yield Verdict(
        "bytes at 98 %", "the smallest of all rows", f"{first.nbytes:,.0f} bytes, {_name(first)}",
        bool(first.lam),
    )  # fmt: skip


def _equal_parameters(rows: Sequence[Row]) -> Iterator[Verdict]:
    """KA against RM and LRU of about as many parameters, unquantized; as in figures 5 and 6."""
    for network in ("vgg-small", "vgg-tiny"):
        fine = [
            row for row in rows
            if row.network == network and row.step == FINE and not row.lam and row.first == 120
        ]  # fmt: skip
        for one in (row for row in fine if row.family == "KA"):
            near = [
                row for row in fine
                if row.family in ("RM", "LRU") and abs(row.parameters / one.parameters - 1) < 0.2
            ]  # fmt: skip
            if not near:
                continue
            said = ", ".join(f"{r.label} {r.accuracy:.2f} ± {r.interval:.2f}" for r in near)
            yield Verdict(
                f"{network}: {one.label} ahead of RM and LRU at equal parameters", "as in figure 5",
                f"{one.accuracy:.2f} ± {one.interval:.2f} against {said}",
                all(one.accuracy > row.accuracy for row in near),
            )  # fmt: skip


def _smallest(rows: Sequence[Row], accuracy: float) -> Row | None:
    return min((r for r in rows if r.accuracy >= accuracy), key=lambda r: r.nbytes, default=None)


def _name(row: Row) -> str:
    return (
        f"{row.label} λ={row.lam:g} step {row.step:g}"
        if row.lam
        else f"{row.label} step {row.step:g}"
    )
