"""The arithmetic of a refinement, the same for who sends and who receives (docs/format.md 8.4).

Every sum has a stated order, every tensor one rounding at its end, so all machines get one result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from limosa import _core
from limosa.codec.constants import core_dtype
from limosa.codec.refinement.philox import mask, signs
from limosa.codec.refinement.records import (
    REFINED_DTYPES,
    Difference,
    Exact,
    Factors,
    Integers,
    Levels,
    Masked,
    Record,
    Rows,
)
from limosa.errors import CorruptError
from limosa.tensors import Bytes, TensorSpec, numpy_dtype

Matrix = NDArray[np.float64]
_ONE = np.ones((1, 1))


class Singular(NamedTuple):
    """A singular value decomposition: a = left @ diag(values) @ right."""

    left: Matrix
    values: Matrix
    right: Matrix


class Context(NamedTuple):
    """What a record may draw on beside its own tensor.

    Attributes:
        specs: the tensors of the base, ordered by the UTF-8 bytes of their names.
        base: gives the bytes of a tensor of the base.
        seed: of the random numbers.
    """

    specs: tuple[TensorSpec, ...]
    base: Callable[[int], Bytes]
    seed: int


def rebuild(number: int, record: Record, arrays: tuple[Levels, ...], context: Context) -> Bytes:
    """The new bytes of tensor *number*.

    Raises:
        CorruptError: the record refers to a tensor that does not fit, or its mask to another
            number of elements.
    """
    spec = context.specs[number]
    base = context.base(number)
    if isinstance(record, Difference):
        return _added(base, spec, _scaled(number, record, arrays[0], context))
    if isinstance(record, Masked):
        return _masked(number, base, record, arrays[0], context)
    if isinstance(record, Rows):
        return _rows(base, spec, record, arrays[0])
    if isinstance(record, Factors):
        return _factors(number, base, record, arrays, context)
    if isinstance(record, Integers):
        old = base.view(numpy_dtype(spec.dtype))
        # Modulo the width, for signed and unsigned alike.
        bits = 8 * old.itemsize
        added = np.array([value % 2**bits for value in record.added], f"<u{old.itemsize}")
        result: Bytes = (old.view(added.dtype) + added).view(np.uint8)
        return result
    if isinstance(record, Exact):
        return np.frombuffer(record.data, np.uint8)
    raise AssertionError(f"a copy is resolved by the caller: {record}")


def as_doubles(spec: TensorSpec, data: Bytes) -> NDArray[np.float64]:
    """The values of a float tensor."""
    values: NDArray[np.float64] = data.view(numpy_dtype(spec.dtype)).astype(np.float64)
    return values


def decompose(matrix: Matrix) -> Singular:
    """The exact singular value decomposition of ``core/``, the same bits on every machine.

    Values that are not finite count as 0.
    """
    finite = np.where(np.isfinite(matrix), matrix, 0.0)
    return Singular(*_core.svd(np.ascontiguousarray(finite)))


def sign_scale(columns: int) -> float:
    """The magnitude of the numbers of a right factor: a power of two near 1 / sqrt(columns).

    >>> sign_scale(4), sign_scale(1)
    (0.5, 1.0)
    """
    return 2.0 ** -((columns - 1).bit_length() // 2)


def right_signs(seed: int, number: int, part: int, columns: int, count: int) -> Matrix:
    """V'^T as both sides draw it, of shape (count, columns): signs over about sqrt(columns).

    >>> right_signs(0, 0, 0, 4, 1).tolist()
    [[0.5, 0.5, -0.5, -0.5]]
    """
    drawn = signs(seed, (number, part), columns * count).reshape(count, columns)
    return drawn * sign_scale(columns)


def _added(base: Bytes, spec: TensorSpec, values: NDArray[np.float64]) -> Bytes:
    row = np.ascontiguousarray(values.reshape(1, -1))
    return _core.merge(base, core_dtype(spec.dtype), _ONE, row)


def _scaled(
    number: int, record: Difference, array: Levels, context: Context
) -> NDArray[np.float64]:
    spec = context.specs[number]
    if record.scale == 0:
        return array.values
    other = number if record.scale == 1 else record.scale - 2
    fits = other < len(context.specs) and context.specs[other].shape == spec.shape
    if not fits or context.specs[other].dtype not in REFINED_DTYPES:
        raise CorruptError(
            "a scale that does not fit", where=f"tensor {spec.name!r}", found=f"tensor {other}"
        )
    magnitude = np.abs(as_doubles(context.specs[other], context.base(other)))
    with np.errstate(invalid="ignore", over="ignore"):
        scale = magnitude if record.scale == 1 else np.sqrt(magnitude)
        return array.values * scale


def _masked(number: int, base: Bytes, record: Masked, array: Levels, context: Context) -> Bytes:
    spec = context.specs[number]
    chosen = mask(context.seed, (number, 0), spec.elements, record.threshold)
    if np.count_nonzero(chosen) != record.count:
        raise CorruptError(
            "the mask has another number of elements", where=f"tensor {spec.name!r}",
            found=str(record.count), allowed=str(np.count_nonzero(chosen)),
        )  # fmt: skip
    values = np.zeros(spec.elements)
    values[chosen] = array.values
    return _added(base, spec, values)


def _rows(base: Bytes, spec: TensorSpec, record: Rows, array: Levels) -> Bytes:
    chosen = list(record.rows)
    values = np.zeros((spec.shape[0], spec.elements // max(spec.shape[0], 1)))
    values[chosen] = array.values.reshape(len(chosen), values.shape[1])
    if record.zero:
        pruned = np.ones(spec.shape[0], bool)
        pruned[chosen] = False
        base = base.copy()
        base.reshape(spec.shape[0], base.size // max(spec.shape[0], 1))[pruned] = 0
    return _added(base, spec, values)


def _factors(
    number: int, base: Bytes, record: Factors, arrays: tuple[Levels, ...], context: Context
) -> Bytes:
    spec = context.specs[number]
    rows, columns = record.matrix(spec)
    stack = as_doubles(spec, base).reshape(record.parts, rows, columns)
    each = len(arrays) // record.parts
    results = []
    for part in range(record.parts):
        left, right = merged_factors(
            record, stack[part], arrays[part * each : (part + 1) * each],
            right_signs(context.seed, number, part, columns, record.augmented),
        )  # fmt: skip
        old = None if record.mapping else base.reshape(record.parts, -1)[part]
        results.append(_core.merge(old, core_dtype(spec.dtype), left, right))
    return np.concatenate(results)


def merged_factors(
    record: Factors, matrix: Matrix, arrays: tuple[Levels, ...], drawn: Matrix
) -> tuple[Matrix, Matrix]:
    """The two matrices, (o, k) and (k, i), whose product is added or takes the place of *matrix*.

    Args:
        matrix: (o, i), of the base.
        arrays: of this matrix, in the order of :meth:`Factors.needs`.
        drawn: V'^T before it is learned, (augmented, i).
    """
    o, i = matrix.shape
    rest = iter(arrays)
    lefts: list[Matrix] = []
    rights: list[Matrix] = []
    needs_svd = record.mapping or any(
        a.step for a in (arrays if record.rank else arrays[: int(record.spectrum)])
    )
    svd = decompose(matrix) if needs_svd else Singular(*_nothing(o, i))
    if record.spectrum:
        lefts.append(svd.left * next(rest).values)
        rights.append(svd.right)
    if record.augmented:
        lefts.append(next(rest).values.reshape(o, record.augmented))
        learned: Any = 0.0
        if record.learned_right:
            learned = next(rest).values.reshape(record.augmented, i)
        rights.append(drawn + learned)
    if record.rank:
        left, right = svd.left[:, : record.rank], svd.right[: record.rank]
        if record.mapping:
            left = left * svd.values[: record.rank] + next(rest).values.reshape(o, record.rank)
            if record.learned_right:
                right = right + next(rest).values.reshape(record.rank, i)
        else:
            core = next(rest).values.reshape(record.rank, record.rank)
            left = _core.matmul(np.ascontiguousarray(left), core)
        lefts.append(left)
        rights.append(right)
    if not lefts:
        return np.zeros((o, 0)), np.zeros((0, i))
    return np.ascontiguousarray(np.hstack(lefts)), np.ascontiguousarray(np.vstack(rights))


def _nothing(o: int, i: int) -> tuple[Matrix, Matrix, Matrix]:
    """In place of a decomposition of which only zeros would be used."""
    least = min(o, i)
    return np.zeros((o, least)), np.zeros(least), np.zeros((least, i))
