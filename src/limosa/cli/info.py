"""``limosa info``: what a version is."""

from __future__ import annotations

import click

from limosa.cli import options, remote, report


@click.command("info", short_help="Show what a version is.")
@click.argument("reference", metavar="OWNER/NAME[:VERSION]")
@click.option("--tensors", is_flag=True, help="List the tensors, too.")
@remote.hub_options
@options.json_option()
def command(
    reference: str, tensors: bool, hub: str | None, token: str | None, as_json: bool
) -> None:
    """Show digest, sizes, notes and metrics of a version."""
    named = remote.reference_of(reference)
    with remote.open_client(hub, token) as client:
        found = client.version(named.repository, named.version)
    if as_json:
        remote.print_json(found)
        return
    manifest = found.pop("manifest")
    click.echo(f"{named.repository}:{found.pop('name') or '(copy)'}")
    for name, value in found.items():
        if value not in (None, "", [], {}):
            shown = remote.size(value) if name.endswith("nbytes") else value
            click.echo(f"  {name:12} {report.printable(str(shown))}")
    click.echo(f"  {'tensors':12} {len(manifest['tensors'])} in {len(manifest['files'])} files")
    if tensors:
        rows = [
            [one["name"], one["dtype"], "×".join(map(str, one["shape"])), one["digest"]]
            for one in manifest["tensors"]
        ]
        remote.table(["tensor", "dtype", "shape", "digest"], rows)
