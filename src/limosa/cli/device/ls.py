"""``limosa device ls``: who holds what."""

from __future__ import annotations

import click

from limosa.cli import options, remote


@click.command("ls")
@remote.hub_options
@options.json_option()
def command(hub: str | None, token: str | None, as_json: bool) -> None:
    """List the devices that the hub knows, and what they said they hold."""
    with remote.open_client(hub, token) as client:
        found = client.get("/v1/devices")["devices"]
    if as_json:
        remote.print_json(found)
        return
    rows = [
        [
            device["name"], device["seen"] or "never",
            "\n".join(f"{one['repository']} {one['digest'][:12]}" for one in device["holds"]),
        ]
        for device in found
    ]  # fmt: skip
    remote.table(["device", "seen", "holds"], rows)
