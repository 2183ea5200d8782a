"""``limosa diff``: the update that turns one model into another."""

from __future__ import annotations

import click

from limosa.cli import options, progress, report
from limosa.limits import Limits


@click.command("diff")
@click.argument("bases", nargs=-1, required=True, type=options.STORED_INPUT, metavar="BASE...")
@click.argument("new", type=options.INPUT)
@options.output_option("Where to write the update; - is standard output.")
@options.digits_option
@options.coder_option
@options.threads_option
@options.limits_option
@options.json_option("Print the result, with the base that was chosen, as JSON.")
def command(
    bases: tuple[str, ...],
    new: str,
    output: str,
    digits: int | None,
    coder: str | None,
    threads: int | None,
    limits: Limits,
    as_json: bool,
) -> None:
    """Write the update that turns BASE into NEW.

    With several BASEs, the one that gives the smallest update is used, judged by a sample of it.

    \b
    limosa diff v1.safetensors v2.safetensors -o v1-to-v2.limosa
    """
    report.refuse_json_on_stream(as_json, output)
    quality = options.quality(digits, coder)
    from limosa.exchange import local

    with progress.progress_bar("diff", progress.size_on_disk(new)) as advance:
        result = local.diff(
            bases,
            options.source(new),
            options.sink(output),
            quality=quality,
            threads=threads,
            progress=advance,
            limits=limits,
        )
    report.written(output, result.bytes_in, result.bytes_out, result.digest, as_json)
