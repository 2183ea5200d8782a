"""``limosa device``: one file a subcommand."""

from __future__ import annotations

from typing import Final

import click

from limosa.cli.lazy import LazyGroup

#: Each is a module of this package with a ``command``.
COMMANDS: Final = {
    "register": "Let the hub know a device, and make its token.",
    "ls": "List devices and what they hold.",
}


@click.group(
    "device",
    cls=LazyGroup,
    package="limosa.cli.device",
    summaries=COMMANDS,
    short_help="The receivers that a hub knows by name.",
)
def command() -> None:
    """The receivers that a hub knows by name, and what they hold.

    A device reports after each pull; limosa hub prebake makes the updates that most of them need.
    """
