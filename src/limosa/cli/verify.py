"""``limosa verify``: whether a .limosa file holds what it promises."""

from __future__ import annotations

import click

from limosa.cli import options, progress, report
from limosa.limits import Limits


@click.command("verify", short_help="Check every checksum and digest of a file.")
@click.argument("file", type=options.INPUT)
@options.base_option("The model that FILE was made against.")
@options.threads_option
@options.limits_option
@options.json_option()
def command(
    file: str, base: str | None, threads: int | None, limits: Limits, as_json: bool
) -> None:
    """Decode FILE without writing, and check every checksum and digest.

    \b
    limosa verify model.limosa
    limosa verify v1-to-v2.limosa --base v1.safetensors
    """
    from limosa.exchange import local

    with progress.progress_bar("verify", None) as advance, options.naming(file):
        digest = local.verify(
            options.source(file), base=base, threads=threads, limits=limits, progress=advance
        )
    if as_json:
        report.print_json({"file": file, "digest": digest})
    else:
        click.echo(f"{file}: good, its digest is {digest.hex()}")
