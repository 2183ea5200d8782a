"""Tensors of a file that do not travel, since a seed gives them again.

They stand in the skeleton of a safetensors file as JSON: ``torch``, the version that the sender
drew with, and ``tensors``: for each its place in the file, name, dtype, shape, method, seed, sizes
and part (see ``draws.py``), and the first 8 bytes of its digest as hexadecimal digits.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from limosa.errors import CorruptError, MissingExtraError
from limosa.files.draws import Draw, Drawer
from limosa.files.header import unique_keys
from limosa.limits import Limits
from limosa.tensors import Bytes, TensorSpec, check_spec, check_specs, tensor_digest

_DIGEST_BYTES = 8


@dataclass(frozen=True)
class SeededTensor:
    """One tensor that is drawn.

    Attributes:
        place: its number among all tensors of the file, in the order of the data.
        spec: name, dtype and shape.
        draw: how it is drawn.
        digest: the first 8 bytes of its digest.
    """

    place: int
    spec: TensorSpec
    draw: Draw
    digest: bytes


@dataclass(frozen=True)
class Seeded:
    """The tensors of a file that are drawn, by ascending places, and the sender's torch."""

    torch: str
    tensors: tuple[SeededTensor, ...]


def seeded_digest(spec: TensorSpec, data: Bytes) -> bytes:
    """What says whether the right bytes were drawn."""
    return tensor_digest(spec.dtype, spec.shape, data)[:_DIGEST_BYTES]


def dump_seeded(seeded: Seeded) -> bytes:
    """The JSON of *seeded*.

    >>> from limosa.limits import Limits
    >>> draw = Draw("uniform", 7, (1, 2, 2, 1))
    >>> tensor = SeededTensor(0, TensorSpec("w", "F32", (1, 2)), draw, bytes(8))
    >>> load_seeded(dump_seeded(Seeded("2.13.0", (tensor,))), Limits()).tensors[0] == tensor
    True
    """
    rows = [
        [
            one.place, one.spec.name, one.spec.dtype, list(one.spec.shape), one.draw.method,
            one.draw.seed, list(one.draw.sizes), one.draw.part, one.digest.hex(),
        ]
        for one in seeded.tensors
    ]  # fmt: skip
    value = {"torch": seeded.torch, "tensors": rows}
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def load_seeded(block: bytes, limits: Limits) -> Seeded:
    """The inverse of :func:`dump_seeded`, of a block from anywhere.

    Raises:
        CorruptError: it is not such a block.
        LimitError: it asks for more than *limits* allow.
    """
    try:
        value: Any = json.loads(block, object_pairs_hook=unique_keys)
        version, rows = str(value["torch"])[:40], value["tensors"]
        tensors = tuple(_parse(row) for row in rows)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CorruptError("bad seeded tensors", where="skeleton", found=str(error)[:120]) from None
    last = -1
    for one in tensors:
        check_spec(one.spec, limits)
        one.draw.check(limits)
        if one.place <= last:
            raise CorruptError("places that do not ascend", where="skeleton", found=str(one.place))
        last = one.place
    return Seeded(version, tensors)


def with_seeded(specs: Sequence[TensorSpec], seeded: Seeded, limits: Limits) -> list[TensorSpec]:
    """All tensors of a file, of which *specs* are those that travel.

    Raises:
        CorruptError: a place is behind the end, or a name comes twice.
        LimitError: together they are too many.
    """
    found: list[TensorSpec] = []
    rest = iter(specs)
    for one in seeded.tensors:
        found += islice(rest, one.place - len(found))
        if one.place > len(found):
            raise CorruptError("a place behind the end", where="skeleton", found=str(one.place))
        found.append(one.spec)
    found += rest
    check_specs(found, limits)
    return found


class SeededData:
    """Draws the tensors of *seeded*, each when the file has come to its place.

    Raises:
        MissingExtraError: torch is not installed.
    """

    def __init__(self, seeded: Seeded, limits: Limits) -> None:
        self._seeded = seeded
        self._next = 0
        self._drawer = Drawer(limits) if seeded.tensors else None

    def due(self, place: int) -> Bytes | None:
        """The bytes of the tensor at *place*, or None where one that travelled stands.

        Raises:
            MissingExtraError: this torch draws other numbers than the sender's.
        """
        if self._drawer is None or self._next == len(self._seeded.tensors):
            return None
        one = self._seeded.tensors[self._next]
        if one.place != place:
            return None
        self._next += 1
        data = self._drawer.draw(one.draw, one.spec)
        if seeded_digest(one.spec, data) != one.digest:
            raise MissingExtraError(
                "this torch draws other random numbers than the sender's",
                where=f"tensor {one.spec.name!r}", found=f"torch {self._drawer.version}",
                allowed=f"torch {self._seeded.torch}",
                remedy="install that version, or let the sender compress the folder as a whole "
                "(limosa compress), which sends every tensor",
            )  # fmt: skip
        return data


def _parse(row: Any) -> SeededTensor:
    place, name, dtype, shape, method, seed, sizes, part, digest = row
    numbers = [place, seed, part, *shape, *sizes]
    if not all(isinstance(n, int) and not isinstance(n, bool) for n in numbers) or place < 0:
        raise ValueError("a number that is none")
    if not all(isinstance(text, str) for text in (name, dtype, method, digest)):
        raise ValueError("a text that is none")
    raw = bytes.fromhex(digest)
    if len(raw) != _DIGEST_BYTES:
        raise ValueError("a digest of another length")
    spec = TensorSpec(name, dtype, tuple(shape))
    return SeededTensor(place, spec, Draw(method, seed, tuple(sizes), part), raw)
