"""``limosa hub token``: one file a subcommand."""

from __future__ import annotations

from typing import Final

import click

from limosa.cli.lazy import LazyGroup

#: Each is a module of this package with a ``command``.
COMMANDS: Final = {
    "create": "Make a token, and print it once.",
    "ls": "List tokens, without their secrets.",
    "revoke": "End a token.",
}


@click.group(
    "token",
    cls=LazyGroup,
    package="limosa.cli.hub.token",
    summaries=COMMANDS,
    short_help="Who may do what.",
)
def command() -> None:
    """Who may do what: tokens with scopes. They take a token with admin:*."""
