"""``limosa diff``: the update that turns one model into another."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from limosa.cli import faults, options, progress, report
from limosa.exchange.originals import refuse_inputs
from limosa.limits import Limits

if TYPE_CHECKING:
    from limosa.codec.quality import Quality


class Model(click.Path):
    """A file, a folder, - or a version on a hub."""

    def __init__(self) -> None:
        super().__init__(exists=True, allow_dash=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path as it is; whether a version exists the hub will say."""
        from limosa.cli.diff_versions import are_references

        if not os.path.exists(value) and are_references([value]) and (":" in value or "@" in value):
            return value
        return super().convert(value, param, ctx)


@click.command("diff")
@click.argument("models", nargs=-1, type=Model(), metavar="[BASE]... [NEW]")
@click.option(
    "-o",
    "--output",
    type=options.OUTPUT,
    metavar="FILE",
    help="Where to write the update; - is standard output.",
)
@click.option(
    "--adapter",
    type=click.Path(exists=True, file_okay=False),
    metavar="DIR",
    help="In place of NEW: merge peft's adapter DIR into BASE; --snr says how exactly. "
    "Without BASE, code the adapter itself, less what its seed gives again.",
)
@options.quality_options
@options.threads_option
@options.limits_option
@options.json_option("Print the result, with the base that was chosen, as JSON.")
def command(
    models: tuple[str, ...],
    output: str | None,
    adapter: str | None,
    threads: int | None,
    limits: Limits,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Write the update that turns BASE into NEW.

    With several BASEs, the one that gives the smallest update is used, judged by a sample of it.
    Of two versions on a hub it shows what changed, and what an update between them takes.

    \b
    limosa diff v1.safetensors v2.safetensors -o v1-to-v2.limosa
    limosa diff base.safetensors --adapter my-lora -o merged.limosa
    limosa diff --adapter my-vera -o my-vera.limosa
    limosa diff team/detector:v1 team/detector:v3
    """
    if output is None:
        show_versions(models, as_json)
        return
    report.refuse_json_on_stream(as_json, output)
    refuse_inputs(output, *models, adapter)
    if adapter is not None:
        if len(models) > 1:
            raise click.UsageError("--adapter stands in place of NEW: name one BASE only.")
        if models:
            merge(models[0], adapter, output, chosen, threads, limits, as_json)
        else:
            code_adapter(adapter, output, chosen, threads, limits, as_json)
        return
    if len(models) < 2:
        raise click.UsageError("Missing argument: name BASE and NEW.")
    *bases, new = models
    if "-" in bases:
        raise click.UsageError("BASE is read twice: it cannot be standard input.")
    quality = options.quality(chosen)
    faults.warn(new, limits)
    write_update(tuple(bases), new, output, quality, threads, limits, as_json)


def show_versions(models: tuple[str, ...], as_json: bool) -> None:
    """Show what changed between two versions of a hub; nothing is written."""
    from limosa.cli import diff_versions

    if len(models) != 2 or not diff_versions.are_references(models):
        raise click.UsageError("Missing option '-o' / '--output'.")
    diff_versions.show(models, as_json)


def code_adapter(
    adapter: str,
    output: str,
    chosen: dict[str, Any],
    threads: int | None,
    limits: Limits,
    as_json: bool,
) -> None:
    """Code an adapter as itself."""
    from limosa.exchange.adapter_folder import compress_adapter

    quality = options.quality(chosen)
    with progress.progress_bar("diff", progress.size_on_disk(adapter)) as advance:
        done = compress_adapter(
            adapter,
            options.sink(output),
            quality=quality,
            threads=threads,
            limits=limits,
            progress=advance,
        )
    size = done.encoded.bytes_out
    report.encoded(
        output, done.bytes_in, size, as_json, digest=done.encoded.digest, drawn=done.drawn
    )
    if done.drawn and not as_json and output != "-":
        click.echo(f"  {len(done.drawn)} tensors stay behind: peft draws them from the seed")


def merge(
    base: str,
    adapter: str,
    output: str,
    chosen: dict[str, Any],
    threads: int | None,
    limits: Limits,
    as_json: bool,
) -> None:
    """Code an adapter as an update of its base."""
    from limosa.exchange.adapters import SNR, merge_adapter
    from limosa.exchange.outputs import open_output

    snr = chosen.pop("snr")
    if any(map(options.is_given, chosen.values())):
        raise click.UsageError("--adapter takes --snr, and no other quality.")
    if base == "-":
        raise click.UsageError("--adapter needs BASE as a file.")
    written = merge_adapter(
        base, adapter, snr=SNR if snr is None else snr, threads=threads, limits=limits
    )
    with open_output(options.sink(output)) as opened:
        opened.write(written.data)
        opened.commit()
    raw = sum(spec.nbytes for spec in written.refinement.specs)
    digest = written.refinement.digest
    report.encoded(output, raw, len(written.data), as_json, digest=digest, base=base)


def write_update(
    bases: tuple[str, ...],
    new: str,
    output: str,
    quality: Quality,
    threads: int | None,
    limits: Limits,
    as_json: bool,
) -> None:
    """Code `new` against the best of `bases`; ``compress --base`` is the same."""
    from limosa.exchange import local

    with progress.progress_bar("diff", progress.size_on_disk(new)) as advance:
        result = local.diff(
            bases,
            options.source(new),
            options.sink(output),
            quality=quality,
            threads=threads,
            limits=limits,
            progress=advance,
        )
    base, done = bases[result.base], result.encoded
    tried = result.choice and dict(zip(bases, result.choice.sampled, strict=True))
    report.encoded_model(output, done, as_json, base=base, sampled=tried)
    if len(bases) > 1 and not as_json and output != "-":
        click.echo(f"  from {base}")
