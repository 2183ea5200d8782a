"""``limosa hub cluster``: which base makes a family smallest."""

from __future__ import annotations

from typing import Any

import click

from limosa.cli import options, remote


@click.command("cluster")
@click.argument("references", nargs=-1, required=True, metavar="OWNER/NAME:VERSION...")
@click.option("--apply", "apply_it", is_flag=True, help="Store the family so from now on.")
@remote.hub_options
@options.json_option()
def command(
    references: tuple[str, ...],
    apply_it: bool,
    hub: str | None,
    token: str | None,
    as_json: bool,
) -> None:
    """Measure what a family of similar models takes from each shared base.

    A base is a member (the medoid), the average of all, or whichever member is nearest (a tree).
    With --apply the hub makes the updates of the best way; the next gc --thin drops what they
    replace.

    \b
    limosa hub cluster team/detector:v1 team/detector:v2 team/detector-night:v1
    """
    named = [str(remote.reference_of(text)) for text in references]
    with remote.open_client(hub, token) as client:
        found = client.post("/v1/cluster", {"versions": named, "apply": apply_it})
    if as_json:
        remote.print_json(found)
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    ways = {
        "each alone": found["whole"],
        f"all from {found['medoid']}": found["medoid_bytes"],
        "all from the average": found["average_bytes"],
        "each from the nearest": found["tree_bytes"],
    }
    rows = [
        [name, remote.size(nbytes), f"{nbytes / found['whole']:.1%}"]
        for name, nbytes in ways.items()
        if nbytes is not None
    ]
    remote.table(["way", "bytes", "of all alone"], rows, right=(1, 2))
    before, after = found["stored_before"], found["stored_after"]
    if found["applied"]:
        click.echo(
            f"kept for these repositories: {remote.size(before)} before, {remote.size(after)} now"
        )
    else:
        click.echo(
            f"kept for these repositories: {remote.size(before)}; --apply stores the best way"
        )
