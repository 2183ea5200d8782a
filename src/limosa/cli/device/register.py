"""``limosa device register``: a token for a device."""

from __future__ import annotations

import click

from limosa.cli import options, remote
from limosa.cli.scopes import check_scopes


@click.command("register")
@click.argument("name")
@click.option(
    "--read",
    "patterns",
    multiple=True,
    required=True,
    metavar="PATTERN",
    help="Repositories that it may read, such as team/*. Repeatable.",
)
@remote.hub_options
@options.json_option()
def command(
    name: str, patterns: tuple[str, ...], hub: str | None, token: str | None, as_json: bool
) -> None:
    """Let the hub know a device by NAME, and print its token, once.

    For a name that is known already a new token is made, and the old one ends.
    """
    scopes = [f"read:{pattern}" for pattern in patterns]
    check_scopes(scopes)
    with remote.open_client(hub, token) as client:
        found = client.post("/v1/devices", {"name": name, "scopes": scopes})
        if as_json:
            remote.print_json(found)
            return
        click.echo(f"device {name}, token (shown once): {found['token']}")
        click.echo(f"on the device: limosa login {client.url} --token {found['token']}")
