"""``limosa cache``: one file a subcommand."""

from __future__ import annotations

from typing import Final

import click

from limosa.cli.lazy import LazyGroup

#: Each is a module of this package with a ``command``.
COMMANDS: Final = {
    "ls": "List the models that this machine is known to hold, and what lies in the cache.",
    "prune": "Remove what interrupted pulls and pushes left.",
    "verify": "Read the models again and compare their digests.",
}


@click.group(
    "cache",
    cls=LazyGroup,
    package="limosa.cli.cache",
    summaries=COMMANDS,
    short_help="What this machine holds, and what interrupted work left.",
)
def command() -> None:
    """What this machine holds, so that updates can start from it, and what interrupted work left.

    limosa keeps no second copy of models: the list names the files where they are.
    """
