"""``limosa optimize``: make a model smaller before it is sent, by a recipe."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

import click

from limosa.cli import options, remote

if TYPE_CHECKING:
    import torch
    from torch import nn

    from limosa.exchange.recipe_file import RecipeFile
    from limosa.torch.optimize import Search, TrainedSearch
    from limosa.torch.optimize.export import Exported
    from limosa.torch.optimize.recipe import Row
    from limosa.torch.optimize.training import Progress


@click.command("optimize", short_help="Make a model smaller before it is sent, by a recipe.")
@click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="For the files, the table, and what each stage leaves.",
)
@click.option(
    "--budget",
    metavar="SIZE",
    help="At the end choose sparsities, bits and ranks for a file of this size: 200KB.",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(0),
    metavar="X",
    help="At the end choose them for the smallest file at which the metric drops by X at most.",
)
@click.option("--plot", is_flag=True, help="Draw bytes against the metric as stages.png.")
@options.json_option("Print the rows as JSON.")
def command(
    recipe: Path,
    output: Path,
    budget: str | None,
    max_drop: float | None,
    plot: bool,
    as_json: bool,
) -> None:
    """Do the stages of RECIPE, a file of TOML, and measure the model after each one.

    What comes out loads in plain PyTorch, unless a stage says what the receiver needs. A run that
    was interrupted goes on behind its last whole stage.

    \b
    limosa optimize recipe.toml -o small
    limosa optimize recipe.toml -o small --budget 200KB
    """
    from limosa.exchange.recipe_file import read_recipe
    from limosa.torch.optimize.export import export

    if budget is not None and max_drop is not None:
        raise click.UsageError("--budget and --max-drop exclude each other.")
    read = read_recipe(recipe, stages=budget is None and max_drop is None)
    with epochs_bar() as progress:
        model = read.recipe.run(
            read.model, read.context, batches=read.batches, metric=read.metric,
            folder=output / "stages", progress=progress,
        )  # fmt: skip
        data = read.recipe.data
        if budget is not None or max_drop is not None:
            model, data = search(read, model, budget, max_drop, progress)
    files = export(model, output, read.export, read.context, data=data)
    rows = read.recipe.rows
    write_table(rows, output / "stages.csv")
    if plot:
        draw(rows, output / "stages.png")
    if as_json:
        remote.print_json(
            {
                "rows": [asdict(row) for row in rows],
                "files": [{**asdict(one), "path": str(one.path)} for one in files],
            }
        )
    else:
        show(rows, files)


@contextmanager
def epochs_bar() -> Iterator[Progress]:
    """A bar for each stage, by its epochs, on a terminal; elsewhere a line for each stage."""
    import sys

    if not sys.stderr.isatty():
        yield lambda stage, done, total: None if done else click.echo(f"{stage} …", err=True)
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: list[progress.TaskID] = []

        def end() -> None:
            for task in tasks[-1:]:
                total = bar.tasks[-1].total or 1
                bar.update(task, total=total, completed=total)

        def report(stage: str, done: int, total: int) -> None:
            if done:
                bar.update(tasks[-1], completed=done, total=total)
                return
            end()
            tasks.append(bar.add_task(stage, total=total or None))

        yield report
        end()


def search(
    read: RecipeFile,
    model: nn.Module,
    budget: str | None,
    max_drop: float | None,
    progress: Progress,
) -> tuple[nn.Module, bytes]:
    """Choose sparsities, bits and ranks of all layers together, and train between if the recipe
    says so; a row more.

    Raises:
        ConfigError: the recipe names no metric, or the budget cannot be had.
    """
    import time
    from dataclasses import replace

    from limosa.codec.quality import parse_size
    from limosa.errors import ConfigError
    from limosa.torch.optimize import measure
    from limosa.torch.optimize.recipe import Row

    if read.metric is None:
        raise ConfigError("a search needs a metric", remedy="name one in the recipe")
    started, raw = time.monotonic(), read.recipe.rows[0].raw_nbytes
    size = None if budget is None else int(parse_size(budget, raw))
    found = _searcher(read, model, size is not None, progress)
    best = found.down_to(max_drop or 0.0) if size is None else found.within(size)
    measures = replace(measure(best.model, read.context), nbytes=best.nbytes, metric=best.after)
    refused = tuple(f"{one.layer}: {one.why}" for one in best.refused)
    seconds = time.monotonic() - started
    needs = read.recipe.rows[-1].receiver_needs
    read.recipe.rows.append(
        Row("search", **asdict(measures), seconds=seconds, receiver_needs=needs, refused=refused)
    )
    return best.model, best.data


def _searcher(
    read: RecipeFile, model: nn.Module, is_known: bool, progress: Progress
) -> Search | TrainedSearch:
    """What searches; how many trainings it takes *is_known* of a search for a budget."""
    import itertools

    from limosa.torch.optimize import Search, TrainedSearch

    how, metric, training = read.search, read.metric, read.search.train
    assert metric is not None
    progress("search", 0, how.steps * training.epochs if training and is_known else 0)
    if training is None:
        return Search(
            model, read.context, metric, only=how.only, exclude=how.exclude, ranks=how.ranks
        )
    trained, epochs = training, itertools.count(1)

    def report(epoch: int, loss: float) -> None:
        progress("search", next(epochs), how.steps * trained.epochs if is_known else 0)

    def train(net: nn.Module, masks: dict[str, torch.Tensor]) -> nn.Module:
        return trained.run(net, read.model, masks, read.batches, report, read.recipe.criterion)

    return TrainedSearch(
        model, read.context, metric, train, how.steps, how.only, how.exclude, how.ranks
    )


def write_table(rows: list[Row], path: Path) -> None:
    """All rows as CSV."""
    from limosa.torch.optimize.recipe import Row

    names = [field.name for field in fields(Row)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows([{**asdict(row), "refused": "; ".join(row.refused)} for row in rows])


def show(rows: list[Row], files: list[Exported]) -> None:
    """Print the table and the files."""
    headings = ["stage", "params", "not 0", "MFLOP", "plain", "limosa", "×", "metric", "s"]
    start = rows[0]
    cells = [
        [
            row.stage, f"{row.parameters:,}", f"{row.nonzeros:,}",
            "" if row.flops is None else f"{row.flops / 1e6:.4g}",
            f"{row.raw_nbytes:,}", f"{row.nbytes:,}", f"{start.raw_nbytes / row.nbytes:.1f}",
            "" if row.metric is None else f"{row.metric:.4g}", f"{row.seconds:.1f}",
        ]
        for row in rows
    ]  # fmt: skip
    remote.table(headings, cells, right=tuple(range(1, 9)))
    for row in rows:
        for text in row.refused:
            click.echo(f"{row.stage}: left {text}")
    needs = next((row for row in rows if row.receiver_needs), None)
    click.echo(
        "plain: bytes as safetensors; the receiver needs "
        + (f"{needs.receiver_needs} since {needs.stage}" if needs else "no more than before")
    )
    for one in files:
        equal = "" if one.difference is None else f", outputs differ by {one.difference:.1e}"
        batch = ", for batches as large as the example's" if one.any_batch is False else ""
        click.echo(f"{one.path}: {one.nbytes:,} bytes{equal}{batch}")


def draw(rows: list[Row], path: Path) -> None:
    """Bytes against the metric, a point a stage.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    from limosa.errors import ConfigError, MissingExtraError

    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise MissingExtraError.for_extra("plot", "drawing") from None
    points = [(row.nbytes, row.metric, row.stage) for row in rows if row.metric is not None]
    if not points:
        raise ConfigError("nothing to draw", remedy="name a metric in the recipe")
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([x for x, _, _ in points], [y for _, y, _ in points], "-o", color="#00727a")
    for number, (x, y, text) in enumerate(points):
        # By turns above and below: stages that change few bytes lie close together.
        above = number % 2 == 0
        axes.annotate(
            text, (x, y), (0, 7 if above else -7), textcoords="offset points", fontsize=8,
            rotation=35, ha="left" if above else "right", va="bottom" if above else "top",
        )  # fmt: skip
    # Differences far below a percent are noise, and shall not look like more.
    low, high = axes.get_ylim()
    margin = max(0.35 * (high - low), 0.01 * max(abs(low), abs(high)))
    axes.set_ylim(low - margin, high + margin)
    axes.margins(x=0.12)
    axes.set(xscale="log", xlabel="bytes as limosa", ylabel="metric")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
