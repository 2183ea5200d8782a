"""What a command says when it is done."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from rich.console import Console

    from limosa.codec.encoder import EncodeResult

# Characters: more than any name, path or digest together.
_WIDEST: Final = 2**20


def human(count: int) -> str:
    """A number of bytes for people.

    >>> human(1536)
    '1.5 KiB'
    """
    if count < 1024:
        return f"{count} B"
    value = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 1024 or unit == "TiB":
            break
    return f"{value:.1f} {unit}"


def console() -> Console:
    """Standard output for tables and lines. Only a terminal has a width to wrap them to.

    What reads a pipe looks for whole names in it, a line each.
    """
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=_WIDEST)


def refuse_json_on_stream(as_json: bool, output: str) -> None:
    """Standard output cannot carry the data and the report."""
    if as_json and output == "-":
        raise click.UsageError("--json and -o - would both write to standard output.")


def print_json(values: dict[str, Any]) -> None:
    """One JSON object on standard output; bytes become hexadecimal digits."""
    click.echo(json.dumps(values, indent=2, ensure_ascii=False, default=plain))


def plain(value: Any) -> Any:
    """What JSON has no form for."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"no JSON form for {type(value).__name__}")


def encoded(output: str, bytes_in: int, bytes_out: int, as_json: bool, **more: Any) -> None:
    """The result of a command that wrote a .limosa file; nothing when that is standard output.

    `more` is for JSON only.
    """
    if as_json:
        print_json({"output": output, "bytes_in": bytes_in, "bytes_out": bytes_out, **more})
    elif output != "-":
        ratio = f" ({bytes_out / bytes_in:.3f} of it)" if bytes_in else ""
        click.echo(f"{output}: {human(bytes_out)} for {human(bytes_in)} of tensors{ratio}")


def encoded_model(output: str, result: EncodeResult, as_json: bool, **more: Any) -> None:
    """The same for one model, with what it lost."""
    loss = {} if math.isinf(result.snr) else {"snr": result.snr, "max_error": result.max_error}
    encoded(
        output, result.bytes_in, result.bytes_out, as_json, digest=result.digest, **loss, **more
    )
    if loss and not as_json and output != "-":
        click.echo(f"  {result.snr:.2f} dB, largest error {result.max_error:.3g}")


def encoded_layers(output: str, results: Sequence[EncodeResult], as_json: bool) -> None:
    """The sizes of the layers, and where each ends in the file."""
    rows: list[dict[str, Any]] = []
    end = 0
    for result in results:
        end += result.bytes_out
        loss = None if math.isinf(result.snr) else result.snr
        rows.append({"end": end, "bytes": result.bytes_out, "snr": loss, "digest": result.digest})
    encoded(output, results[0].bytes_in, end, as_json, layers=rows)
    if not as_json and output != "-":
        for number, row in enumerate(rows, 1):
            quality = "lossless" if row["snr"] is None else f"{row['snr']:.2f} dB"
            click.echo(
                f"  layer {number}: {row['bytes']:,} bytes to byte {row['end']:,}, {quality}"
            )


def restored(output: str, digest: bytes, as_json: bool) -> None:
    """The result of a command that wrote a model; nothing when that is standard output."""
    if as_json:
        print_json({"output": output, "digest": digest})
    elif output != "-":
        click.echo(f"{output}: restored and verified")


def printable(text: str) -> str:
    """A name from a file, without the characters that would move a terminal's cursor.

    >>> printable("layer\\n")
    'layer\\\\x0a'
    """
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
