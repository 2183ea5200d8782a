"""``limosa fsck``: see whether a hub has all that it should."""

from __future__ import annotations

import click

from limosa.cli import options, remote


@click.command("fsck", short_help="See whether a hub has all that it should.")
@click.option("--read-data", is_flag=True, help="Read every blob and compare its SHA-256.")
@remote.hub_options
@options.json_option()
@click.pass_context
def command(
    context: click.Context, read_data: bool, hub: str | None, token: str | None, as_json: bool
) -> None:
    """See whether every version of the hub can be reached over blobs that are there.

    Ends with status 1 if not.
    """
    with remote.open_client(hub, token) as client:
        found = client.post("/v1/fsck", {"read_data": read_data})
    if as_json:
        remote.print_json(found)
    else:
        for problem in found["problems"]:
            click.echo(problem)
        click.echo(
            f"{found['versions']} versions, {found['blobs']} blobs, "
            f"{remote.size(found['nbytes'])}: {len(found['problems'])} problems"
        )
    if found["problems"]:
        context.exit(1)
