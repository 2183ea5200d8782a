"""Decoded versions on the hub's own disk: made when needed, kept while there is room."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from limosa.codec.opening import open_model
from limosa.errors import NotFoundError, TransportError
from limosa.exchange.workshop.unpacked import base_of, unpack
from limosa.hub.planner import NOTHING
from limosa.hub.store.blobs import blob_key
from limosa.hub.store.graph import Step
from limosa.hub.store.records import Node
from limosa.hub.store.store import Store
from limosa.limits import Limits

_MODEL, _LOCK, _GONE = "model", "lock", "gone"


class DecodedVersions:
    """A cache of decoded versions, which several workers on a machine share.

    Each has a folder of its digest, with the model and a file whose lock says that somebody reads
    it: what is in use is never removed.

    Args:
        folder: where they lie.
        store: where they come from.
        max_bytes: that they may take, beyond those in use.
        limits: what a blob may ask for.
        threads: to decode with.
    """

    def __init__(
        self, folder: Path, store: Store, max_bytes: int, limits: Limits, threads: int | None
    ) -> None:
        self._folder, self._store, self._max_bytes = folder, store, max_bytes
        self._limits, self._threads = limits, threads
        folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def of_state(self, repository: str, state: str) -> Iterator[Path]:
        """A folder (:mod:`.unpacked`) of that state, whatever its form, while the block lasts.

        Raises:
            NotFoundError: the repository knows none.
        """
        nodes = [n for n in self._store.graph.known(repository, [state]) if n.state == state]
        if not nodes:
            raise NotFoundError("no such state", where=repository, found=state[:80])
        here = [node for node in nodes if (self._folder / node.digest / _MODEL).exists()]
        with self.of_node(repository, (here or nodes)[0]) as path:
            yield path

    @contextmanager
    def of_digest(self, repository: str, digest: str) -> Iterator[Path]:
        """A version as it was pushed, while the block lasts.

        Raises:
            NotFoundError: the repository has none.
        """
        found = [n for n in self._store.graph.known(repository, [digest]) if n.digest == digest]
        if not found:
            raise NotFoundError("no such version", where=repository, found=digest[:80])
        with self.of_node(repository, found[0]) as path:
            yield path

    @contextmanager
    def of_node(self, repository: str, node: Node) -> Iterator[Path]:
        """The model of a node, while the block lasts."""
        home = self._folder / node.digest
        with _using(home, lambda model: self._decode(repository, node, model)) as model:
            os.utime(home)
            yield model
        self._make_room()

    def adopt(self, digest: str, model: Path) -> None:
        """Keep what was decoded elsewhere: *model* moves here."""

        def move(place: Path) -> None:
            os.replace(model, place)

        with _using(self._folder / digest, move):
            pass
        self._make_room()

    def _decode(self, repository: str, node: Node, model: Path) -> None:
        """Along the cheapest route from what is decoded already."""
        graph = self._store.graph
        here = [home.name for home in self._folder.iterdir() if (home / _MODEL).exists()]
        bases = {n.state: n for n in graph.known(repository, here) if n.digest in here}
        while True:
            start, steps = graph.plan(repository, list(bases), node.digest)
            if start == NOTHING:
                self._walk(repository, None, steps, model)
                return
            try:
                with _using(self._folder / bases[start].digest, _refuse) as base:
                    self._walk(repository, base, steps, model)
                    return
            except _GoneError:
                # Not decoded again from here: that could need the model that is being made.
                del bases[start]

    def _walk(self, repository: str, base: Path | None, steps: list[Step], model: Path) -> None:
        scratch = self._folder.parent / f"walk-{secrets.token_hex(6)}"
        scratch.mkdir()
        try:
            for number, step in enumerate(steps):
                blob, out = scratch / "blob.limosa", scratch / f"model-{number}"
                assert step.edge is not None
                self._store.blobs.fetch(blob_key(step.edge.sha256), blob)
                with blob.open("r+b") as file:
                    file.truncate(step.edge.nbytes)
                held = base_of(base, self._limits, self._threads)
                opened = open_model(
                    blob, step.edge.layer or None, base=held, limits=self._limits,
                    threads=self._threads, verify=True,
                )  # fmt: skip
                unpack(opened, out, self._limits)
                base = out
            os.replace(scratch / f"model-{len(steps) - 1}", model)
        except OSError as error:
            if isinstance(error, FileExistsError):
                raise
            raise TransportError(
                "no room to decode", where=repository, found=str(error), remedy="free some"
            ) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _make_room(self) -> None:
        """Remove what was used longest ago and nobody reads."""
        homes = sorted(self._folder.iterdir(), key=_age, reverse=True)
        sizes = {home: _size(home) for home in homes}
        over = sum(sizes.values()) - self._max_bytes
        for home in homes:
            if over <= 0:
                return
            if _remove(home):
                over -= sizes[home]


class _GoneError(Exception):
    """A decoded version was removed meanwhile."""


def _refuse(model: Path) -> None:
    raise _GoneError


@contextmanager
def _using(home: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """A model that nobody removes meanwhile; one at a time makes it."""
    home.mkdir(parents=True, exist_ok=True)
    model = home / _MODEL
    with (home / _LOCK).open("w") as lock:
        while True:
            fcntl.flock(lock, fcntl.LOCK_SH)
            if model.exists():
                break
            # Going from one lock to the other lets go for a moment: hence the loop.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not model.exists():
                make(model)
        yield model


def _remove(home: Path) -> bool:
    try:
        with (home / _LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Renamed first: whoever is killed halfway leaves no half of a model.
            shutil.rmtree(home / _GONE, ignore_errors=True)
            os.replace(home / _MODEL, home / _GONE)
            shutil.rmtree(home / _GONE, ignore_errors=True)
            return True
    except (BlockingIOError, FileNotFoundError):
        return False


def _age(home: Path) -> float:
    """Smaller for what was used lately."""
    try:
        return -home.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _size(home: Path) -> int:
    model = home / _MODEL
    try:
        return sum(path.stat().st_size for path in model.iterdir())
    except FileNotFoundError:
        return 0
