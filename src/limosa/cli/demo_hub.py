"""``limosa demo`` with a hub: figure 3 of the first paper, over HTTP."""

from __future__ import annotations

import gzip
import lzma
import shutil
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from limosa.demo import models
from limosa.errors import ConfigError
from limosa.exchange import local
from limosa.exchange.forms import manifest_of
from limosa.exchange.hub_server import HubServer
from limosa.exchange.install import pull
from limosa.exchange.publish import Description, push
from limosa.hub.client import HubClient
from limosa.hub.pages import links
from limosa.hub.reference import Reference
from limosa.hub.server.settings import HubSettings
from limosa.hub.settings import Places

if TYPE_CHECKING:
    from limosa.exchange.install import PullResult

REPOSITORY = "demo/digits"
_SENDER, _HUB, _RECEIVER = "sender", "hub", "receiver"


@dataclass(frozen=True)
class Leg:
    """What travelled once, and what it would have been in other ways; sizes in bytes.

    Attributes:
        sender, receiver: from whom to whom.
        what: version, and the one it was coded against.
        raw, gzip, lzma: of the file itself, by the means of everybody.
        whole: of the model compressed by limosa without a base.
        travelled: of the blobs that were sent.
        exact: True when the other side has the very model.
    """

    sender: str
    receiver: str
    what: str
    raw: int
    gzip: int
    lzma: int
    whole: int
    travelled: int
    exact: bool


class HubDemo:
    """Three machines in one folder: a sender, a hub that serves, and a receiver.

    Args:
        folder: for what each of them has.

    Attributes:
        server: the hub, which serves while the context lasts.
        legs: what has travelled.

    Raises:
        ConfigError: there was a demo in this folder before.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self.legs = folder, list[Leg]()
        if (folder / _HUB).exists():
            raise ConfigError(
                "the folder has a hub already", where=str(folder / _HUB),
                remedy="name another folder, or serve this one: limosa hub serve --folder",
            )  # fmt: skip
        self.server = HubServer(HubSettings(folder / _HUB))

    @property
    def page(self) -> str:
        """Where the repository can be seen."""
        return self.server.url + links.repository(REPOSITORY)

    @property
    def admin_token(self) -> str:
        """The token of the hub's first run."""
        assert self.server.admin_token is not None
        return self.server.admin_token

    def run(self) -> None:
        """Send V1, V2 and V3 to the hub, and from there V3 to a receiver of V1."""
        with HubClient(self.server.url, self.admin_token) as operator:
            pushing = {"name": _SENDER, "scopes": [f"push:{REPOSITORY}"]}
            sender = operator.post("/v1/tokens", pushing)["token"]
            reading = {"name": _RECEIVER, "scopes": [f"read:{REPOSITORY}"]}
            receiver = operator.post("/v1/devices", reading)["token"]
        with HubClient(self.server.url, sender) as client:
            for number, model in enumerate(models(), 1):
                self.legs.append(self._push(client, f"v{number}", model))
        with HubClient(self.server.url, receiver) as client:
            self.legs.append(self._pull(client))

    def wait(self) -> None:
        """Serve on until Ctrl-C."""
        with suppress(KeyboardInterrupt):
            threading.Event().wait()

    def _push(self, client: HubClient, version: str, model: Path) -> Leg:
        places = self._places(_SENDER)
        result = push(
            client, model, Reference(REPOSITORY, version, None), places=places,
            description=Description(notes=f"The demo's {version}.", tags=["latest"]),
        )  # fmt: skip
        stored = client.version(REPOSITORY, version)
        exact = stored["digest"] == manifest_of(model).digest
        return self._leg(_SENDER, _HUB, model, version, result.base, result.sent, exact)

    def _pull(self, client: HubClient) -> Leg:
        first, *_, last = models()
        place = self._folder / _RECEIVER / "model.safetensors"
        places = self._places(_RECEIVER)
        shutil.copy(first, place)
        result = pull(client, Reference(REPOSITORY, "latest", None), place, places=places)
        exact = place.read_bytes() == last.read_bytes() and manifest_of(place).digest == (
            result.digest
        )
        version = result.reference.rpartition(":")[2]
        return self._leg(_HUB, _RECEIVER, last, version, self._start(result), result.nbytes, exact)

    def _start(self, result: PullResult) -> str:
        """Which version the receiver started from; "" for nothing."""
        states = {manifest_of(model).state: f"v{n}" for n, model in enumerate(models(), 1)}
        return states.get(result.start, "")

    def _leg(
        self, sender: str, receiver: str, model: Path, version: str, base: str, sent: int,
        exact: bool,
    ) -> Leg:  # fmt: skip
        data = model.read_bytes()
        alone = self._folder / f"{model.stem}.limosa"
        if not alone.exists():
            local.compress(model, alone)
        return Leg(
            sender, receiver, f"{version} - {base}".upper() if base else version.upper(),
            len(data), len(gzip.compress(data)), len(lzma.compress(data, preset=9)),
            alone.stat().st_size, sent, exact,
        )  # fmt: skip

    def _places(self, who: str) -> Places:
        """Folders of a machine of its own."""
        home = self._folder / who
        home.mkdir(parents=True, exist_ok=True)
        return Places(home / "config", home / "cache", self.server.url)


def show(legs: list[Leg]) -> None:
    """Print the table of bytes and what arrived."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    # Fits a terminal of 80 columns: a cut number would be worse than a plain table.
    table = Table(title="Bytes sent", title_justify="left", box=SIMPLE_HEAD, collapse_padding=True)
    for heading in ("", "what"):
        table.add_column(heading, no_wrap=True)
    for heading in ("file", "gzip", "lzma", "whole", "sent", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for leg in legs:
        sizes = (leg.raw, leg.gzip, leg.lzma, leg.whole, leg.travelled)
        table.add_row(
            f"to {leg.receiver}", leg.what, *(f"{size:,}" for size in sizes),
            "exact" if leg.exact else "DIFFERENT",
        )  # fmt: skip
    Console().print(table)
    last = legs[-1]
    click.echo(
        "file, gzip, lzma: of the file itself. whole: limosa without a base. sent: the\n"
        f"blobs that travelled. The receiver held V1 and got {last.what}: "
        f"{last.travelled / last.raw:.1%} of the file."
    )
    if all(leg.exact for leg in legs):
        click.echo("Every model arrived byte for byte, and every digest matched.")
    else:
        click.secho("Some models arrived different: please report this.", fg="red", bold=True)
