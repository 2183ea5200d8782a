"""The results of a lossy run as CSV and Markdown."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from benchmarks import machine

from .measure import NNCODEC, Point, Results
from .nncodec import VERSION

CSV_COLUMNS = (
    "data", "codec", "setting", "raw_bytes", "coded_bytes", "bits_a_weight", "snr_db", "measure",
    "value", "encode_best_mb_s", "decode_best_mb_s",
)  # fmt: skip


def write_csv(results: Results, path: Path) -> None:
    """Write one line for each point and measure of quality."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        for p in results.points:
            for measure, value in p.quality.items():
                writer.writerow(
                    [p.work, p.codec, p.setting, p.raw_bytes, p.bytes, f"{_bits(p):.4f}",
                     f"{p.snr:.3f}", measure, f"{value:.6g}",
                     _speed(p, p.encode_s), _speed(p, p.decode_s)]
                )  # fmt: skip


def write_markdown(results: Results, path: Path, plot: str | None) -> None:
    """Write the tables, the numbers to reach and how it was measured."""
    path.write_text("\n".join(_document(results, plot)) + "\n", encoding="utf-8")


def _document(results: Results, plot: str | None) -> Iterable[str]:
    yield "# Lossy coding beside NNCodec"
    yield ""
    yield f"Measured on {machine.describe()}; NNCodec {VERSION}."
    yield ""
    yield (
        "F32 models, whole files with every tensor (NNCodec leaves integers out). NNCodec codes "
        "with its trellis and `nonweight_qp` -75; limosa's step (one for all tensors, finer in "
        "those of fewer than 32 768 elements, as `Target` sets it) is searched until its "
        "signal-to-noise ratio over the tensors of two dimensions or more is NNCodec's, or up to "
        "0.02 dB more. Speeds are MB (10⁶ bytes) of raw F32 a second, one thread, best of the "
        "repetitions; NNCodec's are of the run that filled its cache (`--fresh` repeats it). "
        "`python -m benchmarks.lossy.bench` makes this page."
    )
    if plot:
        yield from ("", f"![Size against signal-to-noise ratio and quality]({plot})")
    if results.verdicts:
        missed = sum(not verdict.is_reached for verdict in results.verdicts)
        yield from ("", "## Numbers to reach", "")
        yield f"{len(results.verdicts) - missed} reached, {missed} missed."
        yield from ("", "| what | to reach | here | |", "|---|---|---|---|")
        for v in results.verdicts:
            mark = "reached" if v.is_reached else "**missed**"
            yield f"| {v.what} | {v.goal} | {v.figure} | {mark} |"
    for work, title in results.titles.items():
        points = [p for p in results.points if p.work == work]
        if points:
            yield from _table(title, results.measures[work], points)
    yield from ("", "## Quality", "", *_QUALITY)
    if results.not_run:
        yield from ("", "## Not run", "")
        yield from (f"- {what}: {why}" for what, why in results.not_run.items())


_QUALITY = (
    "- `kl`: mean divergence, in nats, of the decoded EfficientNet-Lite0's classes from the "
    "original's over 256 augmented crops of photographs; `agreement`: share with the same first "
    "class. Calibration sees the other halves of the photographs. What was chosen with a look at "
    "these crops: the rule of the finer steps (one threshold tried) and, on a part of them, the "
    "damping of calibration. The trellis' weight of bits was chosen on the weights of two models.",
    "- `map`: mean average precision of finding, among 400 docstrings of Python's standard "
    "library, the one that a first sentence belongs to; `cosine`: mean cosine of the decoded "
    "MiniLM's embeddings with the original's.",
    "- `accuracy`: share of 1 000 handwritten digits that a small network reads, trained on "
    "4 000 others.",
)


def _table(title: str, measures: tuple[str, ...], points: list[Point]) -> Iterable[str]:
    yield from ("", f"## {title}", "")
    yield f"{points[0].raw_bytes:,} bytes raw.".replace(",", " ")
    yield ""
    yield (
        f"| codec | setting | bytes | of NNCodec's | bits a weight | SNR dB | "
        f"{' | '.join(measures)} | encode MB/s | decode MB/s |"
    )
    yield "|---|---|--:|--:|--:|--:|" + "--:|" * (len(measures) + 2)
    rivals = {p.level: p.bytes for p in points if p.codec == NNCODEC}
    for p in sorted(points, key=lambda p: p.level):
        share = f"{p.bytes / rivals[p.level]:.3f}" if p.level in rivals else ""
        quality = " | ".join(f"{p.quality[name]:.4g}" for name in measures)
        yield (
            f"| {p.codec} | {p.setting} | {p.bytes} | {share} | {_bits(p):.3f} | {p.snr:.2f} | "
            f"{quality} | {_speed(p, p.encode_s)} | {_speed(p, p.decode_s)} |"
        )


def _bits(point: Point) -> float:
    return 32 * point.bytes / point.raw_bytes


def _speed(point: Point, seconds: float | None) -> str:
    speed = point.speed(seconds)
    return "" if speed is None else f"{speed:.1f}"
