"""``limosa cache verify``: whether models are still what they were."""

from __future__ import annotations

import click

from limosa.cli import options, remote
from limosa.errors import LimosaError


@click.command("verify")
@options.threads_option
@options.json_option()
@click.pass_context
def command(context: click.Context, threads: int | None, as_json: bool) -> None:
    """Read every held model and compare its digest; ends with status 1 if one changed.

    A model that changed on the disk without its time changing is forgotten, so that no update
    starts from it.
    """
    from limosa.exchange.forms import manifest_of
    from limosa.exchange.held import Inventory

    inventory = Inventory(remote.places().make_cache())
    rows = []
    for one in inventory.all():
        try:
            state = manifest_of(one.path, threads=threads).state
        except LimosaError as error:
            state = str(error)
        rows.append({"path": one.path, "reference": one.reference, "good": state == one.state})
        if state != one.state:
            inventory.forget(one.path)
    bad = [row["path"] for row in rows if not row["good"]]
    if as_json:
        remote.print_json(rows)
    else:
        for path in bad:
            click.echo(f"{path} changed")
        click.echo(f"{len(rows)} models, {len(bad)} changed")
    if bad:
        context.exit(1)
