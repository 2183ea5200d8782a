"""``limosa logout``: forget a token."""

from __future__ import annotations

import click

from limosa.cli import remote


@click.command("logout", short_help="Forget a token.")
@click.argument("url", required=False)
def command(url: str | None) -> None:
    """Forget the token of the hub at URL, or of the last login."""
    here = remote.places()
    hub = here.hub_url(url)
    click.echo(f"forgot {hub}" if here.logout(hub) else f"no token of {hub} was kept")
