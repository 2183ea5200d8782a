"""The numbers to reach, judged on the records of one run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.codecs import LIMOSA, LIMOSA_DIFF
from benchmarks.memory import Peak
from benchmarks.timing import Record

# Size of limosa's file as a share of the raw bytes, at most.
WHOLE_SIZES = {
    "minilm-bf16": 0.660, "minilm-f32": 0.817, "minilm-f16": 0.845,
    "lite0-f32": 0.830, "lite0-bf16": 0.661, "lite0-f16": 0.850,
}  # fmt: skip
ENCODE_FACTOR = 3.0  # times ZipNN's speed
DECODE_FACTOR = 2.0
# Size of the difference as a share of a rival's, at most.
DIFFERENCE_SIZES = (
    ("finetune-bf16", "ZipNN on XOR", 0.60),
    ("finetune-bf16", "bsdiff", 0.75),
    ("finetune-f32", "ZipNN on XOR", 0.90),
    ("step-bf16", "int32 index + value", 0.30),
    ("kept-bf16", "int32 index + value", 0.30),
)
THREADS_FACTOR = 1.8  # two threads beside one


@dataclass(frozen=True)
class Verdict:
    """One number to reach: ``figure`` is what this run gave."""

    what: str
    goal: str
    figure: str
    is_reached: bool


def judge(records: list[Record], peaks: list[Peak]) -> list[Verdict]:
    """Return a verdict for every number whose records are there."""
    table = {(r.work, r.codec, r.threads): r for r in records}
    return [
        *_whole_sizes(table),
        *_speeds(table),
        *_difference_sizes(table),
        *_difference_speeds(table),
        *_two_threads(table),
        *map(_memory, peaks),
    ]


_Table = dict[tuple[str, str, int], Record]


def _whole_sizes(table: _Table) -> Iterator[Verdict]:
    for work, goal in WHOLE_SIZES.items():
        if record := table.get((work, LIMOSA, 1)):
            yield Verdict(
                f"size, {work}", f"≤ {goal:.3f} of raw", f"{record.ratio:.4f}",
                record.ratio <= goal,
            )  # fmt: skip


def _speeds(table: _Table) -> Iterator[Verdict]:
    for work in WHOLE_SIZES:
        ours, theirs = table.get((work, LIMOSA, 1)), table.get((work, "ZipNN", 1))
        if ours is None or theirs is None:
            continue
        encode = theirs.encode_best / ours.encode_best
        decode = theirs.decode_best / ours.decode_best
        yield _factor(f"encode speed, {work}", encode, ENCODE_FACTOR, "ZipNN")
        yield _factor(f"decode speed, {work}", decode, DECODE_FACTOR, "ZipNN")


def _factor(what: str, figure: float, goal: float, rival: str) -> Verdict:
    return Verdict(what, f"≥ {goal:g} × {rival}", f"{figure:.2f} ×", figure >= goal)


def _difference_sizes(table: _Table) -> Iterator[Verdict]:
    for work, rival, goal in DIFFERENCE_SIZES:
        ours, theirs = table.get((work, LIMOSA_DIFF, 1)), table.get((work, rival, 1))
        if ours is None or theirs is None:
            continue
        share = ours.coded_bytes / theirs.coded_bytes
        figure = f"{share:.3f} × ({ours.ratio:.4f} of raw)"
        yield Verdict(f"difference, {work}", f"≤ {goal:.2f} × {rival}", figure, share <= goal)


def _difference_speeds(table: _Table) -> Iterator[Verdict]:
    for work in dict.fromkeys(work for work, _, _ in DIFFERENCE_SIZES):
        ours, theirs = table.get((work, LIMOSA_DIFF, 1)), table.get((work, "ZipNN", 1))
        if ours is None or theirs is None:
            continue
        factor = theirs.decode_best / ours.decode_best
        yield _factor(f"difference, decode speed, {work}", factor, 1.0, "ZipNN, whole file")


def _two_threads(table: _Table) -> Iterator[Verdict]:
    works = dict.fromkeys((work, codec) for work, codec, _ in table if codec.startswith(LIMOSA))
    for work, codec in works:
        one, two = table.get((work, codec, 1)), table.get((work, codec, 2))
        if one is None or two is None:
            continue
        encode = one.encode_best / two.encode_best
        decode = one.decode_best / two.decode_best
        same = one.digest == two.digest
        yield Verdict(
            f"two threads, {codec}, {work}",
            f"≥ {THREADS_FACTOR} × one thread both ways, same bytes",
            f"{encode:.2f} × and {decode:.2f} ×, {'same' if same else 'OTHER'} bytes",
            same and min(encode, decode) >= THREADS_FACTOR,
        )


def _memory(peak: Peak) -> Verdict:
    return Verdict(
        f"peak memory, {peak.command}",
        f"≤ {peak.allowed_bytes / 2**20:.0f} MiB",
        f"{peak.peak_bytes / 2**20:.0f} MiB",
        peak.is_reached,
    )
