"""Sections (docs/format.md 2.2), and frames (2.4): length, checksum, and a body."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

from limosa import _core
from limosa.codec.cursor import Cursor, put_varint
from limosa.errors import ChecksumError, CorruptError, LimitError, TruncatedError
from limosa.limits import Limits

HEAD_BYTES = 8
_STORED, _DEFLATED = 0, 1
_LEVEL = 9


def frame(payload: bytes) -> bytes:
    """A chunk frame (docs/format.md 2.4)."""
    head = len(payload).to_bytes(4, "little") + _core.crc32c(payload).to_bytes(4, "little")
    return head + payload


def write_section(content: bytes) -> bytes:
    """The section of *content*, deflated where that is shorter."""
    deflated = zlib.compress(content, _LEVEL)
    shorter = len(deflated) < len(content)
    body = bytearray([_DEFLATED if shorter else _STORED])
    put_varint(body, len(content))
    body += deflated if shorter else content
    return struct.pack("<II", len(body), _core.crc32c(bytes(body))) + body


def read_section(read: Callable[[int], bytes], where: str, limits: Limits) -> tuple[bytes, int]:
    """The content of the next section, and the bytes that it took.

    *read(n)* gives exactly n bytes or raises :class:`TruncatedError`.

    Raises:
        LimitError: stored or raw length exceeds ``limits.max_header_bytes``.
        ChecksumError: the body was damaged.
        CorruptError: the body is not what its method says.
    """
    size, checksum = struct.unpack("<II", read(HEAD_BYTES))
    _check_size(size, where, limits)
    body = read(size)
    if _core.crc32c(body) != checksum:
        raise ChecksumError(
            "the checksum differs", where=where, remedy="the file was damaged; fetch it again"
        )
    return _content(body, where, limits), HEAD_BYTES + size


def _content(body: bytes, where: str, limits: Limits) -> bytes:
    cursor = Cursor(body, where)
    method = cursor.u8()
    size = cursor.varint()
    _check_size(size, where, limits)
    stored = cursor.take(cursor.remaining)
    if method == _STORED and len(stored) == size:
        return stored
    if method == _DEFLATED:
        return _inflate(stored, size, where)
    raise CorruptError(
        "unknown method or wrong length",
        where=where,
        found=f"method {method}, {len(stored)} bytes for {size}",
        allowed="method 0 with equal lengths, or 1",
    )


def _inflate(stored: bytes, size: int, where: str) -> bytes:
    """Exactly *size* bytes; the inflater is never allowed to produce more than one beyond."""
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(stored, size + 1)
    except zlib.error as error:
        raise CorruptError("bad zlib stream", where=where, found=str(error)) from None
    if len(content) != size or not inflater.eof or inflater.unused_data:
        raise CorruptError(
            "the zlib stream does not have the announced length",
            where=where,
            found=f"{len(content)} bytes{'' if inflater.eof else ' or more'}",
            allowed=str(size),
        )
    return content


def _check_size(size: int, where: str, limits: Limits) -> None:
    if size > limits.max_header_bytes:
        raise LimitError(
            "the section is too long",
            where=where,
            found=f"{size} bytes",
            allowed=f"max_header_bytes {limits.max_header_bytes}",
            remedy="pass a larger Limits to decode it",
        )


def exactly(read: Callable[[int], bytes], count: int, where: str) -> bytes:
    """*count* bytes of a stream that may give fewer at a time.

    Raises:
        TruncatedError: the stream ends first.
    """
    data = read_up_to(read, count)
    if len(data) != count:
        raise TruncatedError(
            "the bytes end too early",
            where=where,
            found=f"{len(data)} bytes",
            allowed=str(count),
            remedy="fetch the file again",
        )
    return data


def read_up_to(read: Callable[[int], bytes], count: int) -> bytes:
    """*count* bytes of a stream that may give fewer at a time; fewer only at its end."""
    data = read(count)
    if len(data) == count:
        return data
    parts = [data]
    missing = count - len(data)
    while data and missing:
        data = read(missing)
        parts.append(data)
        missing -= len(data)
    return b"".join(parts)
