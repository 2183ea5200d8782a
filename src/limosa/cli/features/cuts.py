"""``limosa features cuts``: where a model can be cut."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from limosa.cli import options, report
from limosa.cli.features import arguments
from limosa.exchange.originals import refuse_inputs

if TYPE_CHECKING:
    from limosa.torch import Cut


def parse_shapes(texts: tuple[str, ...]) -> list[tuple[int, ...]]:
    """``1x3x224x224`` as numbers.

    >>> parse_shapes(("1x3x8",))
    [(1, 3, 8)]
    """
    shapes = []
    for text in texts:
        sizes = text.lower().split("x")
        if not all(size.isdigit() and int(size) for size in sizes):
            raise click.BadParameter(f"{text!r} is no shape; write one as 1x3x224x224")
        shapes.append(tuple(map(int, sizes)))
    return shapes


@click.command("cuts", short_help="List where a model can be cut.")
@arguments.model_option
@click.option(
    "--input",
    "shapes",
    multiple=True,
    default=("1x3x224x224",),
    show_default=True,
    metavar="SHAPE",
    help="Of an input to look at, random numbers; once for each input.",
)
@click.option("--coded", is_flag=True, help="Code each feature without loss, and tell its bytes.")
@click.option(
    "--max-tensors",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Show places where at most N tensors cross.",
)
@click.option("--plot", type=click.Path(dir_okay=False), metavar="FILE", help="Draw them as PNG.")
@options.json_option()
def command(
    model: str,
    shapes: tuple[str, ...],
    coded: bool,
    max_tensors: int,
    plot: str | None,
    as_json: bool,
) -> None:
    """List every place where a model can be cut in two.

    For each its shape, bytes, share of zeros and of the work before it.

    \b
    limosa features cuts --model torchvision.models:resnet18 --coded --plot cuts.png
    """
    sizes = parse_shapes(shapes)
    refuse_inputs(plot, model)
    import torch

    from limosa.exchange.feature_service.naming import find_model
    from limosa.torch import cuts

    torch.manual_seed(0)
    example = tuple(torch.randn(size) for size in sizes)
    network = find_model(model).eval()
    found = cuts(network, example, coded=coded or plot is not None, max_tensors=max_tensors)
    if plot is not None:
        found.plot(plot)
    if as_json:
        report.print_json({"cuts": [_plain(cut) for cut in found]})
    else:
        click.echo(str(found))


def _plain(cut: Cut) -> dict[str, Any]:
    from limosa.files.torch_storage import dtype_name

    return {**asdict(cut), "dtypes": [dtype_name(dtype) for dtype in cut.dtypes]}
