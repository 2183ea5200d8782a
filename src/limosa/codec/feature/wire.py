"""The bytes of one feature: everything but the chunks themselves (docs/format.md 9)."""

from __future__ import annotations

from dataclasses import dataclass

from limosa import _core
from limosa.codec.constants import (
    CHUNK_UNITS,
    FEATURE_DIGEST_BYTES,
    FEATURE_MAGIC,
    FRAME_HEAD_BYTES,
    SOURCE_ID_BYTES,
    UNIT_BYTES,
    VERSION,
)
from limosa.codec.cursor import Cursor, put_varint
from limosa.codec.layout import parse_specs, put_specs
from limosa.errors import (
    ChecksumError,
    CorruptError,
    LimitError,
    TruncatedError,
    UnsupportedVersionError,
)
from limosa.limits import Limits
from limosa.tensors import TensorSpec

_PREDICTED, _PROFILED, _RAW = 1, 2, 4
_END_BYTES = FEATURE_DIGEST_BYTES + 4


@dataclass(frozen=True)
class FeatureHeader:
    """What a feature says of itself.

    Attributes:
        source: 8 bytes, :attr:`FeatureSource.id`.
        number: the sender's count of features.
        base: the digest (8 bytes) of the feature that this one is predicted from; None: it decodes
            alone.
        profiled: channels are in the profile's order and scale.
        raw: the data follow as they are.
        specs: the tensors.
        digest: the beginning (8 bytes) of the state digest of what is decoded.
    """

    source: bytes
    number: int
    base: bytes | None
    profiled: bool
    raw: bool
    specs: tuple[TensorSpec, ...]
    digest: bytes


def write_feature(header: FeatureHeader, chunks: bytes | memoryview) -> bytes:
    """One feature."""
    flags = _PREDICTED * (header.base is not None) + _PROFILED * header.profiled + _RAW * header.raw
    out = bytearray(FEATURE_MAGIC + bytes([VERSION]) + header.source)
    put_varint(out, header.number)
    out.append(flags)
    out += header.base or b""
    put_specs(out, header.specs)
    out += chunks
    out += header.digest
    out += _core.crc32c(bytes(out)).to_bytes(4, "little")
    return bytes(out)


def read_feature(data: bytes, limits: Limits) -> tuple[FeatureHeader, memoryview]:
    """What a feature says, and its chunks.

    Raises:
        FormatError: it is no feature, damaged, or asks for more than *limits* allow.
    """
    if len(data) > limits.max_total_bytes:
        raise LimitError(
            "the feature is too long", where="feature", found=f"{len(data)} bytes",
            allowed=f"max_total_bytes {limits.max_total_bytes}",
        )  # fmt: skip
    if data[: len(FEATURE_MAGIC)] != FEATURE_MAGIC[: len(data)]:
        raise CorruptError("not a feature", where="byte 0", found=data[:8].hex())
    head = len(FEATURE_MAGIC) + 1
    if len(data) < head + SOURCE_ID_BYTES + 3 + _END_BYTES:
        raise TruncatedError("the feature is cut off", found=f"{len(data)} bytes")
    if data[head - 1] != VERSION:
        raise UnsupportedVersionError(
            "another version", where="feature", found=str(data[head - 1]), allowed=str(VERSION),
            remedy="upgrade limosa",
        )  # fmt: skip
    if _core.crc32c(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise ChecksumError("the checksum differs", where="feature", remedy="send it again")
    body = memoryview(data)[head:-_END_BYTES]
    cursor = Cursor(bytes(body), "feature")
    source, number, flags = cursor.take(SOURCE_ID_BYTES), cursor.varint(), cursor.u8()
    if flags >= 8:
        raise CorruptError("unknown flags", where=cursor.place(), found=str(flags))
    base = cursor.take(FEATURE_DIGEST_BYTES) if flags & _PREDICTED else None
    specs = parse_specs(cursor, limits)
    if not specs:
        raise CorruptError("a feature of no tensors", where=cursor.place())
    header = FeatureHeader(
        source, number, base, bool(flags & _PROFILED), bool(flags & _RAW), specs,
        data[-_END_BYTES:-4],
    )  # fmt: skip
    return header, body[len(body) - cursor.remaining :]


def frame_lengths(chunks: memoryview, specs: tuple[TensorSpec, ...]) -> list[int]:
    """Lengths of the payloads, of which each tensor has one a chunk.

    Raises:
        TruncatedError, CorruptError: frames and tensors do not fit each other.
    """
    lengths = []
    at = 0
    for spec in specs:
        for _ in range(-(-spec.nbytes // (CHUNK_UNITS * UNIT_BYTES[spec.dtype]))):
            end = at + FRAME_HEAD_BYTES
            length = int.from_bytes(chunks[at : at + 4], "little")
            if end + length > len(chunks) or end > len(chunks):
                raise TruncatedError("a chunk is cut off", where=f"tensor {spec.name!r}")
            lengths.append(length)
            at = end + length
    if at != len(chunks):
        raise CorruptError("bytes behind the last chunk", found=f"{len(chunks) - at} bytes")
    return lengths
