"""The index and the footer (docs/format.md 2.5, 2.6): where each chunk lies, and the digests."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from limosa import _core
from limosa.codec.constants import (
    DIGEST_BYTES,
    END_MAGIC,
    FOOTER_BYTES,
    FRAME_HEAD_BYTES,
    INDEX_DIGEST_BYTES,
    MIN_PAYLOAD_BYTES,
    chunk_count,
)
from limosa.codec.cursor import Cursor, put_varint
from limosa.codec.sections import read_section, write_section
from limosa.errors import ChecksumError, CorruptError, LimitError, TruncatedError
from limosa.limits import Limits
from limosa.tensors import TensorSpec


@dataclass(frozen=True)
class Index:
    """Lengths and digests.

    Attributes:
        lengths: bytes of each chunk's payload, all tensors after each other.
        digests: the first 8 bytes of each tensor's digest.
        state: the state digest.
    """

    lengths: NDArray[np.uint32]
    digests: tuple[bytes, ...]
    state: bytes


def write_index(index: Index, chunk_counts: Sequence[int], offset: int) -> bytes:
    """The index section at *offset* in the file, and the footer."""
    out = bytearray()
    lengths = index.lengths.tolist()
    first = 0
    for count, digest in zip(chunk_counts, index.digests, strict=True):
        for length in lengths[first : first + count]:
            put_varint(out, length)
        first += count
        out += digest[:INDEX_DIGEST_BYTES]
    out += index.state
    section = write_section(bytes(out))
    return section + write_footer(offset, len(section), END_MAGIC)


def read_index(
    read: Callable[[int], bytes], specs: Sequence[TensorSpec], limits: Limits
) -> tuple[Index, int]:
    """The index, and the bytes that its section took.

    Raises:
        CorruptError, TruncatedError: it does not fit the layout.
        LimitError: a payload exceeds ``limits.max_chunk_bytes``.
    """
    content, size = read_section(read, "index", limits)
    counts = [chunk_count(spec) for spec in specs]
    # Checked before the list of lengths is made: each takes a byte at least.
    least = sum(counts) + len(counts) * INDEX_DIGEST_BYTES + DIGEST_BYTES
    if len(content) < least:
        raise TruncatedError(
            "the index is too short for the layout",
            where="index",
            found=f"{len(content)} bytes",
            allowed=f"{least} or more",
            remedy="fetch the file again",
        )
    cursor = Cursor(content, "index")
    lengths: list[int] = []
    digests = []
    for count in counts:
        lengths += [cursor.varint() for _ in range(count)]
        digests.append(cursor.take(INDEX_DIGEST_BYTES))
    state = cursor.take(DIGEST_BYTES)
    cursor.finish()
    if lengths:
        check_payload_length(min(lengths), "index", limits)
        check_payload_length(max(lengths), "index", limits)
    return Index(np.array(lengths, dtype=np.uint32), tuple(digests), state), size


def check_payload_length(length: int, where: str, limits: Limits) -> None:
    """Check the length of one payload.

    Raises:
        CorruptError: too short for a block.
        LimitError: above ``limits.max_chunk_bytes``.
    """
    if length < MIN_PAYLOAD_BYTES:
        raise CorruptError(
            "a chunk is too short for a block",
            where=where,
            found=f"{length} bytes",
            allowed=f"{MIN_PAYLOAD_BYTES} or more",
        )
    if length > min(limits.max_chunk_bytes, 2**32 - 1):
        raise LimitError(
            "a chunk is too long",
            where=where,
            found=f"{length} bytes",
            allowed=f"max_chunk_bytes {limits.max_chunk_bytes}",
            remedy="pass a larger Limits to decode it",
        )


def frame_bytes(lengths: NDArray[np.uint32]) -> int:
    """Bytes of the frames with these payload lengths."""
    return int(lengths.sum(dtype=np.uint64)) + FRAME_HEAD_BYTES * lengths.size


def write_footer(offset: int, size: int, magic: bytes) -> bytes:
    """The last 24 bytes of a file whose index section lies at *offset* and takes *size*."""
    place = struct.pack("<QI", offset, size)
    return place + struct.pack("<I", _core.crc32c(place)) + magic


def read_footer(footer: bytes, magic: bytes) -> tuple[int, int]:
    """Offset and size of the index section.

    Raises:
        TruncatedError: the file does not end with a footer.
        ChecksumError: the footer was damaged.
    """
    if len(footer) < FOOTER_BYTES or footer[-len(magic) :] != magic:
        raise TruncatedError(
            "the file does not end with its footer",
            where="last 24 bytes",
            found=footer[-len(magic) :].hex(" "),
            allowed=magic.hex(" "),
            remedy="fetch the file again",
        )
    place, checksum = footer[:12], footer[12:16]
    if struct.pack("<I", _core.crc32c(place)) != checksum:
        raise ChecksumError(
            "the checksum of the footer differs",
            where="last 24 bytes",
            remedy="the file was damaged; fetch it again",
        )
    offset, size = struct.unpack("<QI", place)
    return offset, size
