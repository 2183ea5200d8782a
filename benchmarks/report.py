"""The results of a run as CSV and Markdown."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import machine
from benchmarks.codecs import LIMOSA, LIMOSA_DIFF
from benchmarks.memory import Peak
from benchmarks.targets import Verdict, judge
from benchmarks.timing import Record
from benchmarks.works import DESCRIPTIONS

CSV_COLUMNS = (
    "data", "codec", "threads", "raw_bytes", "coded_bytes", "size_of_raw",
    "encode_best_mb_s", "encode_median_mb_s", "decode_best_mb_s", "decode_median_mb_s",
    "repetitions",
)  # fmt: skip


@dataclass
class Results:
    """All that one run found. ``not_run`` says why a codec or a measurement is not there."""

    records: list[Record] = field(default_factory=list)
    peaks: list[Peak] = field(default_factory=list)
    not_run: dict[str, str] = field(default_factory=dict)


def write_csv(results: Results, path: Path) -> None:
    """Write one line for each codec, work and number of threads."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        for record in results.records:
            writer.writerow(_csv_row(record))


def write_markdown(results: Results, path: Path, plot: str | None) -> None:
    """Write the tables, the numbers to reach and how it was measured."""
    path.write_text("\n".join(_document(results, plot)) + "\n", encoding="utf-8")


def _csv_row(record: Record) -> list[str]:
    times = (
        record.encode_best, record.encode_median, record.decode_best, record.decode_median,
    )  # fmt: skip
    return [
        record.work, record.codec, str(record.threads), str(record.raw_bytes),
        str(record.coded_bytes), f"{record.ratio:.6f}",
        *(f"{record.speed(seconds):.1f}" for seconds in times), str(record.repetitions),
    ]  # fmt: skip


def _document(results: Results, plot: str | None) -> Iterable[str]:
    yield "# The codec beside its rivals"
    yield ""
    yield f"Measured on {machine.describe()}."
    yield ""
    yield (
        "All codecs ran in one process on the same bytes, each in its turn in every round; "
        "every result was decoded and compared. Size is the whole coded file over the raw bytes "
        "of all tensors. Speeds are MB (10⁶ bytes) of raw tensors a second, best / median of the "
        "repetitions (`rounds`). `python -m benchmarks.bench` makes this page."
    )
    if plot:
        yield from ("", f"![Size against speed]({plot})")
    yield from _verdicts(judge(results.records, results.peaks))
    for work in dict.fromkeys(record.work for record in results.records):
        yield from _work_table(work, [r for r in results.records if r.work == work])
    yield from _memory(results.peaks)
    if results.not_run:
        yield from ("", "## Not run", "")
        yield from (f"- {what}: {why}" for what, why in results.not_run.items())


def _verdicts(verdicts: list[Verdict]) -> Iterable[str]:
    if not verdicts:
        return
    missed = sum(not verdict.is_reached for verdict in verdicts)
    yield from ("", "## Numbers to reach", "")
    yield f"{len(verdicts) - missed} reached, {missed} missed."
    yield from ("", "| what | to reach | here | |", "|---|---|---|---|")
    for v in verdicts:
        state = "reached" if v.is_reached else "**missed**"
        yield f"| {v.what} | {v.goal} | {v.figure} | {state} |"


def _work_table(work: str, records: list[Record]) -> Iterable[str]:
    zipnn = {record.threads: record for record in records if record.codec == "ZipNN"}
    description = DESCRIPTIONS[work.partition("-")[0]]
    yield from ("", f"## {work}", "", f"{description}: {records[0].raw_bytes:,} bytes.", "")
    yield "| codec | threads | size | encode MB/s | decode MB/s | beside ZipNN | rounds |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for r in sorted(records, key=lambda r: (r.threads, r.coded_bytes)):
        name = f"**{r.codec}**" if r.codec in (LIMOSA, LIMOSA_DIFF) else r.codec
        encode = _pair(r.speed(r.encode_best), r.speed(r.encode_median))
        decode = _pair(r.speed(r.decode_best), r.speed(r.decode_median))
        beside = _beside(r, zipnn.get(r.threads))
        yield (
            f"| {name} | {r.threads} | {r.ratio:.4f} | {encode} | {decode} | {beside} "
            f"| {r.repetitions} |"
        )


def _pair(best: float, median: float) -> str:
    return " / ".join(
        f"{speed:,.0f}" if speed >= 10 else f"{speed:.1f}" for speed in (best, median)
    )


def _beside(record: Record, zipnn: Record | None) -> str:
    """Size, encode and decode speed as multiples of ZipNN's on the whole file."""
    if zipnn is None:
        return ""
    size = record.coded_bytes / zipnn.coded_bytes
    encode = zipnn.encode_best / record.encode_best
    decode = zipnn.decode_best / record.decode_best
    return f"{size:.3f}, {encode:.2f}, {decode:.2f}"


def _memory(peaks: list[Peak]) -> Iterable[str]:
    if not peaks:
        return
    yield from ("", "## Memory", "")
    yield (
        "Peak resident memory of a process of its own, Python and all, on MiniLM three times over "
        "(F32, BF16 and F16 in one file). With file names it may use input + output + 64 MiB; in "
        "a pipe twice the largest tensor + 64 MiB."
    )
    yield from ("", "| command | input MiB | output MiB | peak MiB | allowed MiB |")
    yield "|---|--:|--:|--:|--:|"
    for p in peaks:
        sizes = (p.input_bytes, p.output_bytes, p.peak_bytes, p.allowed_bytes)
        yield f"| `{p.command}` | " + " | ".join(f"{size / 2**20:.1f}" for size in sizes) + " |"
