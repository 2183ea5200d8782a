"""``limosa hub``: one file a subcommand."""

from __future__ import annotations

from typing import Final

import click

from limosa.cli.lazy import LazyGroup

#: Each is a module of this package with a ``command``.
COMMANDS: Final = {
    "serve": "Store versions, and give every receiver the fewest bytes.",
    "token": "Who may do what.",
    "prebake": "Make the updates that most devices need.",
    "cluster": "Find the base that makes a family of models smallest.",
}


@click.group(
    "hub",
    cls=LazyGroup,
    package="limosa.cli.hub",
    summaries=COMMANDS,
    short_help="Run a hub, and look after it.",
)
def command() -> None:
    """Run a hub, the knowledge center, and look after it."""
