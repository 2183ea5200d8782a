"""``limosa gc``: let a hub remove what nobody needs."""

from __future__ import annotations

import click

from limosa.cli import options, remote


@click.command("gc", short_help="Let a hub remove what nobody needs.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--thin", is_flag=True, help="Keep one route to each version, and nothing more.")
@click.option(
    "--uploads",
    is_flag=True,
    help="Give up uploads that are not finished, too: a full hub has room again at once.",
)
@remote.hub_options
@options.json_option()
def command(
    dry_run: bool, thin: bool, uploads: bool, hub: str | None, token: str | None, as_json: bool
) -> None:
    """Remove blobs and updates that nobody needs; a route to every version always stays.

    A blob goes an hour after its last use at the earliest, so run this daily. Pieces of uploads
    stay for a day, so that whoever sends them can go on, unless --uploads.
    """
    with remote.open_client(hub, token) as client:
        body = {"dry_run": dry_run, "thin": thin}
        # A hub of before this option refuses what it does not know.
        found = client.post("/v1/gc", {**body, "uploads": True} if uploads else body)
    if as_json:
        remote.print_json(found)
        return
    would = "would go" if dry_run else "went"
    click.echo(
        f"{found['edges']} updates, {found['blobs']} blobs, {found['uploads']} uploads {would}: "
        f"{remote.size(found['nbytes'])}"
    )
