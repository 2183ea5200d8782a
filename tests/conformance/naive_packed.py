"""Packed blocks by hand (docs/format.md 3.16), and such that are at fault."""

from __future__ import annotations

import lzma
from collections.abc import Iterator, Sequence

import naive_encoder as naive
from hand_made import Case, tensor, weights
from hand_made_errors import CORRUPT, TRUNCATED, ErrorCase, block_case


def stream(data: bytes, dictionary: int = 4096, **settings: int) -> bytes:
    """A raw LZMA2 stream."""
    chosen = {"id": lzma.FILTER_LZMA2, "dict_size": dictionary, **settings}
    return lzma.compress(data, lzma.FORMAT_RAW, filters=[chosen])


def packed(units: Sequence[int], width: int, transform: int, **settings: int) -> bytes:
    """What follows the head of a packed block."""
    if transform:
        before = [0, *units[:-1]]
        units = [(one - other) % 2**width for one, other in zip(units, before, strict=True)]
    packed = stream(naive.pack(units, width), **settings)
    return bytes([transform]) + naive.varint(len(packed)) + packed


def packed_cases() -> Iterator[Case]:
    """Files that decode."""
    for dtype in ("U8", "I16", "F32", "I64", "C64", "BOOL"):
        width = naive.WIDTHS[dtype]
        units = [unit % 2 for unit in range(300)] if dtype == "BOOL" else weights(dtype, 300)
        for transform in (0, 1):
            block = naive.block(20, packed(units, width, transform))
            name = f"packed-{dtype.lower()}-{transform}"
            yield Case(name, f"packed, transform {transform}", [tensor(dtype, units, block)])
    rising = list(range(65000, 65600))
    wrapped = [unit % 2**16 for unit in rising]
    settings = {"lc": 2, "lp": 1, "pb": 1, "dict_size": 2**21}
    dictionary = settings.pop("dict_size")
    block = naive.block(20, packed(wrapped, 16, 1, dictionary=dictionary, **settings), 600)
    feature = "packed with its count, the largest dictionary and other settings of LZMA"
    yield Case("packed-said", feature, [tensor("U16", wrapped, block)])
    two = [*range(262_144)], [7] * 10
    blocks = [naive.block(20, packed(part, 32, 1, dictionary=2**20)) for part in two]
    whole = [unit for part in two for unit in part]
    yield Case("packed-chunks", "two packed chunks", [tensor("U32", whole, *blocks)])


def packed_error_cases() -> Iterator[ErrorCase]:
    """Files that do not."""
    units = [1, 2, 3, 4]
    good = naive.pack(units, 16)

    def with_stream(data: bytes, transform: int = 0, count: int = 0) -> bytes:
        content = bytes([transform]) + naive.varint(len(data)) + data
        return naive.block(20, content, count)

    chosen = {
        "packed-transform": (CORRUPT, with_stream(stream(good), 2)),
        "packed-garbage": (CORRUPT, with_stream(b"\x03" * 12)),
        "packed-cut": (CORRUPT, with_stream(stream(good)[:-2])),
        "packed-few": (CORRUPT, with_stream(stream(good[:-2]))),
        "packed-many": (CORRUPT, with_stream(stream(bytes(10**6)))),
        "packed-two": (CORRUPT, with_stream(stream(good) * 2)),
        "packed-empty": (CORRUPT, with_stream(b"")),
        "packed-short": (TRUNCATED, with_stream(stream(good))[:-1]),
        "packed-part": (CORRUPT, with_stream(stream(good[:4]), 0, 2) + naive.block(0, good[4:])),
        "packed-behind": (CORRUPT, naive.block(0, good[:4], 2) + with_stream(stream(good[4:]))),
        "packed-more": (CORRUPT, with_stream(stream(good)) + b"\0"),
    }
    for name, (error, payload) in chosen.items():
        yield block_case(name, error, "section 3.16", "U16", 4, payload)
