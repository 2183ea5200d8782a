"""A fine-tune's versions pushed and pulled: bytes on the wire beside files, gzip and zstd.

The first paper's third figure (Chen and others, 2020) compares what a knowledge center delivers to
an edge that holds an older version: the whole model, or differences.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from benchmarks.data import State, load_model
from benchmarks.finetune import load_versions
from benchmarks.hub.wire import Wire
from limosa.exchange import local
from limosa.exchange.hub_server import HubServer
from limosa.exchange.install import PullResult, Wishes, pull
from limosa.exchange.publish import PushResult, push
from limosa.hub.client import HubClient
from limosa.hub.reference import parse_reference
from limosa.hub.server.settings import HubSettings
from limosa.hub.settings import Places

REPOSITORY = "bench/lite0"
MOST_OF_WHOLE, MOST_OF_DIRECT, MOST_SENT = 0.30, 1.02, 1.02


@dataclass(frozen=True)
class Pushed:
    """A push: its blob, and all bytes to the hub and from it."""

    name: str
    base: str
    nbytes: int
    up: int
    down: int


@dataclass(frozen=True)
class Pulled:
    """A pull: who held what, the blobs, all bytes from the hub and to it, and whether the file is
    the one that was pushed, byte for byte."""

    name: str
    hops: int
    nbytes: int
    up: int
    down: int
    same: bool


@dataclass(frozen=True)
class Series:
    """What was found.

    Attributes:
        pushed, pulled: in order.
        whole: bytes of the third version, compressed alone.
        direct: of it encoded against the first one.
        stranger: of the unrelated model, compressed alone.
        others: bytes of the third version by other means.
    """

    pushed: list[Pushed]
    pulled: dict[str, Pulled]
    whole: int
    direct: int
    stranger: int
    others: dict[str, int]


def run(folder: Path, cache: Path) -> Series:
    """Push three versions and a stranger, pull them from each state that matters."""
    models = _models(folder, cache)
    with HubServer(HubSettings(folder / "hub")) as server, Wire(server.url) as wire:
        assert server.admin_token is not None
        with HubClient(wire.url, server.admin_token) as client:
            sender = _places(folder / "sender")
            pushed = [
                _push(client, wire, models[name], name, sender)
                for name in ("v1", "v2", "v3", "stranger")
            ]
            pulled = {
                key: _pull(client, wire, folder / key, models, have, want, seconds)
                for key, (have, want, seconds) in _PULLS.items()
            }
    return Series(
        pushed, pulled,
        whole=_compressed(models["v3"], None), direct=_compressed(models["v3"], models["v1"]),
        stranger=_compressed(models["stranger"], None), others=_others(models["v3"].read_bytes()),
    )  # fmt: skip


# By name: what is held, what is wanted, and how many seconds the hub may take for new updates.
_PULLS: dict[str, tuple[str, str, float | None]] = {
    "whole": ("", "v3", None),
    "v1-v2": ("v1", "v2", None),
    "v2-v3": ("v2", "v3", None),
    "v1-v3 as stored": ("v1", "v3", 0.0),
    "v1-v3": ("v1", "v3", None),
    "v3-v1": ("v3", "v1", None),
    "stranger": ("v1", "stranger", None),
}


def _models(folder: Path, cache: Path) -> dict[str, Path]:
    second, third = load_versions(cache, "BF16")
    states: dict[str, State] = {
        "v1": load_model("lite0", "BF16"), "v2": second, "v3": third, "stranger": _shuffled(third),
    }  # fmt: skip
    found = {}
    for name, state in states.items():
        found[name] = folder / f"{name}.safetensors"
        save_file({key: state[key] for key in states["v1"]}, found[name])
    return found


def _shuffled(state: State) -> State:
    """Tensors of the same shapes and values, each value elsewhere: of no use as a base."""
    random = np.random.default_rng(0)
    return {n: random.permutation(a.ravel()).reshape(a.shape) for n, a in state.items()}


def _places(folder: Path) -> Places:
    return Places(config=folder / "config", cache=folder / "cache")


def _push(client: HubClient, wire: Wire, model: Path, name: str, places: Places) -> Pushed:
    wire.take()
    reference = parse_reference(f"{REPOSITORY}:{name}")
    done: PushResult = push(client, model, reference, places=places)
    return Pushed(name, done.base, done.nbytes, *wire.take())


def _pull(
    client: HubClient, wire: Wire, folder: Path, models: dict[str, Path], have: str, want: str,
    seconds: float | None,
) -> Pulled:  # fmt: skip
    places, output = _places(folder), folder / "model.safetensors"
    folder.mkdir()
    if have:
        # What is held came from elsewhere, as a file.
        output.write_bytes(models[have].read_bytes())
    wire.take()
    wishes = Wishes(limits=None if seconds is None else {"seconds": seconds})
    reference = parse_reference(f"{REPOSITORY}:{want}")
    done: PullResult = pull(client, reference, output, places=places, wishes=wishes)
    up, down = wire.take()
    if done.fallback:
        raise RuntimeError(f"{have} to {want}: {done.fallback}")
    same = _sha256(output) == _sha256(models[want])
    name = f"{have or 'nothing'} to {want}" + (", stored updates only" if seconds == 0 else "")
    return Pulled(name, done.hops, done.nbytes, up, down, same)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _compressed(model: Path, base: Path | None) -> int:
    coded = model.with_name("coded.limosa")
    local.compress(model, coded, base=base)
    nbytes = coded.stat().st_size
    coded.unlink()
    return nbytes


def _others(data: bytes) -> dict[str, int]:
    found: dict[str, Callable[[bytes], bytes]] = {"gzip -6": lambda raw: gzip.compress(raw, 6)}
    try:
        import zstandard

        found["zstd -3"] = zstandard.ZstdCompressor(3).compress
        found["zstd -19"] = zstandard.ZstdCompressor(19).compress
    except ModuleNotFoundError:
        pass
    return {"the file": len(data)} | {name: len(code(data)) for name, code in found.items()}
