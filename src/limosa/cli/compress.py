"""``limosa compress``: models to a .limosa file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from limosa.cli import faults, options, progress, report
from limosa.cli.diff import write_update
from limosa.exchange.originals import refuse_inputs
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
@options.quality_options
@click.option(
    "--layers",
    metavar="Q,Q,...",
    help="Layers of quality, coarse to fine, such as bits=2,bits=4,lossless: a prefix of the "
    "file decodes to the first ones. Sizes and bits count all layers so far.",
)
@options.threads_option
@options.limits_option
@options.json_option()
def command(
    inputs: tuple[str, ...],
    output: str,
    bases: tuple[str, ...],
    threads: int | None,
    limits: Limits,
    as_json: bool,
    layers: str | None,
    **chosen: Any,
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
    refuse_inputs(output, *inputs, *bases)
    for path in inputs:
        faults.warn(path, limits)
    if len(inputs) > 1 and ("-" in inputs or bases):
        raise click.UsageError("Several models are each other's bases: give paths and no --base.")
    if layers is not None:
        if len(inputs) > 1 or inputs[0] == "-" or len(bases) > 1:
            raise click.UsageError("--layers takes one model in a file, and one --base at most.")
        write_layers(inputs[0], output, bases, layers, chosen, threads, limits, as_json)
        return
    quality = options.quality(chosen)
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
        report.encoded_model(output, single, as_json)


def write_layers(
    path: str,
    output: str,
    bases: tuple[str, ...],
    layers: str,
    chosen: dict[str, Any],
    threads: int | None,
    limits: Limits,
    as_json: bool,
) -> None:
    """One file with several qualities."""
    from limosa.exchange import local

    qualities = options.layer_qualities(layers, chosen)
    size = progress.size_on_disk(path)
    total = None if size is None else size * len(qualities)
    with progress.progress_bar("compress", total) as advance:
        results = local.compress_layers(
            path,
            options.sink(output),
            qualities,
            base=bases[0] if bases else None,
            threads=threads,
            limits=limits,
            progress=advance,
        )
    report.encoded_layers(output, results, as_json)


def report_set(result: SetResult, output: str, as_json: bool) -> None:
    """The sizes, and which model was coded from which."""
    models = {
        name: {"base": base, "digest": result.digests[name]} for name, base in result.bases.items()
    }
    report.encoded(output, result.bytes_in, result.bytes_out, as_json, models=models)
    if not as_json and output != "-":
        for name, base in result.bases.items():
            click.echo(f"  {name}: " + (f"from {base}" if base else "by itself"))
