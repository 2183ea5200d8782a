"""Run the benchmark: ``python -m benchmarks.bench`` (see README.md in this folder)."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from benchmarks import finetune, machine
from benchmarks.codecs import runners
from benchmarks.memory import measure_memory
from benchmarks.plots import draw
from benchmarks.report import Results, write_csv, write_markdown
from benchmarks.targets import judge
from benchmarks.timing import time_all
from benchmarks.works import load_work, select, work_names


def main(arguments: list[str] | None = None) -> int:
    """Measure, write the results, print the numbers to reach; 0 even when some are missed."""
    options = _parser().parse_args(arguments)
    try:
        names = select(options.data)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    results = Results()
    for name in names:
        _measure(name, options, results)
    if options.memory:
        _write(results, options.out, options.name)  # speeds take long: keep them whatever follows
        _measure_memory(results)
    _write(results, options.out, options.name)
    _print_verdicts(results)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    parser.add_argument(
        "--data", nargs="+", metavar="PATTERN", help=f"which data: {', '.join(work_names())}"
    )
    parser.add_argument(
        "--codec", nargs="+", metavar="PATTERN", help="which codecs, such as 'limosa*' ZipNN"
    )
    parser.add_argument(
        "--threads", nargs="+", type=int, default=sorted({1, os.cpu_count() or 1}), metavar="N"
    )
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="repetitions, default 7")
    parser.add_argument(
        "--no-slow", dest="slow", action="store_false", help="leave out slow codecs"
    )
    parser.add_argument(
        "--slow-up-to", type=float, default=100, metavar="MB",
        help="leave out slow codecs on larger data, default 100",
    )  # fmt: skip
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="no memory runs")
    parser.add_argument("--cache", type=Path, default=finetune.default_cache(), metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=Path("docs/results"), metavar="FOLDER")
    parser.add_argument(
        "--name", default=f"codec-{machine.slug()}", help="of the files written, without suffix"
    )
    return parser


def _measure(name: str, options: argparse.Namespace, results: Results) -> None:
    work = load_work(name, options.cache)
    chosen, missing = runners(work, options.threads, options.codec)
    if not options.slow or len(work.raw) > options.slow_up_to * 1e6:
        chosen = [runner for runner in chosen if not runner.slow]
    records, failures = time_all(name, len(work.raw), chosen, options.rounds, _tell)
    results.records += records
    results.not_run |= missing | failures


def _measure_memory(results: Results) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            results.peaks += measure_memory(Path(folder))
        except RuntimeError as error:
            results.not_run["memory"] = str(error)


def _write(results: Results, folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    plot = folder / f"{name}.png"
    is_drawn = draw(results.records, plot)
    write_csv(results, folder / f"{name}.csv")
    write_markdown(results, folder / f"{name}.md", plot.name if is_drawn else None)
    print(f"wrote {folder / name}.md, .csv" + (" and .png" if is_drawn else ""))


def _print_verdicts(results: Results) -> None:
    for v in judge(results.records, results.peaks):
        mark = "reached" if v.is_reached else "MISSED "
        print(f"{mark}  {v.what}: {v.figure} (to reach: {v.goal})")
    for what, why in results.not_run.items():
        print(f"not run  {what}: {why}")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
