"""The numbers to reach, judged on the points of one run."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.targets import Verdict

from . import ours
from .measure import NNCODEC, Point, Results

# File at most so large, as a share of NNCodec's, by NNCodec's qp: at no lower a ratio and with no
# greater a divergence; then calibrated, with no greater a divergence.
SAME_RATIO = {-20: 0.94, -26: 0.96, -32: 0.97, -38: 0.975}
SAME_DIVERGENCE = {-32: 0.80, -26: 0.75, -20: 0.75}
JUDGED = 5  # the default effort: chosen before the run, not the best of three
ENCODE_TRELLIS, ENCODE_PLAIN, DECODE = 10, 40, 15  # times NNCodec's speed
MISSED_BY, ENCODES = 0.01, 12


def judge(results: Results) -> list[Verdict]:
    """Return a verdict for every number whose points are there. All of them are of Lite0."""
    points = [p for p in results.points if p.work == "lite0"]
    theirs = {int(p.setting.split()[1]): p for p in points if p.codec == NNCODEC}
    return [
        *_same_ratio(points, theirs),
        *_same_divergence(points, theirs),
        *_speeds(points, theirs),
        *_searches(results),
    ]


def _same_ratio(points: list[Point], theirs: dict[int, Point]) -> Iterator[Verdict]:
    for qp, goal in SAME_RATIO.items():
        if (rival := theirs.get(qp)) is None:
            continue
        level = [
            p for p in points if p.codec == ours.NAMES[JUDGED] and p.level == rival.level
            and p.snr >= rival.snr
        ]  # fmt: skip
        for p in level:
            share = p.bytes / rival.bytes
            yield Verdict(
                f"size at {rival.snr:.2f} dB, KL no worse",
                f"≤ {goal:g} × {rival.bytes}, KL ≤ {rival.quality['kl']:.4g}",
                f"{share:.3f} × ({p.bytes}), KL {p.quality['kl']:.4g}",
                share <= goal and p.quality["kl"] <= rival.quality["kl"],
            )


def _same_divergence(points: list[Point], theirs: dict[int, Point]) -> Iterator[Verdict]:
    for qp, goal in SAME_DIVERGENCE.items():
        rival = theirs.get(qp)
        calibrated = [
            p for p in points if p.codec == ours.CALIBRATED and rival and p.level == rival.level
        ]
        for p in calibrated if rival else []:
            share = p.bytes / rival.bytes
            yield Verdict(
                f"calibrated, at the KL of qp {qp}",
                f"≤ {goal:g} × {rival.bytes}, KL ≤ {rival.quality['kl']:.4g}",
                f"{share:.3f} × ({p.bytes}), KL {p.quality['kl']:.4g}",
                share <= goal and p.quality["kl"] <= rival.quality["kl"],
            )


def _speeds(points: list[Point], theirs: dict[int, Point]) -> Iterator[Verdict]:
    rivals = {p.level: p for p in theirs.values()}
    for what, effort, goal, time in (
        ("encode speed, trellis", 5, ENCODE_TRELLIS, "encode_s"),
        ("encode speed, plain", 1, ENCODE_PLAIN, "encode_s"),
        ("decode speed", 5, DECODE, "decode_s"),
    ):
        factors = [
            getattr(rivals[p.level], time) / getattr(p, time)
            for p in points
            if p.codec == ours.NAMES[effort] and p.level in rivals and getattr(p, time)
        ]
        if factors:
            low, high = min(factors), max(factors)
            yield Verdict(
                what, f"≥ {goal} × NNCodec at every ratio", f"{low:.1f} to {high:.1f} ×",
                low >= goal,
            )  # fmt: skip


def _searches(results: Results) -> Iterator[Verdict]:
    for search in results.searches:
        off = search.found / search.wanted - 1
        yield Verdict(
            f"`{search.target}=`{search.wanted:.4g}",
            f"within {MISSED_BY:.0%}, in at most {ENCODES} encodes' time",
            f"{search.found:.5g} ({off:+.2%}) in {search.encodes:.1f}",
            abs(off) <= MISSED_BY and search.encodes <= ENCODES,
        )
