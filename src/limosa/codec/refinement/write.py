"""A refinement from its changes: the sender's side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from limosa import _core
from limosa.codec.base import Base
from limosa.codec.config import thread_count
from limosa.codec.constants import REFINEMENT_MAGIC, VERSION
from limosa.codec.cursor import put_varint
from limosa.codec.refinement.read import Refinement, ordered_specs, read_refinement
from limosa.codec.refinement.records import Change, Kind, Levels, step_code, step_of
from limosa.codec.sections import write_section
from limosa.errors import ConfigError

_MAX_LEVEL = 2**29 - 1


@dataclass(frozen=True)
class Written:
    """A refinement, and what it decodes to.

    Attributes:
        data: the bytes that travel.
        refinement: as the receiver reads it, on the sender's base.
    """

    data: bytes
    refinement: Refinement


def quantize_levels(values: NDArray[np.float64], step: float) -> Levels:
    """*values* as whole numbers of the nearest step that a refinement can hold.

    Raises:
        ConfigError: a value is not finite, or so large that it takes 2**29 steps.

    >>> quantize_levels(np.array([0.1, -0.26]), 0.125)
    Levels(levels=array([ 1, -2], dtype=int32), step=0.125)
    """
    held = step_of(step_code(step))
    flat = np.asarray(values, np.float64).reshape(-1)
    if not np.isfinite(flat).all():
        raise ConfigError("a learned value is not finite", found=str(flat[~np.isfinite(flat)][0]))
    if held <= 0 or not np.isfinite(held):
        raise ConfigError("bad step", found=repr(step), allowed="2**-126 to 2**127")
    levels = np.rint(flat / held)
    if levels.size and np.abs(levels).max() > _MAX_LEVEL:
        raise ConfigError("a learned value is too many steps", found=f"{np.abs(levels).max():g}")
    return Levels(levels.astype(np.int32), held if levels.any() else 0.0)


def write_refinement(
    base: Base, changes: Sequence[Change], *, seed: int = 0, threads: int | None = None
) -> Written:
    """Pack *changes*, and decode them as the receiver will, so that the digest is what it gets.

    Args:
        base: what the receiver holds.
        changes: for the tensors that change; in any order.
        seed: of the random numbers that records draw on; below 2**64.
        threads: to use; the bytes do not depend on it.

    Raises:
        ConfigError: *changes* name a tensor twice, or do not fit the base.
    """
    ordered = sorted(changes, key=lambda change: change.number)
    _check(base, ordered)
    draft = _pack(base, bytes(32), ordered, seed)
    count = thread_count(threads)
    state = read_refinement(draft, base=base, threads=count).computed_digest()
    data = _pack(base, state, ordered, seed)
    return Written(data, read_refinement(data, base=base, threads=count))


def packed_size(base: Base, changes: Sequence[Change], *, seed: int = 0) -> int:
    """The bytes that :func:`write_refinement` gives, without decoding."""
    ordered = sorted(changes, key=lambda change: change.number)
    # A digest does not compress: nor does this.
    return len(_pack(base, base.digest[::-1], ordered, seed))


def _pack(base: Base, state: bytes, changes: Sequence[Change], seed: int) -> bytes:
    specs = ordered_specs(base)
    out = bytearray(base.digest + state)
    put_varint(out, seed)
    put_varint(out, len(changes))
    last = -1
    for change in changes:
        put_varint(out, change.number - last - 1)
        last = change.number
        out.append(change.record.METHOD)
        change.record.put(out)
        for array in change.arrays:
            out += step_code(array.step).to_bytes(2, "little")
    arrays = [
        (need.kind, array.levels)
        for change in changes
        for need, array in zip(
            change.record.needs(specs[change.number]), change.arrays, strict=True
        )
        if array.step
    ]
    for kind in Kind:
        out += _stream([levels for held, levels in arrays if held == kind])
    return REFINEMENT_MAGIC + bytes([VERSION]) + write_section(bytes(out))


def _stream(arrays: Sequence[NDArray[np.int32]]) -> bytes:
    """All levels of a kind, one array after another."""
    return bytes(_core.encode_levels(np.concatenate(arrays), 1)) if arrays else b""


def _check(base: Base, changes: Sequence[Change]) -> None:
    specs = ordered_specs(base)
    numbers = [change.number for change in changes]
    if len(set(numbers)) != len(numbers):
        raise ConfigError("a tensor changes twice", found=str(numbers))
    for change in changes:
        if not 0 <= change.number < len(specs):
            raise ConfigError("no such tensor", found=str(change.number), allowed=f"{len(specs)}")
        spec = specs[change.number]
        needs = [need.size for need in change.record.needs(spec)]
        sizes = [array.levels.size for array in change.arrays]
        if needs != sizes:
            raise ConfigError(
                "arrays that do not fit",
                where=f"tensor {spec.name!r}", found=str(sizes), allowed=str(needs),
            )  # fmt: skip
