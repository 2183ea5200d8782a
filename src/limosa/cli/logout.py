"""``limosa logout``: forget a token."""

from __future__ import annotations

import click

from limosa.cli import options, remote


@click.command("logout", short_help="Forget a token.")
@click.argument("url", required=False)
@options.json_option()
def command(url: str | None, as_json: bool) -> None:
    """Forget the token of the hub at URL, or of the last login."""
    here = remote.places()
    hub = here.hub_url(url)
    known = here.logout(hub)
    if as_json:
        remote.print_json({"hub": hub, "known": known})
    else:
        click.echo(f"forgot {hub}" if known else f"no token of {hub} was kept")
