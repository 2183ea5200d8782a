"""Arguments and options that several commands share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import fields
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import click

from limosa.errors import ConfigError
from limosa.limits import Limits

if TYPE_CHECKING:
    from limosa.codec.quality import Quality

F = TypeVar("F", bound=Callable[..., Any])


class Stored(click.Path):
    """A file or a folder: the one place where - is no stream says so."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path as it is, unless it is - and there is no file of that name."""
        if value == "-" and not os.path.exists(value):
            self.fail("This is read more than once: - will not do, name a file.", param, ctx)
        return super().convert(value, param, ctx)


#: A file, a folder or - for standard input.
INPUT = click.Path(exists=True, allow_dash=True)
#: The same where a stream would not do, because it is read more than once.
STORED_INPUT = Stored(exists=True)
OUTPUT = click.Path(allow_dash=True)


def source(path: str) -> str | BinaryIO:
    """What - stands for on the reading side."""
    if path != "-":
        return path
    if sys.stdin.isatty():
        raise click.UsageError("Standard input is a terminal: redirect it, or name a file.")
    return sys.stdin.buffer


def naming(path: str) -> AbstractContextManager[None]:
    """Names the file at *path* in what is found wrong while it is read; - is standard input."""
    from limosa.files.beginnings import in_file

    return in_file("standard input" if path == "-" else path)


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


def quality_options(command: F) -> F:
    """Every option that says how much may be lost; :func:`quality` reads them."""
    for option in reversed(_QUALITY_OPTIONS):
        command = option(command)
    return command


_QUALITY_OPTIONS: list[Callable[[Any], Any]] = [
    click.option("--size", metavar="SIZE", help="Make a file of this size: 3MB, 10% of the raw."),
    click.option("--bits", type=float, metavar="B", help="Take B bits for each element."),
    click.option("--snr", type=float, metavar="DB", help="Reach this signal-to-noise ratio."),
    click.option("--step", type=float, metavar="X", help="Quantize with levels X apart."),
    click.option(
        "--by-row",
        type=click.Choice(["yes", "auto"]),
        default=None,
        help="With --step: yes takes X as a share of each row's size; auto gives a tensor steps "
        "by row where that costs less.",
    ),
    click.option(
        "--max-error",
        metavar="E",
        help="Change no element by more than E, or than E% of itself.",
    ),
    click.option("--codebook", type=int, metavar="K", help="Give each tensor K values (2 to 256)."),
    click.option("--signs", is_flag=True, help="One bit a weight: its sign; one scale for a row."),
    click.option(
        "--digits",
        type=click.IntRange(0, 18),
        metavar="P",
        help="Keep P decimal digits of each float.",
    ),
    click.option(
        "--coder",
        type=click.Choice(["rans", "lzma"]),
        default=None,
        help="With --digits: limosa's coder, or lzma for comparison.  [default: rans]",
    ),
    click.option(
        "--effort",
        type=click.Choice(["1", "5", "9"]),
        default=None,
        help="1 is fast, 5 and 9 are small; 9 needs --size, --bits, --snr or --step.  [default: 5]",
    ),
    click.option(
        "--keep",
        multiple=True,
        metavar="PATTERN",
        help="Keep tensors of such names near-lossless, as those with one axis are. Repeatable.",
    ),
    click.option(
        "--lossy",
        multiple=True,
        metavar="PATTERN",
        help="Let tensors of such names lose as others do, whatever their shape. Repeatable.",
    ),
]
_CONVERSIONS: dict[str, Callable[[str], Any]] = {
    "codebook": int,
    "digits": int,
    "bits": float,
    "snr": float,
    "step": float,
}
# The options of which one at most is given.
_KINDS = ("size", "bits", "snr", "step", "max_error", "codebook", "signs", "digits")


def is_given(value: Any) -> bool:
    """Whether an option was given, by its value: nothing is given as None, False or no values.

    A zero is given, although Python has it equal to False.

    >>> is_given(0), is_given(0.0), is_given(False), is_given(None), is_given(())
    (True, True, False, False, False)
    """
    return value is not None and value is not False and value != ()


