"""``limosa cache verify``: whether models are still what they were."""

from __future__ import annotations

import click

from limosa.cli import options, remote
from limosa.cli.report import printable
from limosa.errors import FormatError, LimosaError


@click.command("verify")
@options.threads_option
@options.json_option()
@click.pass_context
def command(context: click.Context, threads: int | None, as_json: bool) -> None:
    """Read every held model and compare its digest; ends with status 1 if one is not as it was.

    A model that changed on the disk without its time changing, or that is damaged, is forgotten,
    so that no update starts from it. One that cannot be read here stays in the list.
    """
    from limosa.exchange.held import Inventory
    from limosa.exchange.on_disk import state_here

    inventory = Inventory(remote.places().make_cache())
    rows: list[dict[str, str | bool]] = []
    for one in inventory.all():
        problem = ""
        try:
            state = state_here(one.path, one.kind, threads=threads)
            changed = state != one.state
            if changed:
                problem = f"found state {state}, allowed {one.state}"
        except LimosaError as error:
            changed, problem = isinstance(error, FormatError), str(error)
        except OSError as error:
            changed, problem = False, str(error)
        good = not problem
        rows.append(
            {"path": one.path, "reference": one.reference, "good": good, "problem": problem}
        )
        if changed:
            inventory.forget(one.path)
        if not good and not as_json:
            what = "changed" if changed else "cannot be read"
            click.echo(f"{printable(one.path)} {what}: {printable(problem)}")
    bad = sum(not row["good"] for row in rows)
    if as_json:
        remote.print_json(rows)
    else:
        click.echo(f"{len(rows)} models, {bad} not as they were")
    if bad:
        context.exit(1)
