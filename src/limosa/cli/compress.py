"""``limosa compress``: models to a .limosa file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from limosa.cli import options, progress, report
from limosa.cli.diff import write_update
from limosa.limits import Limits

if TYPE_CHECKING:
    from limosa.codec.joint import SetResult


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

    Several models are coded jointly, each from whichever of the others saves most; they come back
    as files of a folder.

    \b
    limosa compress model.safetensors -o model.limosa
    limosa compress v1.safetensors v2.safetensors v3.safetensors -o all.limosa
    cat model.safetensors | limosa compress - -o - | ssh host 'limosa decompress - -o m.safetensors'
    """
    report.refuse_json_on_stream(as_json, output)
    if len(inputs) > 1 and ("-" in inputs or bases):
        raise click.UsageError("Several models are each other's bases: give paths and no --base.")
    quality = options.quality(digits, coder)
    if bases:
        write_update(bases, inputs[0], output, quality, threads, limits, as_json)
        return
    from limosa.exchange import local

    with progress.progress_bar("compress", progress.size_on_disk(*inputs)) as advance:
        if len(inputs) > 1:
            joint = local.compress_set(
                inputs,
                options.sink(output),
                quality=quality,
                threads=threads,
                limits=limits,
                progress=advance,
            )
        else:
            single = local.compress(
                options.source(inputs[0]),
                options.sink(output),
                quality=quality,
                threads=threads,
                limits=limits,
                progress=advance,
            )
    if len(inputs) > 1:
        report_set(joint, output, as_json)
    else:
        report.encoded(output, single.bytes_in, single.bytes_out, as_json, digest=single.digest)


def report_set(result: SetResult, output: str, as_json: bool) -> None:
    """The sizes, and which model was coded from which."""
    models = {
        name: {"base": base, "digest": result.digests[name]} for name, base in result.bases.items()
    }
    report.encoded(output, result.bytes_in, result.bytes_out, as_json, models=models)
    if not as_json and output != "-":
        for name, base in result.bases.items():
            click.echo(f"  {name}: " + (f"from {base}" if base else "by itself"))
