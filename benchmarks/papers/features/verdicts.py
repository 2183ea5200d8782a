"""The numbers to reach, judged on one run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.papers.features.accuracy import Fewest
from benchmarks.papers.features.architectures import Shape
from benchmarks.papers.features.neighbours import ENTROPY, LIMOSA, WANTED, Curve
from benchmarks.papers.features.tables import LOSSLESS, Row
from benchmarks.papers.features.video import Sequences
from benchmarks.targets import Verdict

RELU_SIZE, LINEAR_SIZE = 0.93, 0.91  # × lzma
LZMA_SPEED, ZLIB_SPEED = 100.0, 10.0
ENTROPY_SHARE, WEBP_SHARE = 0.85, 0.5
EXCESS = 64  # bytes above raw
SAVED = 0.25
BITS = 0.8


@dataclass
class Results:
    """All that one run measured.

    Attributes:
        excess: bytes that random bytes get longer at worst.
        pan: by how much of its magnitude a frame differs from the one before.
        images: messages in the tables, by network.
        rated: images in the curves.
        profiled: cuts that limosa had a profile for.
        notes: what was left out.
    """

    shapes: list[Shape] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    excess: int = 0
    curves: list[Curve] = field(default_factory=list)
    videos: list[Sequences] = field(default_factory=list)
    pan: float = 0.0
    fewest: list[Fewest] = field(default_factory=list)
    images: dict[str, int] = field(default_factory=dict)
    rated: int = 0
    profiled: str = ""
    notes: list[str] = field(default_factory=list)


def judge(results: Results) -> list[Verdict]:
    """A verdict for each number whose measurements are there."""
    found: list[Verdict] = []
    for network in dict.fromkeys(row.network for row in results.rows):
        rows = [row for row in results.rows if row.network == network]
        found += _lossless(network, rows)
    if results.rows:
        found.append(_never_above(results))
    found += _against_neighbours(results.curves)
    found += [
        Verdict(
            f"prediction, {one.cut}", f"≥ {SAVED:.0%} fewer bytes",
            f"{one.saved:.1%} fewer", one.saved >= SAVED,
        )
        for one in results.videos
    ]  # fmt: skip
    if results.fewest:
        best = min(results.fewest, key=lambda one: one.bits)
        figure = f"{best.bits:.3f} ({best.cut}, {best.accuracy - best.before:+.1f} points)"
        found.append(
            Verdict(
                f"bits an element of {best.network}, best cut", f"≤ {BITS} for at most a point",
                figure, best.bits <= BITS,
            )
        )  # fmt: skip
    return found


def by_feature(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    """Rows by feature, then by coder."""
    table: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        table[row.feature][row.coder] = row
    return dict(table)


def _lossless(network: str, rows: list[Row]) -> Iterator[Verdict]:
    table = by_feature(rows)
    relu = [coders for coders in table.values() if coders[LOSSLESS].kind == "relu"]
    linear = [coders for coders in table.values() if coders[LOSSLESS].kind == "linear"]
    for kind, chosen, goal in (("ReLU", relu, RELU_SIZE), ("linear", linear, LINEAR_SIZE)):
        if chosen:
            sizes = [c[LOSSLESS].ratio[0] / c["lzma"].ratio[0] for c in chosen]
            mean = float(np.mean(sizes))
            yield Verdict(
                f"lossless size, {kind} features of {network}", f"mean ≤ {goal} × lzma",
                f"{mean:.3f} × ({min(sizes):.3f} to {max(sizes):.3f})", mean <= goal,
            )  # fmt: skip
    for rival, goal in (("lzma", LZMA_SPEED), ("zlib", ZLIB_SPEED)):
        factors = [c[rival].seconds[0] / c[LOSSLESS].seconds[0] for c in relu]
        mean = float(np.exp(np.mean(np.log(factors))))
        yield Verdict(
            f"encode speed, ReLU features of {network}", f"mean ≥ {goal:g} × {rival}",
            f"{mean:.3g} × ({min(factors):.3g} to {max(factors):.3g})", mean >= goal,
        )  # fmt: skip
    larger = [feature for feature, c in table.items() if c[LOSSLESS].ratio[0] >= c["zlib"].ratio[0]]
    figure = f"{len(table) - len(larger)} of {len(table)} features"
    figure += f"; not {', '.join(larger)}" if larger else ""
    yield Verdict(f"lossless size, all of {network}", "below zlib everywhere", figure, not larger)


def _never_above(results: Results) -> Verdict:
    worst = max(results.excess, *(r.excess for r in results.rows if r.coder == LOSSLESS))
    return Verdict(
        "lossless size, any feature and random bytes", f"≤ raw + {EXCESS} bytes",
        f"{worst:+d} bytes at worst", worst <= EXCESS,
    )  # fmt: skip


def _against_neighbours(curves: Sequence[Curve]) -> Iterator[Verdict]:
    for cut in dict.fromkeys(curve.cut for curve in curves):
        bits = {one.coder: one.bits_at() for one in curves if one.cut == cut}
        own, ideal = bits.pop(LIMOSA, None), bits.pop(ENTROPY, None)
        if own is None or ideal is None:
            continue
        at = f"at KL {WANTED}"
        yield Verdict(
            f"{cut} {at}, against the entropy of one plain step", f"≤ {ENTROPY_SHARE} ×",
            f"{own / ideal:.3f} × ({own:.2f} bit)", own <= ENTROPY_SHARE * ideal,
        )  # fmt: skip
        reached = {name: value for name, value in bits.items() if value is not None}
        if reached:
            webp = [value for name, value in reached.items() if "WebP" in name]
            if webp:
                yield Verdict(
                    f"{cut} {at}, against 8-bit tiling + WebP", f"≤ {WEBP_SHARE} ×",
                    f"{own / min(webp):.3f} × ({min(webp):.2f} bit)",
                    own <= WEBP_SHARE * min(webp),
                )  # fmt: skip
            name = min(reached, key=reached.__getitem__)
            yield Verdict(
                f"{cut} {at}, against the best picture coder", "fewer bits",
                f"{own / reached[name]:.3f} × {name} ({reached[name]:.2f} bit)",
                own < reached[name],
            )  # fmt: skip
