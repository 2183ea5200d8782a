"""What tests of a hub's workshop and store share: small models, a store, a clock that they move."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import ml_dtypes
import numpy as np

import limosa
from limosa.codec.opening import open_base, open_model
from limosa.exchange.forms import manifest_of
from limosa.exchange.workshop.shop import Shop
from limosa.exchange.workshop.unpacked import unpack, write_unpacked
from limosa.files import read
from limosa.hub.manifest import Manifest
from limosa.hub.server.settings import HubSettings
from limosa.hub.store.records import StoredEdge
from limosa.hub.store.store import Store
from limosa.hub.store.uploads import Announced, Upload
from limosa.limits import Limits

Arrays = Mapping[str, np.ndarray]
LIMITS = Limits(max_total_bytes=2**28)


def mixed(seed: int = 0, rows: int = 40) -> dict[str, np.ndarray]:
    """BF16, F32, I64, a scalar, an empty tensor, NaN and infinities."""
    rng = np.random.default_rng(seed)
    return {
        "embed": (rng.standard_normal((rows, 64)) * 0.02).astype(ml_dtypes.bfloat16),
        "fc.weight": (rng.standard_normal((rows, 96)) * 0.05).astype("f4"),
        "ids": rng.integers(0, 1000, 50),
        "step": np.array(seed, "i8"),
        "empty": np.empty((0, 3), "f4"),
        "odd": np.array([np.nan, np.inf, -np.inf, -0.0, 1.5], "f4"),
    }


def tuned(model: Arrays, seed: int = 1) -> dict[str, np.ndarray]:
    """A later step of a model: a tenth of its floats move a little."""
    rng = np.random.default_rng(seed)
    found = dict(model)
    for name, array in model.items():
        if array.ndim == 2 and array.size:
            moved = array.astype("f4") * (1 + 1e-2 * rng.standard_normal(array.shape))
            share = rng.random(array.shape) < 0.1
            found[name] = np.where(share, moved.astype(array.dtype), array)
    return found


def blob_of(path: Path, model: Arrays, base: Arrays | None = None, **options) -> Path:
    """A blob of arrays."""
    path.write_bytes(limosa.save(dict(model), base=None if base is None else dict(base), **options))
    return path


def unpacked(folder: Path, model: Arrays | Path) -> Path:
    """The folder of a decoded version, of arrays, or of a model's file or folder."""
    if isinstance(model, Path):
        with read(model, limits=LIMITS) as bundle:
            write_unpacked(bundle, folder, LIMITS)
    else:
        unpack(open_model(limosa.save(dict(model))), folder, LIMITS)
    return folder


def whole_manifest(model: Arrays) -> Manifest:
    """The manifest of a blob of arrays."""
    return manifest_of(open_model(limosa.save(dict(model))).as_base())


class Clock:
    """Seconds, which pass when a test says so; from now on, as files have times of their own."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


def open_store(folder: Path, clock: Clock | None = None) -> Store:
    """A store in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return Store(f"sqlite:///{folder / 'hub.db'}", str(folder / "blobs"), clock=clock or Clock())


@dataclass
class Workbench:
    """A store, its workshop, and how to push to it."""

    store: Store
    shop: Shop
    clock: Clock
    folder: Path
    repository: str = "team/net"

    @classmethod
    def make(cls, folder: Path, **settings) -> Workbench:
        clock = Clock()
        (folder / "work").mkdir(parents=True)
        store = open_store(folder, clock)
        chosen = HubSettings(folder, threads=1, max_model_bytes=2**28, **settings)
        return cls(store, Shop(store, chosen), clock, folder)

    def announce(
        self, blob: Path, name: str, manifest: Manifest, base: str = "", **more
    ) -> Announced:
        data = blob.read_bytes()
        return Announced(
            name, manifest.digest, manifest.state, base, len(data),
            hashlib.sha256(data).hexdigest(), **more,
        )  # fmt: skip

    def send(self, announced: Announced, blob: Path) -> Upload:
        """Announce and send; not yet verified."""
        upload = self.store.begin_upload(self.repository, announced, token_id=1, by="ann")
        if upload.status == "open":
            data = blob.read_bytes()
            self.store.receive(upload, upload.received, data[upload.received :])
        return replace(upload, received=announced.nbytes)

    def push(self, name: str, model: Arrays, base: Arrays | None = None, **more) -> Manifest:
        """As a server does it: announced, sent, assembled, verified, published."""
        blob = blob_of(self.folder / "work" / f"{name}.blob", model, base)
        manifest = whole_manifest(model)
        state = "" if base is None else open_base(dict(base)).digest.hex()
        self.publish(self.announce(blob, name, manifest, state, **more), blob)
        return manifest

    def publish(self, announced: Announced, blob: Path) -> Upload:
        upload = self.send(announced, blob)
        if upload.status == "open":
            there = self.folder / "work" / "assembled.blob"
            self.store.assemble(upload, there)
            found = self.shop.verify(
                self.repository, there, announced.base, announced.digest, announced.state
            )
            self.store.publish(
                upload, found.manifest, there, memory=found.memory, layers=found.layers
            )
        return upload

    def edge(self, base: str, target: str) -> StoredEdge | None:
        return self.store.graph.find(self.repository, base, target)

    def close(self) -> None:
        self.shop.close()
        self.store.close()
