"""``limosa compress``: models to a .limosa file."""

from __future__ import annotations

import click

from limosa.cli import options, progress, report
from limosa.limits import Limits


@click.command("compress", short_help="Compress a model, or several jointly.")
@click.argument("inputs", nargs=-1, required=True, type=options.INPUT, metavar="IN...")
@options.output_option("Where to write; - is standard output.")
@click.option(
    "--base",
    "bases",
    multiple=True,
    type=options.STORED_INPUT,
    metavar="FILE",
    help="A model that the receiver holds. May be repeated: the one that saves most is used.",
)
@options.digits_option
@options.coder_option
@options.threads_option
@options.limits_option
@options.json_option()
def command(
    inputs: tuple[str, ...],
    output: str,
    bases: tuple[str, ...],
    digits: int | None,
    coder: str | None,
    threads: int | None,
    limits: Limits,
    as_json: bool,
) -> None:
    """Compress a model: a file, a folder, or a *.safetensors.index.json with its shards.

    Several models are coded jointly, each from whichever of the others saves most.

    \b
    limosa compress model.safetensors -o model.limosa
    limosa compress v1.safetensors v2.safetensors v3.safetensors -o all.limosa
    cat model.safetensors | limosa compress - -o - | ssh host 'limosa decompress - -o m.safetensors'
    """
    report.refuse_json_on_stream(as_json, output)
    if len(inputs) > 1 and "-" in inputs:
        raise click.UsageError("Several models are read more than once: none of them can be -.")
    quality = options.quality(digits, coder)
    sources = [options.source(path) for path in inputs]
    from limosa.exchange import local

    with progress.progress_bar("compress", progress.size_on_disk(*inputs)) as advance:
        result = local.compress(
            sources if len(sources) > 1 else sources[0],
            options.sink(output),
            quality=quality,
            bases=bases,
            threads=threads,
            progress=advance,
            limits=limits,
        )
    report.written(output, result.bytes_in, result.bytes_out, result.digest, as_json)
