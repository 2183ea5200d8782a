"""The workshop of a hub: its store on one side, the codec on the other."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from limosa.codec.base import Base
from limosa.errors import BaseMismatchError, LimitError, NotFoundError
from limosa.exchange.workshop import baking, copies, estimate, make, rebasing, statistics, verify
from limosa.exchange.workshop.decoded import DecodedVersions
from limosa.exchange.workshop.making import Makings
from limosa.exchange.workshop.unpacked import base_of
from limosa.hub.file_digest import sha256_of
from limosa.hub.planner import NOTHING
from limosa.hub.server.settings import HubSettings
from limosa.hub.store.records import Bound, StoredEdge, Version
from limosa.hub.store.store import Store
from limosa.hub.store.uploads import Layer
from limosa.hub.workshop import Verified
from limosa.limits import Limits

# Of decoded tensors, for a first idea of how long an edge takes.
_BYTES_A_SECOND = 100e6
# Lossy copies of one version, layers included.
_COPIES = 48


class Shop:
    """Does what :class:`limosa.hub.workshop.Workshop` asks for.

    Args:
        store: of the hub.
        settings: of its operator.
    """

    def __init__(self, store: Store, settings: HubSettings) -> None:
        self.store, self.settings = store, settings
        self.work = settings.folder / "work"
        self.limits = Limits(max_total_bytes=settings.max_model_bytes)
        self.decoded = DecodedVersions(
            self.work / "decoded", store, settings.decoded_bytes, self.limits, settings.threads
        )
        self._makings = Makings(self.work, settings.jobs)
        # What readers can ask for is done in their requests' threads: so many at once.
        self._jobs = threading.BoundedSemaphore(settings.jobs)

    def close(self) -> None:
        """Let what is under way end."""
        self._makings.close()

    def verify(self, repository: str, blob: Path, base: str, digest: str, state: str) -> Verified:
        """As :meth:`limosa.hub.workshop.Workshop.verify`."""
        with ExitStack() as stack:
            held = stack.enter_context(self._base(repository, base))
            scratch = stack.enter_context(self._scratch())
            found = verify.verify_blob(
                blob, self._open(held), scratch / "model", expected=digest, limits=self.limits,
                threads=self.settings.threads,
            )  # fmt: skip
            if found.base_state != base:
                raise BaseMismatchError(
                    "the blob is coded against another base than announced",
                    found=found.base_state or "none", allowed=base or "none",
                )  # fmt: skip
            layers = [
                Layer(number, one.nbytes, one.manifest, _bound(one.bound))
                for number, one in enumerate(found.layers[:-1], 1)
                if one.manifest.digest != found.manifest.digest
            ]
            # Its next versions will be coded against it: it stays, decoded.
            self.decoded.adopt(found.manifest.digest, scratch / "model")
        return Verified(found.manifest, found.memory, tuple(layers))

    def estimates(
        self, repository: str, bases: Sequence[str], target: str
    ) -> dict[str, tuple[int, float]]:
        """As :meth:`limosa.hub.workshop.Workshop.estimates`; as many as there is time for."""
        found: dict[str, tuple[int, float]] = {}
        until = time.monotonic() + self.settings.estimate_seconds
        with ExitStack() as stack:
            if not self._jobs.acquire(timeout=self.settings.estimate_seconds):
                return found
            stack.callback(self._jobs.release)
            wanted = stack.enter_context(self.decoded.of_digest(repository, target))
            seconds = self._seconds(repository, target)
            for base in bases:
                with self._base(repository, base) as held:
                    (nbytes,) = estimate.estimate(
                        [held], wanted, limits=self.limits, threads=self.settings.threads
                    )
                found[base] = (nbytes, seconds)
                if time.monotonic() > until:
                    break
        return found

    def edge(self, repository: str, base: str, target: str) -> Iterator[bytes]:
        """As :meth:`limosa.hub.workshop.Workshop.edge`."""
        known = self.store.graph.known(repository, [target])
        if not any(node.digest == target for node in known):
            raise NotFoundError("no such version", where=repository, found=target)
        bases = self.store.graph.known(repository, [base])
        if base != NOTHING and not any(node.state == base for node in bases):
            raise NotFoundError("no such base", where=repository, found=base)
        key = (repository, base, target)

        def make_it(sink: Callable[[bytes], object], path: Path) -> None:
            self.make_edge(repository, base, target, sink, path, "made")

        return self._makings.stream(key, make_it)

    def make_edge(
        self,
        repository: str,
        base: str,
        target: str,
        sink: Callable[[bytes], object],
        path: Path,
        kind: str,
    ) -> int:
        """Encode an edge into *sink*, which writes to *path*; verify and keep it; its bytes."""
        with (
            self._base(repository, base) as held,
            self.decoded.of_digest(repository, target) as wanted,
        ):
            opened = self._open(held)
            make.make_edge(opened, wanted, sink, limits=self.limits, threads=self.settings.threads)
            found = verify.read_through(
                path, opened, limits=self.limits, threads=self.settings.threads
            )
        state = self.store.catalog.manifest(repository, target).state
        verify.check_state(found.state, state, f"edge {base[:16] or 'whole'} to {target[:16]}")
        nbytes = path.stat().st_size
        edge = StoredEdge(base, target, state, sha256_of(path), nbytes, 0, kind, found.memory)
        self.store.add_edge(repository, edge, path)
        if kind == "made":
            # Whoever asked for it, and was cut off, asks again.
            self.store.graph.lease([edge.sha256])
        self.store.graph.keep_estimates(repository, target, {base: (nbytes, 0.0)})
        return nbytes

    def copy(self, repository: str, digest: str, quality: str) -> Version:
        """As :meth:`limosa.hub.workshop.Workshop.copy`."""
        found = self._copies(repository, digest).get(quality)
        if found is not None:
            return self.store.catalog.resolve(repository, f"@{found}")
        with self._jobs:
            return self._make_copy(repository, digest, quality)

    def _copies(self, repository: str, digest: str) -> dict[str, str]:
        """Of a version: quality -> digest."""
        return {
            node.bound.quality: node.digest
            for node in self.store.catalog.nodes(repository)
            if node.copy_of == digest and node.bound
        }

    def _make_copy(self, repository: str, digest: str, quality: str) -> Version:
        copies_here = self._copies(repository, digest)
        if quality in copies_here:
            return self.store.catalog.resolve(repository, f"@{copies_here[quality]}")
        if len(copies_here) >= _COPIES:
            # Or whoever may read could fill the disk.
            raise LimitError(
                "too many copies of one version", where=f"{repository}@{digest[:16]}",
                found=str(len(copies_here)), allowed=str(_COPIES),
                remedy=f"take one of them: {', '.join(sorted(copies_here))[:300]}",
            )  # fmt: skip
        with self.decoded.of_digest(repository, digest) as wanted, self._scratch() as scratch:
            blob, out = scratch / "blob.limosa", scratch / "model"
            made = copies.make_copy(
                wanted, quality, blob, out, limits=self.limits, threads=self.settings.threads
            )
            manifest = made.manifest
            edge = StoredEdge(
                NOTHING, manifest.digest, manifest.state, sha256_of(blob), blob.stat().st_size,
                0, "copy", made.memory,
            )  # fmt: skip
            self.store.add_edge(
                repository, edge, blob, manifest=manifest, copy_of=digest,
                bound=_bound(made.bound, quality),
            )  # fmt: skip
            self.decoded.adopt(manifest.digest, out)
        return self.store.catalog.resolve(repository, f"@{manifest.digest}")

    def statistics(self, repository: str, digest: str, base: str | None) -> list[dict[str, Any]]:
        """As :meth:`limosa.hub.workshop.Workshop.statistics`."""
        with ExitStack() as stack:
            path = stack.enter_context(self.decoded.of_digest(repository, digest))
            held = None
            if base is not None:
                held = stack.enter_context(self.decoded.of_digest(repository, base))
            model = self._open(path)
            assert model is not None
            return [asdict(one) for one in statistics.tensor_statistics(model, self._open(held))]

    def prebake(self, repository: str, *, seconds: float, dry_run: bool) -> list[dict[str, Any]]:
        """As :meth:`limosa.hub.workshop.Workshop.prebake`."""
        return baking.prebake(self, repository, seconds=seconds, dry_run=dry_run)

    def cluster(
        self,
        references: Mapping[str, tuple[str, str]],
        *,
        apply: bool,
        progress: Callable[[str], None] | None = None,
    ) -> dict[str, Any]:
        """As :meth:`limosa.hub.workshop.Workshop.cluster`."""
        return rebasing.cluster(self, references, apply=apply, progress=progress)

    def bake(self, repository: str, base: str, target: str, kind: str) -> int:
        """Make an edge ahead of demand; its bytes."""
        with self._scratch() as scratch:
            path = scratch / "edge.limosa"
            with path.open("wb", buffering=0) as file:
                return self.make_edge(repository, base, target, file.write, path, kind)

    @contextmanager
    def _base(self, repository: str, base: str) -> Iterator[Path | None]:
        if base == NOTHING:
            yield None
            return
        with self.decoded.of_state(repository, base) as path:
            yield path

    def _open(self, folder: Path | None) -> Base | None:
        return base_of(folder, self.limits, self.settings.threads)

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        folder = self.work / f"job-{secrets.token_hex(6)}"
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _seconds(self, repository: str, target: str) -> float:
        nbytes = self.store.catalog.manifest(repository, target).nbytes
        return max(0.001, nbytes / _BYTES_A_SECOND)


def _bound(found: Mapping[str, Any] | None, quality: str | None = None) -> Bound | None:
    if found is None:
        return None
    bound = Bound(**found)
    return bound if quality is None else replace(bound, quality=quality)
