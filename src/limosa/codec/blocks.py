"""The blocks of a payload (docs/format.md 3) found by their lengths, without decoding them.

So a report on an update needs no base: contexts, which come from the base, change what symbols
mean but not how many bytes they take.
"""

from __future__ import annotations

from typing import NamedTuple

from limosa.codec.constants import (
    FLOAT_FIELDS,
    MODE_NAMES,
    MODE_PACKED,
    MODE_TENSOR_COPY,
    UNIT_BYTES,
)
from limosa.codec.cursor import Cursor
from limosa.errors import CorruptError

_RAW, _CONSTANT, _BASE_COPY, _FIELDS, _PALETTE, _ZERO_MASK = 0, 1, 3, 4, 5, 6
_PLANES, _BASE_PLANES, _STEPS, _SPARSE = 7, 8, 9, 10
_DECIMAL, _BASE_DECIMAL, _LZMA, _BASE_LZMA = 11, 12, 13, 14
_LEVELS, _BASE_LEVELS, _BASE_PALETTE, _CLASSED_FIELDS, _REPEATS = 15, 16, 17, 18, 19
_UNSIGNED = 128
# 3.11: flags of a block of levels
_DEPENDENT, _ROW_SCALES, _BY_ROWS, _BY_EXPONENTS, _ADAPTIVE = 1, 2, 4, 8, 16
_STREAM_RAW, _STREAM_CONSTANT = 0, 1
_LANES = {2: 32, 3: 1}
_MAX_LENGTH = 13


class Block(NamedTuple):
    """One block: its mode, the units that it gives and the bytes that it takes."""

    mode: int
    units: int
    nbytes: int


def find_blocks(payload: bytes, units: int, dtype: str, where: str) -> list[Block]:
    """The blocks of a chunk of *units* units.

    Raises:
        TruncatedError, CorruptError: the lengths do not fit; *where* is in the message.
    """
    cursor = Cursor(payload, where)
    blocks = []
    left = units
    while left:
        before = cursor.remaining
        mode = cursor.u8()
        count = cursor.varint() or left
        if count > left:
            raise CorruptError("a block is too long", where=cursor.place(), found=str(count))
        _skip(cursor, mode, count, dtype)
        blocks.append(Block(mode, count, before - cursor.remaining))
        left -= count
    cursor.finish()
    return blocks


