"""``limosa apply``: a model and an update to the next model."""

from __future__ import annotations

from pathlib import Path

import click

from limosa.cli import options, progress, report
from limosa.exchange.originals import refuse_inputs
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
    refuse_inputs(output, update, replaced=base)
    from limosa.exchange import local

    refuse_models(update)
    with progress.progress_bar("apply", None) as advance, options.naming(update):
        digest = local.apply(
            base,
            options.source(update),
            options.sink(output),
            threads=threads,
            progress=advance,
            limits=limits,
        )
    report.restored(output, digest, as_json)


def refuse_models(update: str) -> None:
    """Say which argument is which where UPDATE is a model: the two are easily swapped.

    Raises:
        ConfigError: UPDATE is a file of a model, or a folder.
    """
    from limosa.errors import ConfigError
    from limosa.files.beginnings import SAFETENSORS, head_of, recognise

    if update == "-":
        return
    if Path(update).is_dir():
        found = "a folder"
    elif Path(update).is_file() and recognise(head_of(update)) == SAFETENSORS:
        found = SAFETENSORS.name
    else:
        return
    raise ConfigError(
        f"this is {found}, not an update", where=update, remedy="apply takes BASE and then UPDATE"
    )
