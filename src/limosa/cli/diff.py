"""``limosa diff``: the update that turns one model into another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from limosa.cli import options, progress, report
from limosa.limits import Limits

if TYPE_CHECKING:
    from limosa.codec.quality import Quality


@click.command("diff")
@click.argument("bases", nargs=-1, required=True, type=options.STORED_INPUT, metavar="BASE...")
@click.argument("new", type=options.INPUT)
@options.output_option("Where to write the update; - is standard output.")
@options.quality_options
@options.threads_option
@options.limits_option
@options.json_option("Print the result, with the base that was chosen, as JSON.")
def command(
    bases: tuple[str, ...],
    new: str,
    output: str,
    threads: int | None,
    limits: Limits,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Write the update that turns BASE into NEW.

    With several BASEs, the one that gives the smallest update is used, judged by a sample of it.

    \b
    limosa diff v1.safetensors v2.safetensors -o v1-to-v2.limosa
    """
    report.refuse_json_on_stream(as_json, output)
    quality = options.quality(chosen)
    write_update(bases, new, output, quality, threads, limits, as_json)


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
