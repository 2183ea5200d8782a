"""``limosa plan``: the route and its bytes, before anything is fetched."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from limosa.cli import options, remote

if TYPE_CHECKING:
    from limosa.exchange.install import Wishes
    from limosa.hub.client import HubClient
    from limosa.hub.reference import Reference


@click.command("plan", short_help="Show what a pull would fetch.")
@click.argument("reference", metavar="OWNER/NAME[:VERSION]")
@click.option(
    "--have",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    metavar="FILE",
    help="A model that is held, beside those that are known. Repeatable.",
)
@click.option("--whole", is_flag=True, help="Start from nothing.")
@remote.hub_options
@options.json_option()
def command(
    reference: str, have: tuple[Path, ...], whole: bool, hub: str | None, token: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Show which blobs a pull would fetch, and how many bytes they have.

    \b
    limosa plan team/detector:v3
    limosa plan team/detector:v3 --have old.safetensors
    """
    from limosa.exchange.install import Wishes

    with remote.open_client(hub, token) as client:
        show_plan(client, remote.reference_of(reference), list(have), Wishes(whole=whole), as_json)


def show_plan(
    client: HubClient, reference: Reference, have: list[Path], wishes: Wishes, as_json: bool
) -> None:
    """Plan with all that is known to be held, and print the route."""
    from limosa.exchange.held import Inventory

    inventory = Inventory(remote.places().make_cache())
    for path in have:
        if path.exists():
            inventory.look(path)
    held = [] if wishes.whole else inventory.all()
    digests = sorted({one.digest for one in held} | {one.state for one in held})
    plan = client.plan(
        reference.repository, reference.version, digests, limits=wishes.limits, layer=wishes.layer
    )
    if as_json:
        remote.print_json(plan)
        return
    _print(plan, {one["digest"]: one["name"] for one in _versions(client, reference)})


def _versions(client: HubClient, reference: Reference) -> list[dict[str, Any]]:
    found = client.repository(reference.repository)["versions"]
    # An edge starts from a state, whatever files it comes in.
    return [*found, *({"digest": one["state"], "name": one["name"]} for one in found)]


def _print(plan: dict[str, Any], names: dict[str, str]) -> None:
    if not plan["route"]:
        click.echo("nothing to fetch: this version is here")
        return
    rows = [
        [
            names.get(step["base"], step["base"][:12]) or "nothing",
            names.get(step["target"], step["target"][:12]),
            remote.size(step["nbytes"]),
            "to be made" if step["sha256"] is None else "stored",
        ]
        for step in plan["route"]
    ]
    remote.table(["from", "to", "bytes", ""], rows, right=(2,))
    whole = plan["whole_nbytes"]
    share = f", {plan['nbytes'] / whole:.0%} of the whole ({remote.size(whole)})" if whole else ""
    click.echo(f"{remote.size(plan['nbytes'])} to fetch{share}")
