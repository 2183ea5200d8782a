"""``limosa hub token ls``: all tokens."""

from __future__ import annotations

import click

from limosa.cli import options, remote


@click.command("ls")
@remote.hub_options
@options.json_option()
def command(hub: str | None, token: str | None, as_json: bool) -> None:
    """List all tokens, without their secrets."""
    with remote.open_client(hub, token) as client:
        found = client.get("/v1/tokens")["tokens"]
    if as_json:
        remote.print_json(found)
        return
    rows = [
        [
            str(one["id"]), one["name"], one["kind"], ", ".join(one["scopes"]),
            one["expires"] or "never", one["used"] or "never",
        ]
        for one in found
    ]  # fmt: skip
    remote.table(["id", "name", "kind", "scopes", "expires", "last used"], rows, right=(0,))
