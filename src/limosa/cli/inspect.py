"""``limosa inspect``: where the bytes of a .limosa file went."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from limosa.cli import inspect_refinement, options
from limosa.cli import report as results
from limosa.exchange.originals import refuse_inputs
from limosa.limits import Limits

if TYPE_CHECKING:
    from rich.console import Console

    from limosa.codec.inspect import Report, TensorReport

Modes = dict[str, tuple[int, int]]


@click.command("inspect", short_help="Show where the bytes of a file went.")
@click.argument("file", type=options.STORED_INPUT)
@click.option(
    "--top",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    metavar="N",
    help="Show the N tensors that take the most bytes.",
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PICTURE",
    help="Draw instead: the distribution of the weights, and size against quality. FILE may be "
    "any model then.",
)
@options.base_option(
    "With --plot: draw the differences of FILE from this model. Of a refinement: its base."
)
@options.limits_option
@options.json_option("Print everything, all tensors included, as JSON.")
def command(
    file: str, top: int, plot: Path | None, base: str | None, limits: Limits, as_json: bool
) -> None:
    """Show where the bytes of FILE went: per part, per block mode and per tensor.

    An update is shown without its base; what a refinement changes is told with --base.

    \b
    limosa inspect model.limosa
    limosa inspect v1-to-v2.limosa --json
    limosa inspect v2.safetensors --base v1.safetensors --plot difference.png
    """
    if plot is not None:
        refuse_inputs(plot, file, base)
        from limosa.cli.plot import draw

        draw(file, plot, base, limits)
        click.echo(f"{plot}: drawn")
        return
    from limosa.codec.inspect import inspect
    from limosa.codec.opening import is_refinement

    if is_refinement(file):
        with options.naming(file):
            inspect_refinement.run(file, base, top, limits, as_json)
        return
    if base is not None:
        raise click.UsageError(
            "--base is for --plot and for refinements: the bytes of other updates need no base."
        )

    with options.naming(file):
        reports = inspect(file, limits=limits)
    if as_json:
        results.print_json({"file": file, "models": [as_plain(report) for report in reports]})
        return
    console = results.console()
    for report in reports:
        show(report, file, top, console)


def as_plain(report: Report) -> dict[str, Any]:
    """A report as JSON can hold it."""
    from limosa.codec.config import Digits

    quality = report.quality
    return {
        "model": report.model,
        "layer": report.layer,
        "bytes": report.nbytes,
        "raw_bytes": report.raw_bytes,
        "header_bytes": report.header_bytes,
        "frame_bytes": report.frame_bytes,
        "index_bytes": report.index_bytes,
        "quality": quality_of(report),
        "digits": quality.p if isinstance(quality, Digits) else None,
        "digest": report.digest,
        "base_digest": report.base_digest,
        "base_model": report.base_model,
        "modes": plain_modes(report.modes),
        "sources": [
            {"path": s.path, "kind": s.kind, "skeleton_bytes": len(s.skeleton)}
            for s in report.sources
        ],
        "tensors": [plain_tensor(tensor) for tensor in report.tensors],
    }


def plain_tensor(tensor: TensorReport) -> dict[str, Any]:
    """One tensor as JSON can hold it."""
    spec = tensor.spec
    return {
        "name": spec.name,
        "dtype": spec.dtype,
        "shape": spec.shape,
        "raw_bytes": spec.nbytes,
        "bytes": tensor.nbytes,
        "base_name": tensor.base_name,
        "modes": plain_modes(tensor.modes),
    }


def plain_modes(modes: Modes) -> dict[str, dict[str, int]]:
    """Units and bytes with their names."""
    return {mode: {"units": units, "bytes": size} for mode, (units, size) in modes.items()}


def show(report: Report, file: str, top: int, console: Console) -> None:
    """Print the summary and the tables of one model."""
    from rich.markup import escape

    name = f"{file}: {report.model}" if report.model else file
    name += f": layer {report.layer}" if report.layer else ""
    console.print(f"[bold]{escape(results.printable(name))}[/bold]", soft_wrap=True)
    console.print(
        f"{results.human(report.nbytes)} for {results.human(report.raw_bytes)} in "
        f"{len(report.tensors)} tensors{share(report.nbytes, report.raw_bytes)}; "
        f"{quality_of(report)}"
    )
    if report.base_digest is not None:
        held = f" ({escape(results.printable(report.base_model))})" if report.base_model else ""
        console.print(f"base {report.base_digest.hex()}{held}", soft_wrap=True)
    console.print(f"digest {report.digest.hex()}\n", soft_wrap=True)
    show_parts(report, console)
    if report.tensors and top:
        show_tensors(report, top, console)


def share(size: int, raw: int) -> str:
    """The ratio, where there is one."""
    return f" ({size / raw:.3f})" if raw else ""


def quality_of(report: Report) -> str:
    """How exactly the model is coded."""
    from limosa.codec.config import Digits, Lossless

    quality = report.quality
    if isinstance(quality, Digits):
        return f"{quality.p} digits"
    return "lossless" if isinstance(quality, Lossless) else results.printable(str(quality))


def show_parts(report: Report, console: Console) -> None:
    """The parts of the file, the frames by block mode."""
    from rich.table import Table

    table = Table("part", box=None, pad_edge=False)
    for heading in ("bytes", "share", "units", "bits a unit"):
        table.add_column(heading, justify="right")

    def row(part: str, size: int, *rest: str) -> None:
        table.add_row(part, f"{size:,}", f"{size / report.nbytes:.1%}", *rest)

    row("header", report.header_bytes)
    blocks = 0
    for mode, (units, size) in sorted(report.modes.items(), key=lambda item: -item[1][1]):
        row(mode, size, f"{units:,}", f"{8 * size / units:.2f}")
        blocks += size
    row("frame heads", report.frame_bytes - blocks)
    row("index, footer", report.index_bytes)
    console.print(table)


def show_tensors(report: Report, top: int, console: Console) -> None:
    """The largest tensors."""
    from rich.table import Table
    from rich.text import Text

    chosen = sorted(report.tensors, key=lambda tensor: -tensor.nbytes)[:top]
    table = Table("tensor", "dtype", "shape", box=None, pad_edge=False)
    table.add_column("bytes", justify="right")
    table.add_column("of raw", justify="right")
    table.add_column("modes")
    for tensor in chosen:
        spec = tensor.spec
        modes = sorted(tensor.modes, key=lambda mode: -tensor.modes[mode][1])
        table.add_row(
            Text(results.printable(spec.name)),
            spec.dtype,
            "×".join(map(str, spec.shape)) or "scalar",
            f"{tensor.nbytes:,}",
            f"{tensor.nbytes / spec.nbytes:.3f}" if spec.nbytes else "",
            ", ".join(modes),
        )
    console.print()
    console.print(table)
    if len(chosen) < len(report.tensors):
        console.print(f"and {len(report.tensors) - len(chosen)} smaller ones; --top N shows more")
