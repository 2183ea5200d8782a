"""``limosa cache ls``: what this machine holds."""

from __future__ import annotations

from dataclasses import asdict

import click

from limosa.cli import options, remote
from limosa.cli.progress import size_on_disk


@click.command("ls")
@options.json_option()
def command(as_json: bool) -> None:
    """List models that are held where they were pulled or pushed, and leftovers in the cache."""
    from limosa.exchange.held import Inventory

    cache = remote.places().make_cache()
    held = Inventory(cache).all()
    left = {name: size_on_disk(str(cache / name)) or 0 for name in ("pulls", "uploads")}
    if as_json:
        listed = [{**asdict(one), "digest": one.digest} for one in held]
        remote.print_json({"cache": str(cache), "held": listed, "leftovers": left})
        return
    rows = [
        [one.path, one.reference, remote.size(size_on_disk(one.path)), one.digest[:16]]
        for one in held
    ]
    remote.table(["model", "is", "size", "digest"], rows, right=(2,))
    click.echo(f"{cache}: {remote.size(sum(left.values()))} of interrupted work")
