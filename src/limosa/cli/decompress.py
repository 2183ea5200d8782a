"""``limosa decompress``: a .limosa file to the model that it holds."""

from __future__ import annotations

from pathlib import Path

import click

from limosa.cli import options, progress, report
from limosa.exchange.originals import refuse_inputs
from limosa.limits import Limits


@click.command("decompress", short_help="Restore what was compressed.")
@click.argument("input_", type=options.INPUT, metavar="IN")
@options.output_option("Where to write: a file, a folder for a model folder, or -.")
@options.base_option("The model that IN was compressed against.")
@click.option("--model", metavar="NAME", help="Of a joint file, restore only this model.")
@click.option(
    "--layers",
    type=click.IntRange(min=1),
    metavar="K",
    help="Of a file with layers of quality, take the first K; the rest need not be there.",
)
@options.threads_option
@options.limits_option
@options.json_option()
def command(
    input_: str,
    output: str,
    base: str | None,
    model: str | None,
    layers: int | None,
    threads: int | None,
    limits: Limits,
    as_json: bool,
) -> None:
    """Restore what was compressed.

    Every byte comes back, unless it was compressed with loss.

    \b
    limosa decompress model.limosa -o model.safetensors
    limosa decompress all.limosa -o folder
    limosa decompress all.limosa --model v2.safetensors -o v2.safetensors
    limosa decompress layered.limosa --layers 1 -o preview.safetensors
    """
    report.refuse_json_on_stream(as_json, output)
    refuse_inputs(output, input_, base)
    from limosa.exchange import local

    with progress.progress_bar("decompress", None) as advance, options.naming(input_):
        digest = local.decompress(
            options.source(input_),
            options.sink(output),
            base=base,
            model=model,
            layers=layers,
            threads=threads,
            progress=advance,
            limits=limits,
        )
    check_adapter(output, limits)
    report.restored(output, digest, as_json)


def check_adapter(output: str, limits: Limits) -> None:
    """Of an adapter that came less what its seed gives, whether peft draws the sender's numbers."""
    from limosa.errors import MissingExtraError
    from limosa.files.adapter import WEIGHTS

    if output == "-" or not (Path(output) / WEIGHTS).is_file():
        return
    from limosa.exchange.adapter_folder import check_drawn

    try:
        names = check_drawn(output, limits=limits)
    except MissingExtraError as error:
        raise click.ClickException(f"{output} is written, but not checked: {error}") from None
    if names:
        click.echo(f"  {len(names)} tensors are drawn from the seed as the sender's", err=True)
