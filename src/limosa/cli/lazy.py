"""Groups of commands that import a command's module when it is run."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, cast

import click


class LazyGroup(click.Group):
    """A group whose commands are modules with a ``command``.

    Args:
        package: where the modules are.
        summaries: by the names of the commands, in the order of the help text.
        more: as for :class:`click.Group`.
    """

    def __init__(
        self, *, package: str = "", summaries: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(**more)
        self.package, self.summaries = package, dict(summaries or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the help text."""
        return list(self.summaries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        if cmd_name not in self.summaries:
            return None
        module = importlib.import_module(f"{self.package}.{cmd_name}")
        return cast(click.Command, module.command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands in the help text."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.summaries.items()))
