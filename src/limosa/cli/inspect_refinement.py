"""``limosa inspect`` of a refinement: what it changes, and by which method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from limosa.cli import report as results
from limosa.limits import Limits

if TYPE_CHECKING:
    from limosa.codec.refinement.report import RefinementReport


def run(file: str, base: str | None, top: int, limits: Limits, as_json: bool) -> None:
    """Print the report; with *base* what changes as well."""
    from limosa.codec.opening import open_base
    from limosa.codec.refinement.report import inspect_refinement

    held = None if base is None else open_base(base, limits=limits)
    report = inspect_refinement(file, base=held, limits=limits)
    if as_json:
        results.print_json({"file": file, "models": [as_plain(report)]})
    else:
        show(report, file, top)


def as_plain(report: RefinementReport) -> dict[str, Any]:
    """A report as JSON can hold it."""
    changes = report.changes
    return {
        "bytes": report.nbytes,
        "raw_bytes": report.raw_bytes,
        "quality": "refinement",
        "seed": report.seed,
        "digest": report.digest,
        "base_digest": report.base_digest,
        "changes": None
        if changes is None
        else [
            {
                "name": change.spec.name,
                "dtype": change.spec.dtype,
                "shape": change.spec.shape,
                "method": change.method,
                "detail": change.detail,
                "values": change.values,
                "nonzero": change.nonzero,
                "bytes": round(change.nbytes),
            }
            for change in changes
        ],
    }


def show(report: RefinementReport, file: str, top: int) -> None:
    """Print the summary and the table of what changes."""
    from rich.table import Table
    from rich.text import Text

    console = results.console()
    console.print(Text(results.printable(file), "bold"), soft_wrap=True)
    raw = report.raw_bytes
    of_raw = f" for {results.human(raw)}, {report.nbytes / raw:.2%}" if raw else ""
    console.print(f"{report.nbytes:,} bytes{of_raw}; a refinement, seed {report.seed}")
    console.print(f"base {report.base_digest.hex()}", soft_wrap=True)
    console.print(f"digest {report.digest.hex()}\n", soft_wrap=True)
    if report.changes is None:
        click.echo("What it changes is told by its base: pass --base FILE.")
        return
    table = Table("tensor", "shape", "method", box=None, pad_edge=False)
    for heading in ("values", "not 0", "about bytes"):
        table.add_column(heading, justify="right")
    chosen = sorted(report.changes, key=lambda change: -change.nbytes)[:top]
    for change in chosen:
        table.add_row(
            Text(results.printable(change.spec.name)),
            "×".join(map(str, change.spec.shape)) or "scalar",
            Text(results.printable(f"{change.method} {change.detail}".strip())),
            f"{change.values:,}",
            f"{change.nonzero:,}",
            f"{change.nbytes:,.0f}",
        )
    console.print(table)
    if len(chosen) < len(report.changes):
        click.echo(f"and {len(report.changes) - len(chosen)} smaller ones; --top N shows more")
