"""``limosa decompress``: a .limosa file to the model that it holds."""

from __future__ import annotations

import click

from limosa.cli import options, progress, report
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
    from limosa.exchange import local

    with progress.progress_bar("decompress", None) as advance:
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
    report.restored(output, digest, as_json)
