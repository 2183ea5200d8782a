"""``limosa gc``: let a hub remove what nobody needs."""

from __future__ import annotations

import click

from limosa.cli import options, remote


@click.command("gc", short_help="Let a hub remove what nobody needs.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--thin", is_flag=True, help="Keep one route to each version, and nothing more.")
@remote.hub_options
@options.json_option()
def command(dry_run: bool, thin: bool, hub: str | None, token: str | None, as_json: bool) -> None:
    """Remove blobs and updates that nobody needs; a route to every version always stays.

    A blob goes an hour after its last use at the earliest, so run this daily.
    """
    with remote.open_client(hub, token) as client:
        found = client.post("/v1/gc", {"dry_run": dry_run, "thin": thin})
    if as_json:
        remote.print_json(found)
        return
    would = "would go" if dry_run else "went"
    click.echo(
        f"{found['edges']} updates, {found['blobs']} blobs, {found['uploads']} uploads {would}: "
        f"{remote.size(found['nbytes'])}"
    )
