"""``limosa rm``: forget a version."""

from __future__ import annotations

import sys

import click

from limosa.cli import options, remote


@click.command("rm")
@click.argument("reference", metavar="OWNER/NAME:VERSION")
@click.option("--yes", is_flag=True, help="Do not ask.")
@remote.hub_options
@options.json_option()
def command(reference: str, yes: bool, hub: str | None, token: str | None, as_json: bool) -> None:
    """Forget a version. What other versions are coded against stays until gc finds otherwise."""
    named = remote.reference_of(reference)
    if not named.name:
        raise click.UsageError("Name the version: OWNER/NAME:VERSION.")
    if not yes:
        _ask(f"Forget {named}?")
    with remote.open_client(hub, token) as client:
        client.remove_version(named.repository, named.name)
    if as_json:
        remote.print_json({"removed": str(named)})
    else:
        click.echo(f"{named} is gone")


def _ask(question: str) -> None:
    """Go on after a yes only.

    Raises:
        Abort: the answer was no, or Ctrl-C.
        UsageError: there is nobody to ask.
    """
    try:
        sure = click.confirm(question, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise click.UsageError("Nobody answers: pass --yes to forget it without asking.") from None
    if not sure:
        raise click.Abort
