"""Lossy coding: size against quality and speed, beside NNCodec (ISO/IEC 15938-17).

    python -m benchmarks.lossy.bench --nncodec-python NNC/bin/python

See ``benchmarks/requirements-nncodec.txt`` for the interpreter. What NNCodec gives is kept in the
user's cache folder, decoded tensors and speeds; ``--fresh`` measures it again.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path

import torch

from benchmarks import machine
from benchmarks.finetune import default_cache

from . import measure, ours, report, works
from .nncodec import ENVIRONMENT, NNCodec, NotAvailableError
from .plots import draw
from .targets import judge


def main(arguments: list[str] | None = None) -> int:
    """Measure, write the results, print the numbers to reach; 0 even when some are missed."""
    options = _parser().parse_args(arguments)
    started = time.monotonic()

    def tell(line: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {line}", file=sys.stderr, flush=True)

    torch.set_num_threads(1)
    rival = NNCodec(options.cache, options.nncodec_python, fresh=options.fresh)
    results = measure.Results()
    for name in options.data:
        work = works.load(name, options.cache)
        results.titles[name] = work.title
        results.measures[name] = work.measures
        results.axes[name] = (work.axis, work.plotted)
        try:
            results.points += measure.nncodec_points(work, rival, tell)
        except NotAvailableError as error:
            results.not_run[f"NNCodec on {name}"] = str(error)
        _measure_ours(work, options, results, tell)
        # Speeds take long: keep what there is whatever follows.
        _write(results, options)
    for verdict in judge(results):
        mark = "reached" if verdict.is_reached else "MISSED "
        print(f"{mark}  {verdict.what}: {verdict.figure} (to reach: {verdict.goal})")
    for what, why in results.not_run.items():
        print(f"not run  {what}: {why}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lossy.bench", description=__doc__)
    parser.add_argument("--data", nargs="+", choices=works.names(), default=works.names())
    parser.add_argument(
        "--nncodec-python", metavar="FILE",
        help=f"interpreter with NNCodec; default: the environment's {ENVIRONMENT}",
    )  # fmt: skip
    parser.add_argument("--fresh", action="store_true", help="run NNCodec again")
    parser.add_argument(
        "--efforts", nargs="+", type=int, choices=ours.EFFORTS, default=ours.EFFORTS
    )
    parser.add_argument("--no-calibrate", dest="calibrate", action="store_false")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="repetitions, default 5")
    parser.add_argument("--cache", type=Path, default=default_cache(), metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=Path("docs/results"), metavar="FOLDER")
    parser.add_argument(
        "--name", default=f"lossy-{machine.slug()}", help="of the files written, without suffix"
    )
    return parser


def _measure_ours(
    work: works.Work, options: argparse.Namespace, results: measure.Results, tell: measure.Tell
) -> None:
    if why := ours.why_not():
        results.not_run[f"limosa on {work.name}"] = why
        return
    theirs = [p for p in results.points if p.work == work.name]
    ratios = [p.snr for p in theirs] or list(measure.RATIOS)
    results.points += measure.our_points(work, ratios, options.efforts, options.rounds, tell)
    if work.name != "lite0":
        return
    results.searches += measure.searches(work, tell)
    if options.calibrate and theirs:
        if why := ours.why_not("calibrate"):
            results.not_run["calibrated coding"] = why
        else:
            kept = options.cache / "calibration-lite0.npz"
            results.points += measure.calibrated_points(work, theirs, kept, tell)


def _write(results: measure.Results, options: argparse.Namespace) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    stem = options.out / options.name
    is_drawn = draw(results, stem.with_name(stem.name + ".png"))
    report.write_csv(results, stem.with_name(stem.name + ".csv"))
    page = dataclasses.replace(results, verdicts=judge(results))
    report.write_markdown(
        page, stem.with_name(stem.name + ".md"), f"{stem.name}.png" if is_drawn else None
    )
    print(f"wrote {stem}.md, .csv" + (" and .png" if is_drawn else ""))


if __name__ == "__main__":
    sys.exit(main())
