"""Arguments and options that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import click

from limosa.errors import ConfigError
from limosa.limits import Limits

if TYPE_CHECKING:
    from limosa.codec.config import Quality

F = TypeVar("F", bound=Callable[..., Any])

#: A file, a folder or - for standard input.
INPUT = click.Path(exists=True, allow_dash=True)
#: The same where a stream would not do, because it is read more than once.
STORED_INPUT = click.Path(exists=True)
OUTPUT = click.Path(allow_dash=True)


def source(path: str) -> str | BinaryIO:
    """What - stands for on the reading side."""
    if path != "-":
        return path
    if sys.stdin.isatty():
        raise click.UsageError("Standard input is a terminal: redirect it, or name a file.")
    return sys.stdin.buffer


def sink(path: str) -> str | BinaryIO:
    """What - stands for on the writing side."""
    if path != "-":
        return path
    if sys.stdout.isatty():
        raise click.UsageError("Standard output is a terminal: redirect it, or name a file.")
    return sys.stdout.buffer


def read_limits(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> Limits:
    """`NAME=N` options to Limits."""
    allowed = [field.name for field in fields(Limits)]
    chosen: dict[str, int] = {}
    for value in values:
        name, _, number = value.partition("=")
        if name not in allowed or not number.isdecimal():
            names = ", ".join(allowed)
            raise click.BadParameter(f"{value!r} is not NAME=N with a NAME of {names}.")
        chosen[name] = int(number)
    try:
        return Limits(**chosen)
    except ConfigError as error:
        raise click.BadParameter(str(error)) from None


def output_option(help_text: str) -> Callable[[F], F]:
    """-o, which every command that writes needs."""
    return click.option(
        "-o", "--output", "output", required=True, type=OUTPUT, metavar="FILE", help=help_text
    )


def base_option(help_text: str) -> Callable[[F], F]:
    """--base, for commands that decode."""
    return click.option("--base", type=STORED_INPUT, metavar="FILE", help=help_text)


def json_option(help_text: str = "Print the result as JSON.") -> Callable[[F], F]:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help=help_text)


limits_option = click.option(
    "--limit",
    "limits",
    multiple=True,
    callback=read_limits,
    metavar="NAME=N",
    help="Change what a file may ask for, such as max_elements=1000000. May be repeated.",
)
threads_option = click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Threads to use; all processors when not given. The output does not depend on it.",
)
digits_option = click.option(
    "--digits",
    type=click.IntRange(0, 18),
    metavar="P",
    help="Keep P decimal digits of each float, and be smaller. Without it every bit is kept.",
)
coder_option = click.option(
    "--coder",
    type=click.Choice(["rans", "lzma"]),
    default=None,
    help="With --digits: limosa's coder, or lzma for comparison.  [default: rans]",
)


def quality(digits: int | None, coder: str | None) -> Quality:
    """``Lossless()`` or ``Digits(...)`` from the two options."""
    from limosa.codec.config import Digits, Lossless

    if digits is None:
        if coder is not None:
            raise click.UsageError("--coder needs --digits.")
        return Lossless()
    return Digits(digits, "lzma" if coder == "lzma" else "rans")
