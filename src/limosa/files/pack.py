"""The general compressor for what is not a tensor: the smaller of deflate and LZMA.

A packed block is ``method: u8, raw length: uvarint, payload``. Methods: 0 stored, 1 raw deflate
(RFC 1951), 2 raw LZMA2 with a dictionary of 8 MiB. The containers that the two usually come in
(zlib, xz) are left out: lengths and checksums are already in limosa's own.
"""

from __future__ import annotations

import lzma
import zlib

from limosa.errors import CorruptError, LimitError, TruncatedError

STORED, DEFLATE, LZMA = 0, 1, 2

# A fixed dictionary bounds the decoder's memory whatever the file says.
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 2**23}]


def write_uvarint(value: int) -> bytes:
    """Seven bits a byte, low bits first, the top bit set on all but the last (LEB128).

    >>> write_uvarint(300)
    b'\\xac\\x02'
    """
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_uvarint(data: bytes, at: int) -> tuple[int, int]:
    """The value at *at* and the position after it.

    Raises:
        TruncatedError: the data end within the value.
        CorruptError: the value does not fit 63 bits.
    """
    value = 0
    for shift in range(0, 63, 7):
        if at >= len(data):
            raise TruncatedError("a length is cut off", where=f"byte {at}")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise CorruptError("a length does not fit 63 bits", where=f"byte {at}")


def pack(data: bytes) -> bytes:
    """Compress *data*; the same data always give the same bytes on one machine.

    >>> len(pack(b"a" * 1000)) < 20
    True
    >>> unpack(pack(b"limosa"), 6)
    b'limosa'
    """
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
    candidates = [
        (STORED, data),
        (DEFLATE, deflate.compress(data) + deflate.flush()),
        (LZMA, lzma.compress(data, lzma.FORMAT_RAW, filters=_FILTERS)),
    ]
    method, payload = min(candidates, key=lambda item: (len(item[1]), item[0]))
    return bytes([method]) + write_uvarint(len(data)) + payload


def unpack(block: bytes, limit: int) -> bytes:
    """The data of a packed block, of at most *limit* bytes.

    Raises:
        LimitError: the block announces more than *limit*.
        TruncatedError: the block ends too early.
        CorruptError: the method is unknown, or the payload is not what was announced.
    """
    if not block:
        raise TruncatedError("a packed block is empty")
    method = block[0]
    size, at = read_uvarint(block, 1)
    if size > limit:
        raise LimitError(
            "a packed block is too long",
            found=f"{size} bytes",
            allowed=f"max_header_bytes {limit}",
            remedy="pass a larger Limits to read it",
        )
    payload = block[at:]
    try:
        data, complete = _expand(method, payload, size)
    except (zlib.error, lzma.LZMAError, EOFError) as error:
        raise CorruptError("a packed block cannot be decompressed", found=str(error)) from None
    if len(data) != size or not complete:
        raise CorruptError(
            "a packed block has another length than it announces",
            found=f"{len(data)} bytes" if complete else "more or less data",
            allowed=f"{size} bytes",
        )
    return data


def _expand(method: int, payload: bytes, size: int) -> tuple[bytes, bool]:
    """At most *size* bytes, and whether the payload was used up exactly."""
    if method == STORED:
        return payload, True
    # One byte more than announced: an output that is too long is seen, not cut.
    if method == DEFLATE:
        inflate = zlib.decompressobj(-15)
        data = inflate.decompress(payload, size + 1)
        return data, inflate.eof and not inflate.unused_data
    if method == LZMA:
        decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS)
        data = decoder.decompress(payload, size + 1)
        return data, decoder.eof and not decoder.unused_data
    raise CorruptError(
        "unknown compression method", found=str(method), allowed="0 (stored), 1 (deflate), 2 (LZMA)"
    )
