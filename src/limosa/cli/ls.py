"""``limosa ls``: what a hub has."""

from __future__ import annotations

import click

from limosa.cli import options, remote


@click.command("ls", short_help="List what a hub has.")
@click.argument("repository", required=False, metavar="[OWNER/NAME]")
@remote.hub_options
@options.json_option()
def command(repository: str | None, hub: str | None, token: str | None, as_json: bool) -> None:
    """List the repositories that we may read, or the versions and tags of one."""
    with remote.open_client(hub, token) as client:
        if repository is None:
            found = client.repositories()
            if as_json:
                remote.print_json(found)
                return
            rows = [
                [r["name"], str(r["versions"]), remote.size(r["nbytes"]), r["updated"]]
                for r in found
            ]
            remote.table(["repository", "versions", "stored", "updated"], rows, right=(1, 2))
            return
        one = client.repository(remote.reference_of(repository).repository)
    if as_json:
        remote.print_json(one)
        return
    tags: dict[str, list[str]] = {}
    for tag in one["tags"]:
        tags.setdefault(tag["version"], []).append(tag["name"])
    rows = [
        [
            version["name"], ", ".join(tags.get(version["name"], [])),
            remote.size(version["nbytes"]), remote.size(version["blob_nbytes"]),
            version["created"], version["by"],
        ]
        for version in one["versions"]
    ]  # fmt: skip
    remote.table(["version", "tags", "model", "whole blob", "created", "by"], rows, right=(2, 3))
