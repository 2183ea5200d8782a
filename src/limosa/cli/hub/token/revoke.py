"""``limosa hub token revoke``: end a token."""

from __future__ import annotations

import click

from limosa.cli import remote


@click.command("revoke")
@click.argument("number", type=int)
@remote.hub_options
def command(number: int, hub: str | None, token: str | None) -> None:
    """End the token of that number, at once."""
    with remote.open_client(hub, token) as client:
        client.delete(f"/v1/tokens/{number}")
    click.echo(f"token {number} is gone")
