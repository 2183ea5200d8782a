"""``limosa hub token create``: a new token."""

from __future__ import annotations

import click

from limosa.cli import options, remote
from limosa.cli.scopes import check_scopes


@click.command("create")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    metavar="ACTION:PATTERN",
    help="read:team/*, push:team/detector, admin:*. Each action includes those before. Repeatable.",
)
@click.option("--days", type=click.FloatRange(0, min_open=True), help="Until it expires.")
@remote.hub_options
@options.json_option()
def command(
    name: str,
    scopes: tuple[str, ...],
    days: float | None,
    hub: str | None,
    token: str | None,
    as_json: bool,
) -> None:
    """Make a token for NAME, and print it, once: the hub keeps a hash of it only."""
    check_scopes(scopes)
    body: dict[str, object] = {"name": name, "scopes": list(scopes)}
    if days is not None:
        body["expires"] = days * 86400
    with remote.open_client(hub, token) as client:
        found = client.post("/v1/tokens", body)
    if as_json:
        remote.print_json(found)
    else:
        click.echo(f"token {found['id']} for {name} (shown once): {found['token']}")
