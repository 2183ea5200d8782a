"""``limosa cache prune``: remove leftovers."""

from __future__ import annotations

import shutil

import click

from limosa.cli import options, remote
from limosa.cli.progress import size_on_disk


@click.command("prune")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@options.json_option()
def command(dry_run: bool, as_json: bool) -> None:
    """Remove what interrupted pulls and pushes left; models stay where they are."""
    from limosa.exchange.placed import Placed

    cache, freed = remote.places().make_cache(), 0
    if not dry_run:
        Placed(cache).prune()
    for name in ("pulls", "uploads"):
        folder = cache / name
        freed += size_on_disk(str(folder)) or 0
        if not dry_run:
            shutil.rmtree(folder, ignore_errors=True)
    if as_json:
        remote.print_json({"nbytes": freed, "dry_run": dry_run})
    else:
        click.echo(f"{remote.size(freed)} {'would go' if dry_run else 'went'}")
