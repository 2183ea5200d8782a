"""Decimal chunks whose integers go through lzma (docs/format.md 3.10, modes 13 and 14).

The baseline of the paper: fixed point, binary, lzma. It is here to be compared with, so it is
plain numpy and the standard library; the coder in use for everything else is in the core.
"""

from __future__ import annotations

import lzma
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limosa.codec.constants import FLOAT_DTYPES, MODE_BASE_LZMA, MODE_LZMA, UNIT_BYTES
from limosa.codec.cursor import Cursor, put_varint
from limosa.errors import CorruptError
from limosa.tensors import Bytes

# A dictionary of 32 MiB, and what else the decoder needs; the encoder's has 8 MiB.
_MEMORY = 33 * 2**20
_INT64_END = 2.0**63


def encode_payload(data: Bytes, base: Bytes | None, dtype: str, digits: int) -> bytes:
    """The payload of one chunk of a float dtype; lossy beyond *digits* decimal digits."""
    values = _to_f64(data, dtype)
    if base is not None:
        with np.errstate(invalid="ignore"):
            values = values - _to_f64(base, dtype)
    with np.errstate(over="ignore"):
        scaled = np.trunc(values * 10.0**digits)
    exceptional = ~(np.abs(scaled) < _INT64_END)
    rebuilt = _rebuild(np.where(exceptional, 0.0, scaled) / 10.0**digits, base, dtype)
    # What would be rounded to an infinity, or starts from a base that is not finite.
    exceptional |= ~np.isfinite(_to_f64(rebuilt, dtype))
    integers = np.where(exceptional, 0.0, scaled).astype("<i8")
    out = bytearray([MODE_LZMA if base is None else MODE_BASE_LZMA, 0])
    _put_exceptions(out, np.flatnonzero(exceptional), data.reshape(-1, UNIT_BYTES[dtype]))
    packed = lzma.compress(integers.tobytes(), format=lzma.FORMAT_XZ, preset=6)
    put_varint(out, len(packed))
    return bytes(out) + packed


def decode_payload(
    payload: bytes, out: Bytes, base: Bytes | None, dtype: str, digits: int, where: str
) -> None:
    """Decode one chunk into *out*, whose size says how many units there are.

    Raises:
        TruncatedError, CorruptError: the payload is not such a chunk.
    """
    cursor = Cursor(payload, where)
    mode = cursor.u8()
    units = out.reshape(-1, UNIT_BYTES[dtype])
    _check(cursor, mode, units.shape[0], base, dtype, digits)
    places, replaced = _read_exceptions(cursor, units.shape[0], units.shape[1])
    integers = _read_integers(cursor, units.shape[0])
    cursor.finish()
    quotient = integers.astype(np.float64) / 10.0**digits
    out[:] = _rebuild(quotient, base if mode == MODE_BASE_LZMA else None, dtype)
    if places:
        units[places] = np.frombuffer(replaced, np.uint8).reshape(len(places), -1)


def _check(
    cursor: Cursor, mode: int, units: int, base: Bytes | None, dtype: str, digits: int
) -> None:
    count = cursor.varint()
    problem = None
    if count not in (0, units):
        problem = "the block is not the whole chunk"
    elif dtype not in FLOAT_DTYPES or digits < 0:
        problem = "a decimal block in a tensor that is not coded so"
    elif mode == MODE_BASE_LZMA and base is None:
        problem = "a block that needs a base tensor, and there is none"
    if problem is not None:
        raise CorruptError(problem, where=cursor.place(), found=f"mode {mode}, count {count}")


def _put_exceptions(out: bytearray, places: NDArray[np.intp], units: Bytes) -> None:
    put_varint(out, places.size)
    previous = -1
    for place in places.tolist():
        put_varint(out, place - previous - 1)
        out += units[place].tobytes()
        previous = place


def _read_exceptions(cursor: Cursor, units: int, width: int) -> tuple[list[int], bytes]:
    count = cursor.count("exceptions", units, "units", width + 1)
    places = []
    values = bytearray()
    place = -1
    for _ in range(count):
        place += cursor.varint() + 1
        if place >= units:
            raise CorruptError(
                "an exception beyond the end", where=cursor.place(), found=str(place)
            )
        places.append(place)
        values += cursor.take(width)
    return places, bytes(values)


def _read_integers(cursor: Cursor, units: int) -> NDArray[np.int64]:
    packed = cursor.take(cursor.varint())
    decoder = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_MEMORY)
    return np.frombuffer(decompress(decoder, packed, 8 * units, "xz", cursor.place()), "<i8")


def decompress(
    decoder: lzma.LZMADecompressor, stream: bytes, size: int, kind: str, where: str
) -> bytes:
    """What a stream of a *kind* holds, which is to be *size* bytes.

    Raises:
        CorruptError: it holds something else, or more follows it.
    """
    try:
        # One byte more than there should be: only then does the decoder reach the stream's end.
        raw = decoder.decompress(stream, max_length=size + 1)
    except lzma.LZMAError as error:
        raise CorruptError(f"bad {kind} stream", where=where, found=str(error)) from None
    if len(raw) != size or not decoder.eof or decoder.unused_data:
        raise CorruptError(
            f"the {kind} stream has the wrong length",
            where=where,
            found=f"{len(raw)} bytes{'' if decoder.eof else ' or more'}",
            allowed=str(size),
        )
    return raw


def _to_f64(data: Bytes, dtype: str) -> NDArray[np.float64]:
    return data.view("<f8") if dtype == "F64" else _to_f32(data, dtype).astype(np.float64)


def _to_f32(data: Bytes, dtype: str) -> NDArray[np.float32]:
    """The values of a dtype that binary32 holds exactly."""
    if dtype == "BF16":
        return (data.view("<u2").astype("<u4") << 16).view("<f4")
    return data.view("<f2" if dtype == "F16" else "<f4").astype(np.float32)


def _rebuild(quotient: NDArray[np.float64], base: Bytes | None, dtype: str) -> Bytes:
    """The roundings of docs/format.md 3.10, in its order."""
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype == "F64":
            total = quotient if base is None else quotient + base.view("<f8")
            return _bytes(total.astype("<f8"))
        rounded = _round(quotient.astype(np.float32), dtype)
        if base is None:
            return rounded
        return _round(_to_f32(base, dtype) + _to_f32(rounded, dtype), dtype)


def _round(values: NDArray[np.float32], dtype: str) -> Bytes:
    """binary32 to the dtype, to nearest, ties to even."""
    if dtype == "F16":
        return _bytes(values.astype("<f2"))
    if dtype != "BF16":
        return _bytes(values.astype("<f4"))
    bits = values.astype("<f4").view("<u4")
    up = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    # Rounding could carry a NaN's mantissa away; keep its top bits and make it quiet.
    nan = (bits & 0x7FFFFFFF) > 0x7F800000
    return _bytes(np.where(nan, (bits >> 16) | 0x40, up).astype("<u2"))


def _bytes(values: NDArray[Any]) -> Bytes:
    return values.reshape(-1).view(np.uint8)
