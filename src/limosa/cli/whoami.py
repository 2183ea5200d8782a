"""``limosa whoami``: what the token allows."""

from __future__ import annotations

import click

from limosa.cli import options, remote


@click.command("whoami", short_help="Say what the token allows.")
@remote.hub_options
@options.json_option()
def command(hub: str | None, token: str | None, as_json: bool) -> None:
    """Say who the hub takes us for, and what we may do."""
    with remote.open_client(hub, token) as client:
        found = client.whoami()
        if as_json:
            remote.print_json({**found, "hub": client.url})
            return
        expires = f", until {found['expires']}" if found["expires"] else ""
        click.echo(f"{found['name']} ({found['kind']}) at {client.url}{expires}")
        for scope in found["scopes"]:
            click.echo(f"  {scope}")
