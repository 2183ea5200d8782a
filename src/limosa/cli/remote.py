"""What the commands that talk to a hub share: its address and token, and bars for stages."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from limosa.exchange.publish import Progress
    from limosa.hub.client import HubClient
    from limosa.hub.reference import Reference
    from limosa.hub.settings import Places

F = TypeVar("F", bound=Callable[..., Any])


def hub_options(command: F) -> F:
    """--hub and --token; :func:`open_client` reads them."""
    command = click.option(
        "--token", metavar="TOKEN", help="Shown to the hub; else LIMOSA_TOKEN, else of login."
    )(command)
    return click.option(
        "--hub", metavar="URL", help="The hub; else LIMOSA_HUB, else that of the last login."
    )(command)


def places() -> Places:
    """Where this user's things are."""
    from limosa.hub.settings import Places

    return Places.from_environment()


@contextmanager
def open_client(hub: str | None, token: str | None) -> Iterator[HubClient]:
    """A client of the hub that is meant.

    Raises:
        ConfigError: nobody said which.
        TransportError: the network is not to be used.
    """
    from limosa.errors import TransportError
    from limosa.hub.client import HubClient

    here = places()
    url = here.hub_url(hub)
    if here.offline:
        raise TransportError(
            "offline, as LIMOSA_OFFLINE says", where=url, remedy="unset it to ask the hub"
        )
    with HubClient(url, here.token_for(url, token)) as client:
        yield client


def reference_of(text: str) -> Reference:
    """What a person named; a wrong name is a usage error."""
    from limosa.errors import ConfigError
    from limosa.hub.reference import parse_reference

    try:
        return parse_reference(text)
    except ConfigError as error:
        raise click.BadParameter(f"{text!r}: {error}") from None


def print_json(found: object) -> None:
    """The result, for programs."""
    click.echo(json.dumps(found, indent=1, default=str))


def size(nbytes: int | None) -> str:
    """Bytes for people.

    >>> size(1536), size(None), size(12)
    ('1.5 KiB', '?', '12 B')
    """
    if nbytes is None:
        return "?"
    value, units = float(nbytes), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{nbytes} B" if units[0] == "B" else f"{value:.1f} {units[0]}"


@contextmanager
def stages(quiet: bool = False) -> Iterator[Progress]:
    """A bar for each stage on standard error, where that is a terminal."""
    from limosa.exchange.publish import Progress

    if quiet or not sys.stderr.isatty():
        yield Progress()
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(binary_units=True),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def stage(text: str, total: int) -> None:
            bar.reset(task, description=text, total=total or None)

        yield Progress(stage, lambda done: bar.advance(task, done))


def table(headings: list[str], rows: list[list[str]], right: tuple[int, ...] = ()) -> None:
    """A table for people; columns whose places are in *right* hold numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from limosa.cli.report import console, printable

    made = Table(box=SIMPLE_HEAD, collapse_padding=True)
    for place, heading in enumerate(headings):
        made.add_column(heading, justify="right" if place in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text("\n".join(map(printable, cell.split("\n")))) for cell in row))
    console().print(made)
