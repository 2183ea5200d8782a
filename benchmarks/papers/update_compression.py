"""What the paper on update compression measures, measured again with limosa, also in bytes.

    python -m benchmarks.papers.update_compression --out docs/results

trains VGG-small on 120 digits, refines it on 4 000 by each method, sends the update, rebuilds it
and tests what was rebuilt, five seeds each: the numbers to reach. ``--figures 4 5 6`` adds
the other networks and settings of these. What is done is kept in ``--cache`` and not done again;
``--add`` also keeps rows of the table in ``--out`` that this run does not measure, so that with
``--no-table`` a figure can be added to it on another day.
The paper's own images: ``--cifar FILE.npz`` with ``x`` (n, 3, 32, 32) and ``y``. ``--quick``: a
minute's worth, to see that everything runs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.finetune import default_cache
from benchmarks.papers.updates import plots, report, settings, speed, summary
from benchmarks.papers.updates.runs import Result, Store, run_all, with_seeds


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiment from the command line."""
    options = _parse(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        kept = options.cache / "cifar10" if options.cifar else options.cache
        folder = Path(scratch) if options.quick else kept
        store = Store(folder)
        wanted = _wanted(options)
        _run(wanted, store, options)
        results = [store.results[setting.key] for setting in wanted]
    options.out.mkdir(parents=True, exist_ok=True)
    rows = summary.rows_of(results)
    if options.add:
        rows = summary.together(report.read(options.out), rows)
    seconds = speed.measure(("vgg-medium",) if options.quick else ("vgg-medium", "resnet-18"))
    report.write(options.out, rows, seconds, with_digits=options.cifar is None)
    plots.draw(options.out, rows)
    print((options.out / "update_compression.md").read_text(encoding="utf-8"))


def _wanted(options: argparse.Namespace) -> list[settings.Setting]:
    if options.quick:
        return with_seeds(settings.quick(), 1)
    wanted = [] if options.no_table else with_seeds(settings.table(), options.seeds)
    rows = [row for number in options.figures for row in settings.FIGURES[number]()]
    return wanted + with_seeds(rows, min(3, options.seeds))


def _run(wanted: list[settings.Setting], store: Store, options: argparse.Namespace) -> None:
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    done = sum(setting.key in store.results for setting in wanted)
    with Progress(*columns, console=Console(file=sys.stderr)) as bar:
        task = bar.add_task("runs", total=len(wanted), completed=done)

        def progress(result: Result) -> None:
            bar.update(task, advance=1, description=f"{result['network']} {result['label']}")

        run_all(wanted, store, options.cifar, options.workers, progress)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--cache", type=Path, default=default_cache() / "update_compression")
    parser.add_argument("--cifar", type=Path, help="an .npz file with the paper's images")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--figures", type=int, nargs="+", choices=settings.FIGURES, default=[], help="in full"
    )
    parser.add_argument("--no-table", action="store_true", help="only the figures")
    parser.add_argument("--add", action="store_true", help="to the table that --out has")
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