def _skip(cursor: Cursor, mode: int, n: int, dtype: str) -> None:
    width = UNIT_BYTES[dtype]
    if mode == _RAW:
        cursor.take(n * width)
    elif mode == _CONSTANT:
        cursor.take(width)
    elif mode == MODE_TENSOR_COPY:
        cursor.varint()
    elif mode in (_FIELDS, _CLASSED_FIELDS):
        _skip_fields(cursor, n, dtype, mode == _CLASSED_FIELDS)
    elif mode in (_PALETTE, _BASE_PALETTE):
        if mode == _BASE_PALETTE:
            _skip_exceptions(cursor, width)
        cursor.take((cursor.u8() + 1) * width)
        _skip_symbols(cursor, n, 1)
    elif mode == _ZERO_MASK:
        nonzero = cursor.varint()
        _skip_symbols(cursor, -(-n // 8), 1)
        _skip(cursor, cursor.u8(), nonzero, dtype)
    elif mode == _REPEATS:
        _skip_repeats(cursor, n, dtype)
    elif mode in (_PLANES, _BASE_PLANES):
        for _ in range(width):
            _skip_symbols(cursor, n, 1)
    elif mode == _STEPS:
        _skip_steps(cursor, n)
    elif mode == _SPARSE:
        changed = cursor.varint()
        _skip_integers(cursor, changed, 1)
        _skip_steps(cursor, changed)
    elif mode in (_DECIMAL, _BASE_DECIMAL, _LZMA, _BASE_LZMA):
        _skip_exceptions(cursor, width)
        if mode in (_DECIMAL, _BASE_DECIMAL):
            _skip_integers(cursor, n, 1)
        else:
            cursor.take(cursor.varint())
    elif mode in (_LEVELS, _BASE_LEVELS):
        _skip_levels(cursor, n, width)
    elif mode == MODE_PACKED:
        cursor.u8()
        cursor.take(cursor.varint())
    elif mode != _BASE_COPY:
        raise CorruptError(
            "unknown block mode",
            where=cursor.place(),
            found=str(mode),
            allowed=f"0 to {len(MODE_NAMES) - 1}",
        )


def _skip_fields(cursor: Cursor, n: int, dtype: str, classed: bool) -> None:
    if dtype not in FLOAT_FIELDS:
        raise CorruptError("fields of a dtype that has none", where=cursor.place(), found=dtype)
    head, zeros, _ = cursor.u8(), cursor.u8(), cursor.take(2)
    unsigned, joined = divmod(head, _UNSIGNED)
    classes = 1
    if classed:
        rows, columns = _take_rows(cursor, n)
        classes = _skip_classes(cursor, rows, columns)
    escapes = cursor.varint()
    if escapes:
        _skip_integers(cursor, escapes, 1)
    _skip_symbols(cursor, n, classes)
    rest = 8 * UNIT_BYTES[dtype] - FLOAT_FIELDS[dtype][0] - joined - zeros
    if rest < 0:
        raise CorruptError("more bits than a unit has", where=cursor.place(), found=f"{rest} left")
    planes = [8] * (rest // 8) + [bits for bits in (4, 2, 1) if rest % 8 & bits]
    for bits in planes[: len(planes) - unsigned]:
        cursor.take(-(-n * bits // 8))


def _skip_repeats(cursor: Cursor, n: int, dtype: str) -> None:
    width = UNIT_BYTES[dtype]
    rows, _ = _take_rows(cursor, n)
    if cursor.u8():
        cursor.take(width)
    valued = cursor.varint()
    _skip_symbols(cursor, -(-rows // 8), 1)
    cursor.take(valued * width)
    full = cursor.varint()
    _skip_symbols(cursor, -(-n // 4), 1)
    if full:
        _skip(cursor, cursor.u8(), full, dtype)


def _skip_exceptions(cursor: Cursor, width: int) -> None:
    for _ in range(cursor.varint()):
        cursor.varint()
        cursor.take(width)


def _skip_levels(cursor: Cursor, n: int, width: int) -> None:
    flags = cursor.u8()
    cursor.take(3)
    _skip_exceptions(cursor, width)
    rows, columns = _take_rows(cursor, n)
    if flags & _ROW_SCALES:
        _skip_symbols(cursor, rows, 1)
    classes = 1
    if flags & _BY_ROWS:
        classes = _skip_classes(cursor, rows, columns)
    elif flags & _BY_EXPONENTS:
        classes = cursor.u8()
        cursor.take(2)
    if flags & _ADAPTIVE:
        cursor.take(cursor.varint())
    else:
        _skip_integers(cursor, n, 2 * classes if flags & _DEPENDENT else classes)


def _take_rows(cursor: Cursor, n: int) -> tuple[int, int]:
    """How many rows *n* units touch, and the units of a row."""
    columns, first = cursor.varint(), cursor.varint()
    if first >= columns:
        raise CorruptError(
            "no such column", where=cursor.place(), found=str(first), allowed=f"below {columns}"
        )
    return -(-(first + n) // columns), columns


def _skip_classes(cursor: Cursor, rows: int, columns: int) -> int:
    """The number of classes; those of rows and columns are skipped."""
    classes = cursor.u8()
    _skip_symbols(cursor, rows, 1)
    _skip_symbols(cursor, columns, 1)
    return classes


def _skip_steps(cursor: Cursor, n: int) -> None:
    contexts = cursor.u8()
    cursor.take(2)
    _skip_integers(cursor, n, contexts)


def _skip_integers(cursor: Cursor, n: int, contexts: int) -> None:
    cursor.take(2)
    _skip_symbols(cursor, n, contexts)
    cursor.take(cursor.varint())


def _skip_symbols(cursor: Cursor, n: int, contexts: int) -> None:
    kind = cursor.u8()
    if kind == _STREAM_RAW:
        cursor.take(n)
    elif kind == _STREAM_CONSTANT:
        cursor.take(1)
    elif kind in _LANES:
        cursor.u8()
        for _ in range(contexts):
            _skip_table(cursor)
        words = cursor.varint()
        cursor.take(4 * _LANES[kind] + 2 * words)
    else:
        raise CorruptError("unknown symbol stream", where=cursor.place(), found=str(kind))


def _skip_table(cursor: Cursor) -> None:
    """A frequency table: the length of each frequency is coded against the one before."""
    first, last = cursor.u8(), cursor.u8()
    bits = _Bits(cursor)
    length = 0
    for _ in range(first, last + 1):
        if bits.take(1):
            if bits.take(1):
                length = bits.take(4)
            else:
                length += 1 if bits.take(1) else -1
        if not 0 <= length <= _MAX_LENGTH:
            raise CorruptError("bad length of a frequency", where=cursor.place(), found=str(length))
        bits.take(max(0, length - 1))


class _Bits:
    """Bits of the bytes of a cursor, which they use up to a whole byte."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._held = 0
        self._count = 0

    def take(self, count: int) -> int:
        """The next *count* bits."""
        while self._count < count:
            self._held |= self._cursor.u8() << self._count
            self._count += 8
        taken = self._held & ((1 << count) - 1)
        self._held >>= count
        self._count -= count
        return taken
