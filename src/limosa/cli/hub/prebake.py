"""``limosa hub prebake``: make updates ahead of demand."""

from __future__ import annotations

import click

from limosa.cli import options, remote


@click.command("prebake")
@click.argument("repository", metavar="OWNER/NAME")
@click.option("--dry-run", is_flag=True, help="Only say which, and what they would save.")
@click.option(
    "--seconds",
    type=click.FloatRange(0),
    default=600.0,
    show_default=True,
    help="Begin no further update after these.",
)
@remote.hub_options
@options.json_option()
def command(
    repository: str,
    dry_run: bool,
    seconds: float,
    hub: str | None,
    token: str | None,
    as_json: bool,
) -> None:
    """Make the updates that most devices need, from what they hold to what tags mean.

    Those come first that save most bytes over all devices. Run it after a tag moved.
    """
    body = {"repository": repository, "dry_run": dry_run, "seconds": seconds}
    with remote.open_client(hub, token) as client:
        found = client.post("/v1/prebake", body)["edges"]
    if as_json:
        remote.print_json(found)
        return
    rows = [
        [
            one["base"][:12], one["target"][:12], str(one["devices"]),
            remote.size(one["nbytes"]), remote.size(one["saves"]),
        ]
        for one in found
    ]  # fmt: skip
    remote.table(["from state", "to", "devices", "bytes", "saves"], rows, right=(2, 3, 4))
