"""``limosa demo``: the main job on real weights, checked to the last bit."""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from limosa.errors import MissingExtraError


@dataclass(frozen=True)
class Shipment:
    """One file that was sent: its size in bytes, by each way of sending it."""

    what: str
    raw: int
    gzip: int
    lzma: int
    #: lzma of the XOR with the base: the most that the standard library makes of a base.
    xor_lzma: int
    limosa: int
    #: True when the receiver got back the very bytes, and ``verify`` found all digests right.
    exact: bool


@click.command("demo")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Work in this folder and leave all files there.",
)
@click.option(
    "--serve/--no-serve",
    default=None,
    help="Let the hub serve until Ctrl-C, to look at its page.  [default: on a terminal]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the sizes as JSON.")
@click.pass_context
def command(context: click.Context, keep: Path | None, serve: bool | None, as_json: bool) -> None:
    """Send three versions of a small model, and check what arrives.

    Starts a hub at a free port. A sender pushes versions 1, 2 and 3, each as an update of one
    before; a receiver that holds version 1 pulls version 3, for which the hub makes the update from
    1 to 3. Ends with status 0 only when everything arrived byte for byte.

    Without the extra hub, version 1 goes whole as a file, and versions 2 and 3 as updates.
    """
    if serve is None:
        serve = sys.stdout.isatty() and not as_json
    with ExitStack() as stack:
        if keep is None:
            made = stack.enter_context(tempfile.TemporaryDirectory(prefix="limosa-demo-"))
            folder = Path(made)
        else:
            keep.mkdir(parents=True, exist_ok=True)
            folder = keep.resolve()
        exact = over_hub(folder, serve, keep is not None, as_json)
    if not exact:
        context.exit(1)


def over_hub(folder: Path, serve: bool, kept: bool, as_json: bool) -> bool:
    """Run the demo on a hub, or without one where its extra is missing; True if all is exact."""
    try:
        from limosa.cli import demo_hub
    except MissingExtraError as missing:
        exact = with_files(folder, as_json)
        click.echo(f"That was the part without a hub: {missing}", err=True)
        return exact
    demo = demo_hub.HubDemo(folder)
    with demo.server:
        demo.run()
        exact = all(leg.exact for leg in demo.legs)
        if as_json:
            click.echo(json.dumps([asdict(leg) for leg in demo.legs], indent=2))
        else:
            demo_hub.show(demo.legs)
        if serve or kept:
            click.echo(f"admin token: {demo.admin_token}", err=as_json)
        if serve:
            click.echo(f"The hub's page, until Ctrl-C: {demo.page}", err=as_json)
            demo.wait()
        elif not as_json:
            click.echo(f"The hub's page was {demo.page}; with --serve it stays.")
    return exact


def with_files(folder: Path, as_json: bool) -> bool:
    """Send the models as files; True if all came back."""
    shipments = send_all(folder)
    if as_json:
        click.echo(json.dumps([asdict(shipment) for shipment in shipments], indent=2))
    else:
        show(shipments)
    return all(shipment.exact for shipment in shipments)


def send_all(folder: Path) -> list[Shipment]:
    """Send the demo models one after another; what is sent and received stays in `folder`."""
    from limosa.demo import models

    first, *later = models()
    shipments = [send_whole(first, folder)]
    base = first
    for new in later:
        shipments.append(send_update(base, new, folder))
        base = new
    return shipments


def send_whole(model: Path, folder: Path) -> Shipment:
    """Compress, decompress and verify one model."""
    from limosa.exchange import local

    sent, received = folder / f"{model.stem}.limosa", folder / model.name
    local.compress(model, sent)
    local.decompress(sent, received)
    local.verify(sent)
    data = model.read_bytes()
    packed = len(lzma.compress(data, preset=9))
    return Shipment(
        what=version(model),
        raw=len(data),
        gzip=len(gzip.compress(data)),
        lzma=packed,
        xor_lzma=packed,
        limosa=sent.stat().st_size,
        exact=same(model, received),
    )


def send_update(base: Path, new: Path, folder: Path) -> Shipment:
    """Make the update from `base` to `new`, apply it to the base that arrived, and verify it."""
    from limosa.exchange import local

    held = folder / base.name
    update, received = folder / f"{new.stem}.update.limosa", folder / new.name
    local.diff([base], new, update)
    local.apply(held, update, received)
    local.verify(update, base=held)
    data = new.read_bytes()
    changed = bytes(a ^ b for a, b in zip(data, base.read_bytes(), strict=True))
    return Shipment(
        what=f"{version(new)} over {version(base)}",
        raw=len(data),
        gzip=len(gzip.compress(data)),
        lzma=len(lzma.compress(data, preset=9)),
        xor_lzma=len(lzma.compress(changed, preset=9)),
        limosa=update.stat().st_size,
        exact=same(new, received),
    )


def version(model: Path) -> str:
    """The last part of a model's name: v1, v2, v3."""
    return model.stem.rpartition("-")[2]


def same(one: Path, other: Path) -> bool:
    """Whether two files hold the same bytes, by a digest that owes nothing to limosa."""
    return sha256(one) == sha256(other)


def sha256(path: Path) -> bytes:
    """Digest of a file."""
    return hashlib.sha256(path.read_bytes()).digest()


def show(shipments: list[Shipment]) -> None:
    """Print the table of bytes and what arrived."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    # Fits a terminal of 80 columns: a cut number would be worse than a plain table.
    table = Table(title="Bytes sent", title_justify="left", box=SIMPLE_HEAD, collapse_padding=True)
    table.add_column("what")
    for heading in ("raw", "gzip", "lzma", "XOR+lzma", "limosa", "share", "arrived"):
        table.add_column(heading, justify="right", no_wrap=True)
    for shipment in shipments:
        arrived = "exact" if shipment.exact else "DIFFERENT"
        table.add_row(shipment.what, *sizes([shipment]), arrived)
    exact = sum(shipment.exact for shipment in shipments)
    table.add_section()
    table.add_row("all", *sizes(shipments), f"{exact} of {len(shipments)}", style="bold")
    console = Console()
    console.print(table)
    if exact == len(shipments):
        console.print("Every file came back byte for byte, and every digest matched.")
    else:
        console.print("Some files came back different: please report this.", style="bold red")


def sizes(shipments: list[Shipment]) -> list[str]:
    """The cells of one row: sums over `shipments`, and limosa's share of raw."""
    names = ("raw", "gzip", "lzma", "xor_lzma", "limosa")
    sums = {name: sum(getattr(shipment, name) for shipment in shipments) for name in names}
    cells = [f"{count:,}" for count in sums.values()]
    return [*cells, f"{sums['limosa'] / sums['raw']:.3f}"]
