"""What a refinement changes, and where its bytes go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from limosa.codec.base import Base
from limosa.codec.inputs import Input
from limosa.codec.refinement.read import Packed, ordered_specs
from limosa.codec.refinement.records import (
    Change,
    Copy,
    Difference,
    Exact,
    Factors,
    Integers,
    Levels,
    Masked,
    Record,
    Rows,
)
from limosa.limits import Limits
from limosa.tensors import TensorSpec

# Of a record beside its levels: gap, method and fields, and a step for each array.
_RECORD_BYTES, _STEP_BYTES = 4, 2


@dataclass(frozen=True)
class ChangeReport:
    """One tensor that changes.

    Attributes:
        spec: name, dtype and shape.
        method: how it follows from the base.
        detail: ranks, rows or scale of that.
        values: levels that travel; *nonzero* of them are not 0.
        nbytes: its share of the file, by the entropy of its levels: those of one kind are coded
            together, so no exact number exists.
    """

    spec: TensorSpec
    method: str
    detail: str
    values: int
    nonzero: int
    nbytes: float


@dataclass(frozen=True)
class RefinementReport:
    """A refinement.

    Attributes:
        nbytes: of the file.
        base_digest, digest: the states that it leads from and to.
        seed: of its random numbers.
        raw_bytes: of all tensors of the base; None without it.
        changes: each tensor that changes, in order; None without the base, which they refer to.
    """

    nbytes: int
    base_digest: bytes
    digest: bytes
    seed: int
    raw_bytes: int | None = None
    changes: tuple[ChangeReport, ...] | None = None


def inspect_refinement(
    source: Input, *, base: Base | None = None, limits: Limits | None = None
) -> RefinementReport:
    """A report, with what changes if *base* is given; nothing is rebuilt.

    Raises:
        FormatError: the file is damaged or hostile.
        BaseMismatchError: *base* is another one.
    """
    packed = Packed(source, limits)
    known = packed.nbytes, packed.base_digest, packed.digest, packed.seed
    if base is None:
        return RefinementReport(*known)
    base.check(packed.base_digest)
    specs = ordered_specs(base)
    changes = packed.changes(specs)
    raw = sum(spec.nbytes for spec in specs)
    return RefinementReport(*known, raw, tuple(_reports(changes, specs, packed.nbytes)))


def _reports(
    changes: Sequence[Change], specs: Sequence[TensorSpec], nbytes: int
) -> list[ChangeReport]:
    sizes = [_weight(change) for change in changes]
    scale = nbytes / max(sum(sizes), 1.0)
    return [
        ChangeReport(
            spec=specs[change.number],
            method=change.record.NAME,
            detail=_detail(change.record, specs),
            values=sum(array.levels.size for array in change.arrays if array.step),
            nonzero=sum(int(np.count_nonzero(array.levels)) for array in change.arrays),
            nbytes=size * scale,
        )
        for change, size in zip(changes, sizes, strict=True)
    ]


def _weight(change: Change) -> float:
    record = change.record
    fields = bytearray()
    if isinstance(record, Exact | Integers | Rows):
        record.put(fields)
    levels = sum(_entropy(array) for array in change.arrays if array.step)
    return _RECORD_BYTES + len(fields) + _STEP_BYTES * len(change.arrays) + levels / 8


def _entropy(array: Levels) -> float:
    """Bits of the levels at the entropy of order 0."""
    counts = np.unique(array.levels, return_counts=True)[1]
    return float(-(counts * np.log2(counts / counts.sum())).sum()) if counts.size else 0.0


def _detail(record: Record, specs: Sequence[TensorSpec]) -> str:
    if isinstance(record, Copy):
        return specs[record.other].name if record.other < len(specs) else "?"
    if isinstance(record, Difference):
        return "" if record.scale == 0 else "of itself" if record.scale == 1 else "of deviations"
    if isinstance(record, Masked):
        return f"{record.threshold / 2**32:.2%} of the elements"
    if isinstance(record, Rows):
        return f"{len(record.rows)} rows{', the others pruned' if record.zero else ''}"
    return _detail_of_factors(record) if isinstance(record, Factors) else ""


def _detail_of_factors(record: Factors) -> str:
    words = []
    if record.parts > 1:
        words.append(f"{record.parts} matrices")
    if record.spectrum:
        words.append("singular values")
    if record.augmented:
        words.append(f"rank {record.augmented}")
    if record.rank and record.mapping:
        words.append(f"{'approximation' if record.learned_right else 'mapping'} of {record.rank}")
    elif record.rank:
        words.append(f"core of {record.rank}")
    return ", ".join(words)
