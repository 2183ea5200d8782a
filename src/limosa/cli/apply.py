"""``limosa apply``: a model and an update to the next model."""

from __future__ import annotations

import click

from limosa.cli import options, outputs, progress, report
from limosa.limits import Limits


@click.command("apply")
@click.argument("base", type=options.STORED_INPUT)
@click.argument("update", type=options.INPUT)
@options.output_option("Where to write NEW; - is standard output.")
@options.threads_option
@options.limits_option
@options.json_option()
def command(
    base: str, update: str, output: str, threads: int | None, limits: Limits, as_json: bool
) -> None:
    """Apply UPDATE to BASE, which gives the new model byte for byte.

    Another base than that which the update was made from is refused with status 3, before
    anything is written. NEW may be BASE, which it then replaces.

    \b
    limosa apply v1.safetensors v1-to-v2.limosa -o v2.safetensors
    """
    report.refuse_json_on_stream(as_json, output)
    # The base is read before its place is taken, and whoever applies an update asked for that.
    outputs.refuse_inputs(output, update, replaced=base)
    from limosa.exchange import local

    with progress.progress_bar("apply", None) as advance:
        digest = local.apply(
            base,
            options.source(update),
            options.sink(output),
            threads=threads,
            progress=advance,
            limits=limits,
        )
    report.restored(output, digest, as_json)
