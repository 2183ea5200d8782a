"""Which tensors of an adapter peft drew from a seed, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from limosa.errors import FormatError, MissingExtraError
from limosa.files.bundle import Bundle, Source
from limosa.files.draws import Draw, Drawer
from limosa.files.seeded import Seeded, SeededTensor, seeded_digest
from limosa.limits import Limits
from limosa.tensors import Bytes, TensorSpec

Load = Callable[[str], Bytes]
#: How many shapes of a layer are tried where an adapter of SHiRA leaves it open.
_TRIES = 16


def find_seeded(
    bundle: Bundle, source: Source, config: Mapping[str, Any], limits: Limits
) -> Seeded:
    """The tensors of *source* that this machine's torch draws again, bit for bit.

    Without torch, there are none.

    Raises:
        FormatError: a tensor cannot be read.
    """
    specs = {spec.name: spec for spec in bundle.specs}
    specs = {name: specs[name] for name in source.tensors}

    def load(name: str) -> Bytes:
        return bundle.get(name).data

    candidates = dict(_candidates(config, specs, load))
    if not candidates:
        return Seeded("", ())
    try:
        drawer = Drawer(limits)
    except MissingExtraError:
        return Seeded("", ())
    found = []
    for place, name in enumerate(source.tensors):
        data = load(name) if name in candidates else None
        for draw in candidates.get(name, []):
            if data is not None and _gives(drawer, draw, specs[name], data):
                digest = seeded_digest(specs[name], data)
                found.append(SeededTensor(place, specs[name], draw, digest))
                break
    return Seeded(drawer.version, tuple(found))


def _gives(drawer: Drawer, draw: Draw, spec: TensorSpec, data: Bytes) -> bool:
    try:
        return np.array_equal(drawer.draw(draw, spec), data)
    except FormatError:  # too large, or of another shape: not drawn so
        return False


def _candidates(
    config: Mapping[str, Any], specs: Mapping[str, TensorSpec], load: Load
) -> Iterator[tuple[str, list[Draw]]]:
    kind = config.get("peft_type")
    seed = config.get("random_seed" if kind == "SHIRA" else "projection_prng_key")
    if not isinstance(seed, int) or isinstance(seed, bool):
        return
    for name, spec in specs.items():
        last = name.rpartition(".")[2]
        if kind in ("VERA", "PVERA", "RANDLORA") and last[:-1] in ("vera_", "pvera_", "randlora_"):
            pair = [specs.get(name[:-1] + part) for part in "AB"]
            if pair[0] is not None and pair[1] is not None:
                make = _bases if kind == "RANDLORA" else _uniform
                part = "AB".find(last[-1])
                yield name, make(config, seed, pair[0].shape, pair[1].shape, part)
        elif kind == "SHIRA" and last == "shira_indices" and config.get("mask_type") == "random":
            yield name, _masks(config, seed, spec, load(name))


def _uniform(
    config: Mapping[str, Any], seed: int, a: tuple[int, ...], b: tuple[int, ...], part: int
) -> list[Draw]:
    return [Draw("uniform", seed, (*a, *b), part)]


def _bases(
    config: Mapping[str, Any], seed: int, a: tuple[int, ...], b: tuple[int, ...], part: int
) -> list[Draw]:
    if len(a) != 3 or len(b) != 3:
        return []
    sizes = a[0], b[0], a[2]
    if config.get("very_sparse") or config.get("sparse"):
        return [Draw("sparse", seed, (*sizes, 0 if config.get("very_sparse") else 3), part)]
    # peft takes the half that the sender's machine had.
    return [Draw("bases", seed, (*sizes, half), part) for half in (0, 1)]


def _masks(config: Mapping[str, Any], seed: int, spec: TensorSpec, data: Bytes) -> list[Draw]:
    """The count is rank * (outputs + inputs), and the indices say how large both are at least."""
    rank = config.get("r")
    if not isinstance(rank, int) or rank < 1 or spec.dtype != "I32" or len(spec.shape) != 2:
        return []
    count = spec.shape[1]
    if spec.shape[0] != 2 or not count or count % rank:
        return []
    rows, columns = (int(row.max()) + 1 for row in data.view("<i4").reshape(spec.shape))
    shapes = ((outputs, count // rank - outputs) for outputs in range(rows, rows + _TRIES))
    return [Draw("mask", seed, (*shape, count)) for shape in shapes if shape[1] >= columns]
