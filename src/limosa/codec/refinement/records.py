"""How each tensor follows from the base's: the records of a refinement (docs/format.md 8.2).

Each record is written and read here, side by side, and says which arrays of levels it needs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from limosa.codec.constants import FLOAT_DTYPES
from limosa.codec.cursor import Cursor, put_varint, unzigzag, zigzag
from limosa.errors import CorruptError
from limosa.tensors import DTYPES, TensorSpec

#: Floats that can be refined; complex numbers are sent as they are.
REFINED_DTYPES = FLOAT_DTYPES - {"C64"}
INTEGER_DTYPES = frozenset(name for name in DTYPES if name[0] in "IU")


class Kind(IntEnum):
    """What an array holds; all arrays of a kind are coded together."""

    VECTOR = 0
    SPECTRUM = 1
    LEFT = 2
    RIGHT = 3
    CORE = 4
    MATRIX = 5


class Need(NamedTuple):
    """An array of levels that a record asks for."""

    kind: Kind
    size: int


class Levels(NamedTuple):
    """Levels and their step: the array is ``levels * step``. A step of 0 says that all are 0."""

    levels: NDArray[np.int32]
    step: float

    @property
    def values(self) -> NDArray[np.float64]:
        """The array, exact."""
        return self.levels.astype(np.float64) * self.step


@dataclass(frozen=True)
class Copy:
    """A tensor that is tied to another one: it becomes what tensor number *other* becomes."""

    METHOD: ClassVar[int] = 0
    NAME: ClassVar[str] = "tied"
    other: int

    def put(self, out: bytearray) -> None:
        """Append the fields."""
        put_varint(out, self.other)

    @classmethod
    def take(cls, cursor: Cursor, spec: TensorSpec) -> Copy:
        """Read the fields."""
        return cls(cursor.varint())

    def needs(self, spec: TensorSpec) -> list[Need]:
        """The arrays, in order."""
        return []


@dataclass(frozen=True)
class Difference:
    """base + levels * step, for every element.

    Args:
        scale: 0; or 1 to multiply the difference by the base's magnitude, element by element; or
            2 + n by the square root of the magnitude of base tensor number n of equal shape.
    """

    METHOD: ClassVar[int] = 1
    NAME: ClassVar[str] = "difference"
    scale: int = 0

    def put(self, out: bytearray) -> None:
        """Append the fields."""
        put_varint(out, self.scale)

    @classmethod
    def take(cls, cursor: Cursor, spec: TensorSpec) -> Difference:
        """Read the fields."""
        _check_float(spec, cursor)
        return cls(cursor.varint())

    def needs(self, spec: TensorSpec) -> list[Need]:
        """The arrays, in order."""
        return [Need(_kind_of(spec), spec.elements)]


@dataclass(frozen=True)
class Masked:
    """A difference where a seeded mask is set: word < *threshold* (Random Mask)."""

    METHOD: ClassVar[int] = 2
    NAME: ClassVar[str] = "masked"
    threshold: int
    count: int

    def put(self, out: bytearray) -> None:
        """Append the fields."""
        put_varint(out, self.threshold)
        put_varint(out, self.count)

    @classmethod
    def take(cls, cursor: Cursor, spec: TensorSpec) -> Masked:
        """Read the fields."""
        _check_float(spec, cursor)
        found = cls(cursor.varint(), cursor.varint())
        _check(cursor, found.threshold <= 2**32, "threshold", found.threshold, "at most 2**32")
        _check(cursor, found.count <= spec.elements, "count", found.count, f"{spec.elements}")
        return found

    def needs(self, spec: TensorSpec) -> list[Need]:
        """The arrays, in order."""
        return [Need(_kind_of(spec), self.count)]


@dataclass(frozen=True)
class Rows:
    """A difference in some rows of the first axis; the other rows stay, or become 0 (*zero*)."""

    METHOD: ClassVar[int] = 3
    NAME: ClassVar[str] = "rows"
    rows: tuple[int, ...]
    zero: bool = False

    def put(self, out: bytearray) -> None:
        """Append the fields."""
        out.append(int(self.zero))
        put_varint(out, len(self.rows))
        last = -1
        for row in self.rows:
            put_varint(out, row - last - 1)
            last = row

    @classmethod
    def take(cls, cursor: Cursor, spec: TensorSpec) -> Rows:
        """Read the fields."""
        _check_float(spec, cursor)
        zero = cursor.u8()
        _check(cursor, zero < 2 and len(spec.shape) > 0, "flag", zero, "0 or 1, of an axis")
        count = cursor.varint()
        _check(cursor, count <= min(spec.shape[0], cursor.remaining), "rows", count, "fewer")
        rows, last = [], -1
        for _ in range(count):
            last += cursor.varint() + 1
            rows.append(last)
        _check(cursor, last < spec.shape[0], "row", last, f"below {spec.shape[0]}")
        return cls(tuple(rows), zero == 1)

    def needs(self, spec: TensorSpec) -> list[Need]:
        """The arrays, in order."""
        return [Need(_kind_of(spec), len(self.rows) * (spec.elements // max(spec.shape[0], 1)))]


@dataclass(frozen=True)
class Integers:
    """An integer tensor: what is added to each element, modulo its width."""

    METHOD: ClassVar[int] = 4
    NAME: ClassVar[str] = "integers"
    added: tuple[int, ...]

    def put(self, out: bytearray) -> None:
        """Append the fields."""
        for value in self.added:
            put_varint(out, zigzag(value))

    @classmethod
    def take(cls, cursor: Cursor, spec: TensorSpec) -> Integers:
        """Read the fields."""
        _check(cursor, spec.dtype in INTEGER_DTYPES, "dtype", spec.dtype, "an integer")
        _check(cursor, spec.elements <= cursor.remaining, "elements", spec.elements, "fewer")
        return cls(tuple(unzigzag(cursor.varint()) for _ in range(spec.elements)))

    def needs(self, spec: TensorSpec) -> list[Need]:
        """The arrays, in order."""
        return []


@dataclass(frozen=True)
class Factors:
    """Matrices of low rank, added to the base or in its place (docs/format.md 8.4).

    The tensor is a stack of *parts* matrices of equal shape (o, i), o counting rows of the first
    axis. Of a matrix with the singular vectors U, V and values s, what is added is

        U diag(ds) V^T  +  U' V'^T  +  U[:, :r] C V[:, :r]^T

    or, with *mapping*, (U[:, :r] diag(s[:r]) + L) (V[:, :r]^T + R) takes its place.

    Args:
        parts: matrices in the tensor.
        spectrum: whether there is a ds.
        augmented: columns of U' and V', which starts as seeded signs.
        learned_right: whether V' (or R, with *mapping*) is learned.
        rank: r of the core C or of the mapping.
        mapping: see above.
    """

    METHOD: ClassVar[int] = 5
    NAME: ClassVar[str] = "factors"
    parts: int = 1
    spectrum: bool = False
    augmented: int = 0
    learned_right: bool = False
    rank: int = 0
    mapping: bool = False

    def put(self, out: bytearray) -> None:
        """Append the fields."""
        out.append(self.spectrum | self.learned_right << 1 | self.mapping << 2)
        for value in (self.parts, self.augmented, self.rank):
            put_varint(out, value)

    @classmethod
    def take(cls, cursor: Cursor, spec: TensorSpec) -> Factors:
        """Read the fields."""
        _check_float(spec, cursor)
        flags = cursor.u8()
        parts, augmented, rank = cursor.varint(), cursor.varint(), cursor.varint()
        found = cls(parts, bool(flags & 1), augmented, bool(flags & 2), rank, bool(flags & 4))
        rows = spec.shape[0] if spec.shape else 0
        _check(cursor, flags < 8, "flags", flags, "below 8")
        _check(
            cursor, 0 < parts <= rows and rows % parts == 0, "parts", parts, f"a divisor of {rows}"
        )
        least = min(found.matrix(spec))
        _check(cursor, least > 0, "matrix without columns", spec.shape, "columns")
        _check(cursor, max(augmented, rank) <= least, "rank", max(augmented, rank), f"{least}")
        alone = not (found.mapping and (found.spectrum or augmented))
        _check(cursor, alone, "factors beside a mapping", flags, "none")
        return found

    def matrix(self, spec: TensorSpec) -> tuple[int, int]:
        """Rows and columns of each matrix."""
        rows = spec.shape[0] // self.parts
        return rows, spec.elements // max(spec.shape[0], 1)

    def needs(self, spec: TensorSpec) -> list[Need]:
        """The arrays, in order: for each matrix ds, U', V', C or L and R."""
        return list(self._needs(*self.matrix(spec))) * self.parts

    def _needs(self, o: int, i: int) -> Iterator[Need]:
        if self.spectrum:
            yield Need(Kind.SPECTRUM, min(o, i))
        if self.augmented:
            yield Need(Kind.LEFT, o * self.augmented)
            if self.learned_right:
                yield Need(Kind.RIGHT, i * self.augmented)
        if self.rank and self.mapping:
            yield Need(Kind.LEFT, o * self.rank)
            if self.learned_right:
                yield Need(Kind.RIGHT, i * self.rank)
        elif self.rank:
            yield Need(Kind.CORE, self.rank**2)


@dataclass(frozen=True)
class Exact:
    """The bytes of the tensor, for what nothing else fits."""

    METHOD: ClassVar[int] = 6
    NAME: ClassVar[str] = "exact"
    data: bytes

    def put(self, out: bytearray) -> None:
        """Append the fields."""
        out += self.data

    @classmethod
    def take(cls, cursor: Cursor, spec: TensorSpec) -> Exact:
        """Read the fields."""
        return cls(cursor.take(spec.nbytes))

    def needs(self, spec: TensorSpec) -> list[Need]:
        """The arrays, in order."""
        return []


Record = Copy | Difference | Masked | Rows | Integers | Factors | Exact
RECORDS: tuple[type[Record], ...] = (Copy, Difference, Masked, Rows, Integers, Factors, Exact)


class Change(NamedTuple):
    """A record with its place and its numbers.

    Attributes:
        number: of the tensor among those of the base, ordered by the UTF-8 bytes of their names.
        record: how it follows from the base.
        arrays: the levels that the record needs.
    """

    number: int
    record: Record
    arrays: tuple[Levels, ...] = ()


def numbers_of(names: Iterable[str]) -> dict[str, int]:
    """The numbers of tensors: their positions by the UTF-8 bytes of their names.

    >>> numbers_of(["b", "a"])
    {'a': 0, 'b': 1}
    """
    return {name: number for number, name in enumerate(sorted(names, key=str.encode))}


def step_code(step: float) -> int:
    """The two bytes of a step: bits 15 to 30 of a binary32, rounded to nearest; 0 for 0.

    >>> hex(step_code(1.0)), round(step_of(step_code(0.1)), 6)
    ('0x7f00', 0.100098)
    """
    bits: int = struct.unpack("<I", struct.pack("<f", step))[0]
    return (bits + 2**14) >> 15


def step_of(code: int) -> float:
    """The inverse of :func:`step_code`; a code of 0xff00 or more is an infinity or a NaN."""
    value: float = struct.unpack("<f", struct.pack("<I", code << 15))[0]
    return value


def _kind_of(spec: TensorSpec) -> Kind:
    return Kind.MATRIX if len(spec.shape) > 1 else Kind.VECTOR


def _check_float(spec: TensorSpec, cursor: Cursor) -> None:
    _check(cursor, spec.dtype in REFINED_DTYPES, "dtype", spec.dtype, "F64, F32, F16 or BF16")


def _check(cursor: Cursor, holds: bool, what: str, found: object, allowed: str) -> None:
    if not holds:
        raise CorruptError(
            f"impossible {what}", where=cursor.place(), found=str(found), allowed=allowed
        )
