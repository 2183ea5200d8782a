"""Hubs that run, machines that talk to them, and a wire between them that can be cut."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from codec_models import trained, tuned

from limosa.codec.opening import open_model
from limosa.exchange.forms import manifest_of
from limosa.exchange.hub_server import HubServer
from limosa.exchange.install import PullResult, Wishes, pull
from limosa.exchange.publish import PushResult, push
from limosa.exchange.swap import restore_into
from limosa.hub.client import HubClient
from limosa.hub.reference import parse_reference
from limosa.hub.server.settings import HubSettings
from limosa.hub.settings import Places

PATIENCE_S = 60.0


def save(path: Path, model: dict[str, np.ndarray]) -> Path:
    """A safetensors file of arrays."""
    import limosa

    restore_into(path, open_model(limosa.save(model)))
    return path


def line(folder: Path, count: int = 3, rows: int = 600, share: float = 0.1) -> list[Path]:
    """Versions of one model, each a step after the one before, as safetensors files."""
    model, paths = trained(rows=rows), []
    for number in range(1, count + 1):
        paths.append(save(folder / f"v{number}.safetensors", model))
        model = tuned(model, seed=number, share=share)
    return paths


@contextmanager
def running_hub(folder: Path, **settings) -> Iterator[HubServer]:
    with HubServer(HubSettings(folder=folder, threads=1, **settings)) as server:
        yield server


@dataclass
class Machine:
    """A user with a home of their own: what is pulled and pushed here is nobody else's.

    Attributes:
        home: for configuration and cache.
        url, token: of the hub, or of a wire to it.
        pause: of the client, before it tries again.
    """

    home: Path
    url: str
    token: str
    pause: float = 0.01
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def places(self) -> Places:
        return Places(self.home, self.home / "cache", self.url, self.token)

    def client(self) -> HubClient:
        return HubClient(self.url, self.token, pause=self.pause)

    def push(self, path: Path, reference: str, **options) -> PushResult:
        with self.client() as client:
            named = parse_reference(reference)
            return push(client, path, named, places=self.places, **options)

    def pull(self, reference: str, output: Path, **wishes) -> PullResult:
        with self.client() as client:
            named, asked = parse_reference(reference), Wishes(**wishes)
            return pull(client, named, output, places=self.places, wishes=asked)

    def env(self) -> dict[str, str]:
        """What a process of this user sees."""
        kept = {name: value for name, value in os.environ.items() if "LIMOSA" not in name}
        return {
            **kept, "LIMOSA_HOME": str(self.home), "LIMOSA_HUB": self.url,
            "LIMOSA_TOKEN": self.token, **self.environment,
        }  # fmt: skip

    def start(self, *arguments: object, cwd: Path) -> subprocess.Popen:
        """A command under way."""
        self.home.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "limosa.cli.main", *map(str, arguments)]
        return subprocess.Popen(
            command, cwd=cwd, env=self.env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def run(
        self, *arguments: object, cwd: Path, status: int = 0, stdin: bytes = b""
    ) -> tuple[str, str]:
        """Output and errors of a command, which has to end with *status*."""
        command = [sys.executable, "-m", "limosa.cli.main", *map(str, arguments)]
        ended = subprocess.run(
            command, cwd=cwd, env=self.env(), input=stdin, capture_output=True, timeout=120
        )
        out, errors = ended.stdout.decode(), ended.stderr.decode()
        assert ended.returncode == status, f"{ended.returncode}: {errors}\n{out}"
        assert "Traceback" not in errors
        return out, errors

    def json(self, *arguments: object, cwd: Path):
        """What a command says to programs."""
        return json.loads(self.run(*arguments, "--json", cwd=cwd)[0])


class Wire:
    """A TCP connection to a hub that can be cut, held, and measured.

    Attributes:
        up, down: bytes that went to the hub, and came from it.
        cut_after: end each connection when so many more came from the hub; None: never.
        hold_after, hold_up_after: let no more than so many pass; :attr:`held` is then set.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._there = (parts.hostname, parts.port)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.up = self.down = 0
        self.cut_after: int | None = None
        self.cuts = 0
        self.hold_after: int | None = None
        self.hold_up_after: int | None = None
        self.held = threading.Event()
        self._closed = False
        self._epoch = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *error: object) -> None:
        self._closed = True
        self._socket.close()

    def measure(self) -> None:
        """Count from here."""
        self.up = self.down = self.cuts = 0
        self.hold_after = self.hold_up_after = self.cut_after = None
        self.held.clear()

    def drop(self) -> None:
        """End all connections, with what is under way in them, and measure from here."""
        self._epoch += 1
        time.sleep(0.05)
        self.measure()

    def _accept(self) -> None:
        while not self._closed:
            try:
                here, _ = self._socket.accept()
                there = socket.create_connection(self._there)
            except OSError:
                continue
            for source, sink, up in ((here, there, True), (there, here, False)):
                ends = (source, sink, up, self._epoch)
                threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, up: bool, epoch: int) -> None:
        try:
            while data := source.recv(2**16):
                if not self._passes(len(data), up, epoch):
                    break
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _passes(self, count: int, up: bool, epoch: int) -> bool:
        while not self._closed:
            if epoch != self._epoch:
                return False
            most = self.hold_up_after if up else self.hold_after
            if most is None or (self.up if up else self.down) + count <= most:
                break
            self.held.set()
            time.sleep(0.01)
        with self._lock:
            if up:
                self.up += count
                return True
            if self.cut_after is not None and self.down + count > self.cut_after:
                self.cut_after = None
                self.cuts += 1
                return False
            self.down += count
            return True


def digest_of(path: Path) -> str:
    """The digest of the version that a model is."""
    return manifest_of(path).digest


def same(path: Path, expected: Path) -> bool:
    """Whether two files have the same bytes."""
    return path.read_bytes() == expected.read_bytes()


def leftovers(folder: Path) -> list[str]:
    """What an interrupted command would have left beside its output."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def spoil(path: Path, place: int | None = None) -> None:
    """Flip a bit of a file in its middle, or at a place."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if place is None else place] ^= 4
    path.write_bytes(data)


def forget_cache(machine: Machine) -> None:
    """As on a new machine."""
    shutil.rmtree(machine.home, ignore_errors=True)
