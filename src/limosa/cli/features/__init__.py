"""``limosa features``: one file a subcommand."""

from __future__ import annotations

from typing import Final

import click

from limosa.cli.lazy import LazyGroup

#: Each is a module of this package with a ``command``.
COMMANDS: Final = {
    "cuts": "List where a model can be cut.",
    "tune": "Find how coarse a feature may be.",
    "serve": "Answer the features of many front ends with many tasks.",
    "send": "Send the features of images or of a video to a service.",
}


@click.group(
    "features",
    cls=LazyGroup,
    package="limosa.cli.features",
    summaries=COMMANDS,
    short_help="Send what crosses a cut of a model, and compute what is behind it.",
)
def command() -> None:
    """Send what crosses a cut of a model, and compute what is behind it, on another machine."""
