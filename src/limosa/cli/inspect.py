"""``limosa inspect``: where the bytes of a .limosa file went."""

from __future__ import annotations

import click

from limosa.cli import options


@click.command("inspect")
@click.argument("file", type=options.STORED_INPUT)
@options.limits_option
@options.json_option("Print the report as JSON.")
def command(file: str, limits: object, as_json: bool) -> None:
    """Show where the bytes of FILE went."""
