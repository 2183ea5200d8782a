"""What a command says when it is done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


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
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"no JSON form for {type(value).__name__}")


def written(output: str, bytes_in: int, bytes_out: int, digest: bytes, as_json: bool) -> None:
    """The result of a command that wrote `output`; nothing when that is standard output."""
    if as_json:
        sizes = {"bytes_in": bytes_in, "bytes_out": bytes_out}
        print_json({"output": output, **sizes, "digest": digest})
    elif output != "-":
        share = f" ({bytes_out / bytes_in:.3f} of it)" if bytes_in else ""
        click.echo(f"{output}: {human(bytes_out)} from {human(bytes_in)}{share}")