def quality(chosen: dict[str, Any]) -> Quality:
    """What the quality options ask for; they are taken out of *chosen*."""
    values: dict[str, Any] = {kind: chosen.pop(kind) for kind in _KINDS}
    given = [kind for kind in _KINDS if is_given(values[kind])]
    coder, effort, by_row = (chosen.pop(name) for name in ("coder", "effort", "by_row"))
    patterns: dict[str, Any] = {"keep": chosen.pop("keep"), "lossy": chosen.pop("lossy")}
    if by_row is not None and values["step"] is None:
        raise click.UsageError("--by-row needs --step.")
    if len(given) > 1:
        flags = " and ".join("--" + kind.replace("_", "-") for kind in given)
        raise click.UsageError(f"{flags} exclude each other.")
    kind = given[0] if given else "lossless"
    _check_companions(kind, coder, effort, any(patterns.values()))
    rows = {} if by_row is None else {"by_row": True if by_row == "yes" else by_row}
    return _make_quality(kind, values.get(kind), coder, int(effort or 5), {**patterns, **rows})


def layer_qualities(text: str, chosen: dict[str, Any]) -> list[Quality]:
    """``bits=2,snr=30,lossless`` to one quality a layer; the other options hold for all."""
    effort = int(chosen["effort"] or 5)
    patterns = {"keep": chosen["keep"], "lossy": chosen["lossy"]}
    if any(is_given(chosen[kind]) for kind in _KINDS):
        raise click.UsageError("--layers says the quality of each layer: name it there only.")
    qualities = []
    for part in text.split(","):
        kind, _, value = part.strip().partition("=")
        kind = kind.replace("-", "_")
        if kind not in ("lossless", *_KINDS) or bool(value) == (kind in ("lossless", "signs")):
            allowed = "lossless, size=, bits=, snr=, step=, max-error=, codebook=, digits="
            raise click.BadParameter(f"--layers: {part.strip()!r} is none of {allowed}.")
        try:
            number: Any = _CONVERSIONS.get(kind, str)(value)
        except ValueError:
            raise click.BadParameter(f"--layers: {value!r} is not a number.") from None
        qualities.append(_make_quality(kind, number, None, effort, patterns))
    return qualities


def _make_quality(
    kind: str, value: Any, coder: str | None, effort: int, patterns: dict[str, Any]
) -> Quality:
    from limosa.codec.config import Digits, Lossless
    from limosa.codec.quality import Codebook, Signs, Step, Target

    if kind == "digits":
        return Digits(value, "lzma" if coder == "lzma" else "rans")
    if kind in ("size", "bits", "snr"):
        return Target(**{kind: value}, effort=effort, **patterns)
    if kind == "step":
        return Step(value, effort, **patterns)
    if kind == "max_error":
        return _max_error(str(value), patterns)
    if kind == "codebook":
        return Codebook(value, **patterns)
    return Signs(**patterns) if kind == "signs" else Lossless(min(effort, 5))


def _check_companions(kind: str, coder: str | None, effort: str | None, patterns: bool) -> None:
    if coder is not None and kind != "digits":
        raise click.UsageError("--coder needs --digits.")
    if effort == "9" and kind == "lossless":
        raise click.UsageError("--effort 9 needs --size, --bits, --snr or --step.")
    if effort is not None and kind not in ("lossless", "size", "bits", "snr", "step"):
        raise click.UsageError("--effort needs --size, --bits, --snr, --step, or no loss at all.")
    if patterns and kind in ("lossless", "digits"):
        raise click.UsageError("--keep and --lossy need an option that loses something.")


def _max_error(text: str, patterns: dict[str, Any]) -> Quality:
    from limosa.codec.quality import MaxError

    try:
        if text.endswith("%"):
            return MaxError(rel=float(text[:-1]) / 100, **patterns)
        return MaxError(abs=float(text), **patterns)
    except ValueError:
        raise click.BadParameter(f"--max-error {text!r} is not a number or a percentage.") from None
