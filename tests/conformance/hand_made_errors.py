"""Files that every decoder must refuse, and with which error."""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import naive_encoder as naive
from hand_made import raw, tensor

TRUNCATED, CORRUPT, CHECKSUM = "truncated", "corrupt", "checksum"
LIMIT, UNSUPPORTED, BASE = "limit", "unsupported", "base-mismatch"


@dataclass
class ErrorCase:
    """One folder of tests/golden-errors."""

    name: str
    error: str
    why: str
    data: bytes
    base: bytes | None = None
    layers: int = 1

    def files(self) -> dict[str, bytes]:
        base = {} if self.base is None else {"base.limosa": self.base}
        return {"file.limosa": self.data, **base}


GOOD = [tensor("U8", [1, 2, 3], naive.block(0, b"\1\2\3"))]
GOOD_FILE = naive.file(GOOD)
HEADER = 9 + len(naive.section(naive.layout(GOOD)))
INDEX = len(GOOD_FILE) - 24 - len(naive.section(naive.index(GOOD)))


def error_cases() -> Iterator[ErrorCase]:
    """All of them."""
    yield from damage()
    yield from layouts()
    yield from counts()
    yield from indices()
    yield from blocks()
    yield from stream_blocks()
    yield from copies()
    yield from bases()
    yield from decimals()


def damage() -> Iterator[ErrorCase]:
    """Bytes that are missing or flipped."""
    ends = {
        "empty": 0,
        "magic": 4,
        "version": 8,
        "layout": HEADER - 3,
        "frame": HEADER + 5,
        "payload": INDEX - 1,
        "index": INDEX + 9,
        "footer": len(GOOD_FILE) - 1,
    }
    for name, end in ends.items():
        yield ErrorCase(f"truncated-{name}", TRUNCATED, f"ends in the {name}", GOOD_FILE[:end])
    places = {
        "layout": HEADER - 1,
        "payload": INDEX - 1,
        "index": INDEX + 12,
        "footer": len(GOOD_FILE) - 24,
    }
    for name, place in places.items():
        data = bytearray(GOOD_FILE)
        data[place] ^= 1
        yield ErrorCase(f"flipped-{name}", CHECKSUM, f"a bit of the {name} is flipped", bytes(data))
    yield ErrorCase("magic", CORRUPT, "another magic", b"\x89LMSB" + GOOD_FILE[5:])
    for newline in (b"\n", b"\r"):
        text = GOOD_FILE.replace(b"\r\n", newline)
        yield ErrorCase(f"as-text-{newline.hex()}", CORRUPT, "sent as text", text)
    later = naive.file(GOOD, version=1)
    yield ErrorCase("version-1", UNSUPPORTED, "a version from the future", later)
    other = tensor("U8", [1, 2, 4], naive.block(0, b"\1\2\3"))
    yield ErrorCase(
        "tensor-digest", CHECKSUM, "data that are not those of the digest", naive.file([other])
    )
    index = naive.index(GOOD)[:-1] + b"\0"
    yield ErrorCase("state-digest", CHECKSUM, "another state digest", with_index(index))


def with_layout(layout: bytes, method: int = 0) -> bytes:
    """A file with this layout, and nothing of the rest right."""
    head = GOOD_FILE[:9] + naive.section(layout, method)
    end = naive.section(naive.index(GOOD))
    body = b"".join(naive.frame(p) for p in GOOD[0].payloads)
    return head + body + end + naive.footer(len(head + body), len(end))


def with_body(body: bytes) -> bytes:
    """A file whose layout section has this body."""
    section = struct.pack("<I", len(body)) + naive.crc32c(body) + body
    end = naive.section(naive.index(GOOD))
    rest = GOOD_FILE[HEADER:INDEX]
    head = GOOD_FILE[:9] + section + rest
    return head + end + naive.footer(len(head), len(end))


def layouts() -> Iterator[ErrorCase]:
    """docs/format.md 2.2, 2.3."""
    good = naive.layout(GOOD)
    size = naive.varint(len(good))
    bodies = {
        "method": b"\2" + size + good,
        "stored-short": b"\0" + naive.varint(len(good) + 1) + good,
        "stored-long": b"\0" + naive.varint(len(good) - 1) + good,
        "deflated-short": b"\1" + naive.varint(len(good) + 1) + zlib.compress(good),
        "deflated-long": b"\1" + naive.varint(len(good) - 1) + zlib.compress(good),
        "deflated-more": b"\1" + size + zlib.compress(good) + b"\0",
        "deflated-bad": b"\1" + size + b"\xff" + zlib.compress(good)[1:],
    }
    for name, body in bodies.items():
        yield ErrorCase(f"section-{name}", CORRUPT, "section 2.2", with_body(body))
    bomb = b"\1" + naive.varint(2**40) + zlib.compress(bytes(2**20), 9)
    yield ErrorCase("section-bomb", LIMIT, "a raw length of 1 TiB", with_body(bomb))
    edits: dict[str, bytes] = {
        "flags": b"\x80" + good[1:],
        "base-names-without-base": b"\2" + good[1:],
        "kept-none": naive.layout(GOOD, kept=[0]).replace(b"\1\0\1\0\0", b"\0\1\0\0"),
        "kept-number": naive.layout(GOOD, kept=[1]),
        "kept-descending": naive.layout([GOOD[0], raw("U8", [1], "x")], kept=[1, 0]),
        "name-with-parent": naive.layout([naive.Coded("a/../b", "U8", (0,), b"")]),
        "name-with-nul": naive.layout([naive.Coded("a\0b", "U8", (0,), b"")]),
        "path-is-a-folder": naive.layout(GOOD, sources=[("a", 5, b"", []), ("a/b", 5, b"", [])]),
        "quality": good[:1] + b"\3" + good[2:],
        "quality-not-utf8": good[:1] + b"\2\1\xff" + good[2:],
        "digits-19": naive.layout(GOOD, digits=19),
        "dtype": good.replace(b"\1w\x0f", b"\1w\xfa"),
        "name-not-utf8": good.replace(b"\1w\x0f", b"\1\xff\x0f"),
        "name-twice": naive.layout([GOOD[0], GOOD[0]]),
        "half-byte": naive.layout([naive.Coded("w", "F4", (3,), b"")]),
        "varint-of-11-bytes": good[:2] + b"\x80" * 10 + b"\1",
        "varint-above-64-bits": good[:2] + b"\xff" * 9 + b"\2",
        "more": good + b"\0",
        "kind": naive.layout(GOOD, sources=[("", 6, b"", [0])]),
        "number-1": naive.layout(GOOD, sources=[("", 0, b"", [1])]),
        "number-negative": good[:-1] + b"\1",
        "two-sources-one-path": naive.layout(GOOD, sources=[("a", 5, b"", [])] * 2),
        "empty-path-of-two": naive.layout(GOOD, sources=[("", 5, b"", []), ("a", 5, b"", [])]),
    }
    for name, layout in edits.items():
        yield ErrorCase(f"layout-{name}", CORRUPT, "section 2.3", with_layout(layout))
    for i, path in enumerate(
        [
            "../x",
            "/x",
            "a/../../x",
            "a//b",
            "./a",
            "a/",
            "c:x",
            "..\\x",
            "a\0",
            "a/NUL.txt",
            "x" * 256,
        ]
    ):
        data = with_layout(naive.layout(GOOD, sources=[(path, 5, b"", [0])]))
        yield ErrorCase(f"path-{i}", CORRUPT, f"the path {path[:9]!r}", data)


def counts() -> Iterator[ErrorCase]:
    """Counts that ask for more than a reader should give, at the default limits."""
    good = naive.layout(GOOD)
    head = good[:2]
    hostile = {
        "tensors": head + naive.varint(2**32),
        "elements": naive.layout([naive.Coded("w", "U8", (2**20, 2**20), b"")]),
        "elements-of-an-empty-tensor": naive.layout([naive.Coded("w", "U8", (2**50, 0), b"")]),
        "elements-overflow": naive.layout([naive.Coded("w", "U8", (2**32, 2**32), b"")]),
        "rank": head + b"\1\1w\x0f" + naive.varint(2**40) + b"\1" * 50,
        "name": head + b"\1" + naive.varint(2**30) + b"w",
        "quality": naive.layout(GOOD, lossy="x" * 257),
        "sources": good[:-5] + naive.varint(2**40),
    }
    for name, layout in hostile.items():
        yield ErrorCase(f"count-{name}", LIMIT, f"a hostile number: {name}", with_layout(layout))
    short = {"tensors": head + naive.varint(2**20), "skeleton": good[:-3] + naive.varint(10**6)}
    short["quality"] = good[:1] + b"\2\x7f" + good[2:]
    for name, layout in short.items():
        data = with_layout(layout)
        yield ErrorCase(f"count-short-{name}", TRUNCATED, f"more {name} than bytes", data)


def with_index(index: bytes, shift: int = 0) -> bytes:
    end = naive.section(index)
    return GOOD_FILE[:INDEX] + end + naive.footer(INDEX + shift, len(end))


def indices() -> Iterator[ErrorCase]:
    """docs/format.md 2.5, 2.6."""
    good = naive.index(GOOD)
    yield ErrorCase(
        "index-length", CORRUPT, "the length of a payload", with_index(b"\6" + good[1:])
    )
    yield ErrorCase("index-more", CORRUPT, "bytes after the state digest", with_index(good + b"\0"))
    yield ErrorCase("index-short", TRUNCATED, "no state digest", with_index(good[:20]))


def block_case(
    name: str, error: str, why: str, dtype: str, n: int, payload: bytes, **options
) -> ErrorCase:
    """A file with one tensor of n units, whose only payload is at fault."""
    coded = tensor(dtype, [0] * n, payload)
    return ErrorCase(name, error, why, naive.file([coded], **options))


def blocks() -> Iterator[ErrorCase]:
    """docs/format.md 3, 3.1, 3.4 to 3.7."""
    block = naive.block
    floats = [0x3C00, 0x3C01, 0xBC02, 0x4000]
    good = naive.fields(floats, "F16", 2, w=50)
    late = naive.fields([0, *floats], "F16", 0, w=10)
    escapes = naive.integer_stream([0], s=1, m=0)
    after = 5 + len(escapes)  # where the symbols begin
    mask = naive.zero_mask([1, 0, 2, 0], 0, b"\1\2")
    chosen: dict[str, tuple[str, str, int, bytes]] = {
        "mode-21": (CORRUPT, "U8", 3, block(21, b"")),
        "block-too-long": (CORRUPT, "U8", 3, block(1, b"\0", 4)),
        "block-huge": (CORRUPT, "U8", 3, block(0, b"\0", 2**63)),
        "blocks-more": (CORRUPT, "U8", 3, block(0, b"\1\2\3") + b"\0"),
        "blocks-fewer": (TRUNCATED, "U8", 3, block(0, b"\1\2", 2)),
        "raw-short": (TRUNCATED, "U8", 3, block(0, b"\1\2")),
        "constant-short": (TRUNCATED, "F32", 3, block(1, b"\1\2\3")),
        "fields-of-integers": (CORRUPT, "I16", 4, block(4, good)),
        "fields-k-6": (CORRUPT, "F16", 4, block(4, b"\6" + good[1:])),
        "fields-k-and-z": (CORRUPT, "F16", 4, block(4, b"\5\6" + good[2:])),
        "fields-no-escapes-promised": (
            CORRUPT,
            "F16",
            5,
            block(4, late[:4] + b"\0" + late[after:]),
        ),
        "fields-escapes-above-n": (
            CORRUPT,
            "F16",
            5,
            block(4, late[:4] + b"\6" + naive.integer_stream([0] * 6, s=1, m=0) + late[after:]),
        ),
        "fields-escape-too-large": (
            CORRUPT,
            "F16",
            5,
            block(4, late[:5] + naive.integer_stream([32], s=1, m=0) + late[after:]),
        ),
        "fields-window-too-high": (CORRUPT, "F16", 4, block(4, b"\2\0\xff\xff" + good[4:])),
        "fields-planes-short": (TRUNCATED, "F16", 4, block(4, good[:-1])),
        "palette-descending": (
            CORRUPT,
            "U8",
            3,
            block(5, b"\1\2\1" + naive.symbol_stream([0, 1, 0])),
        ),
        "palette-equal": (CORRUPT, "U8", 3, block(5, b"\1\1\1" + naive.symbol_stream([0, 1, 0]))),
        "palette-index": (CORRUPT, "U8", 3, block(5, b"\1\1\2" + naive.symbol_stream([0, 2, 0]))),
        "zero-mask-of-none": (CORRUPT, "U8", 4, block(6, b"\0" + mask[1:])),
        "zero-mask-of-all": (CORRUPT, "U8", 4, block(6, b"\4\0\x0f\0\1\1\1\1")),
        "zero-mask-count": (CORRUPT, "U8", 4, block(6, b"\3" + mask[1:] + b"\3")),
        "zero-mask-mode": (CORRUPT, "U8", 4, block(6, mask[:3] + b"\6" + mask[4:])),
    }
    for name, (error, dtype, n, payload) in chosen.items():
        yield block_case(name, error, "sections 3.1, 3.4 to 3.7", dtype, n, payload)


def stream_blocks() -> Iterator[ErrorCase]:
    """docs/format.md 3.2, 3.3."""
    symbols = [1, 2, 3, 1, 1, 1] * 40
    n = len(symbols)
    good = naive.symbol_stream(symbols, kind=3)
    table = len(naive.frequency_table(naive.frequencies(symbols, 10)))
    words = 2 + table  # where the number of words is; it takes one byte
    assert good[words] < 127
    state = good[words + 1 : words + 5]
    more = good[:words] + bytes([good[words] + 1]) + good[words + 1 :] + b"\0\0"
    less = good[:words] + bytes([good[words] - 1]) + good[words + 1 : -2]
    edits: dict[str, tuple[str, bytes]] = {
        "stream-kind-4": (CORRUPT, b"\4" + good[1:]),
        "rans-sum-2-7": (CORRUPT, b"\3\7" + good[2:]),
        "rans-sum-2-13": (CORRUPT, b"\3\x0d" + good[2:]),
        "rans-table-backwards": (CORRUPT, good[:2] + b"\3\1" + good[4:]),
        "rans-table-sum": (CORRUPT, b"\3\x0b" + good[2:]),
        "rans-frequency-4096": (
            CORRUPT,
            b"\3\x0c\1\1" + naive.bits([(13, 4), (0, 12)]) + good[words:],
        ),
        "rans-low-state": (
            CORRUPT,
            good[: words + 1] + struct.pack("<I", 65535) + good[words + 5 :],
        ),
        "rans-wrong-state": (
            CORRUPT,
            good[: words + 1] + bytes([state[0] ^ 1]) + good[words + 2 :],
        ),
        "rans-words-left": (CORRUPT, more),
        "rans-words-missing": (CORRUPT, less),
        "rans-words-huge": (CORRUPT, good[:words] + naive.varint(2**62) + good[words + 1 :]),
        "rans-short": (TRUNCATED, good[:-1]),
    }
    for name, (error, stream) in edits.items():
        yield block_case(name, error, "section 3.2", "U8", n, naive.block(7, stream))
    base = [raw("U8", [0] * 4)]
    digest = naive.state_digest(base)
    steps = b"\1\0\0"  # one context
    integers: dict[str, tuple[str, bytes]] = {
        "integers-s-8": (CORRUPT, b"\x08\0" + naive.symbol_stream([0] * 4) + b"\0"),
        "integers-m-above-s": (CORRUPT, b"\1\2" + naive.symbol_stream([0] * 4) + b"\0"),
        "integers-token-too-large": (
            CORRUPT,
            b"\0\0" + naive.symbol_stream([255] * 4) + b"\x7f" + bytes(127),
        ),
        "integers-extra-short": (CORRUPT, b"\0\0" + naive.symbol_stream([5] * 4) + b"\1\0"),
        "integers-extra-long": (CORRUPT, b"\0\0" + naive.symbol_stream([5] * 4) + b"\3" + bytes(3)),
        "integers-extra-missing": (TRUNCATED, b"\0\0" + naive.symbol_stream([5] * 4) + b"\2\0"),
        "integers-above-width": (CORRUPT, naive.integer_stream([256, 0, 0, 0])),
    }
    for name, (error, stream) in integers.items():
        coded = tensor("U8", [0] * 4, naive.block(9, steps + stream))
        yield ErrorCase(
            name, error, "section 3.3", naive.file([coded], base=digest), naive.file(base)
        )


def copies() -> Iterator[ErrorCase]:
    """docs/format.md 3.1, tensor copies."""
    copy = {n: naive.block(2, naive.varint(n)) for n in range(3)}
    a = raw("U8", [1, 2], "a")
    b = naive.Coded("b", "U8", (2,), a.data, [copy[0]])
    chosen = {
        "copy-of-itself": [naive.Coded("a", "U8", (2,), a.data, [copy[0]])],
        "copy-of-a-later-one": [naive.Coded("b", "U8", (2,), a.data, [copy[1]]), a],
        "copy-of-a-copy": [a, b, naive.Coded("c", "U8", (2,), a.data, [copy[1]])],
        "copy-of-another-shape": [a, naive.Coded("b", "U8", (1, 2), a.data, [copy[0]])],
        "copy-of-another-dtype": [a, naive.Coded("b", "I8", (2,), a.data, [copy[0]])],
        "copy-in-part": [a, naive.Coded("b", "U8", (2,), a.data, [naive.block(2, b"\0", 1) * 2])],
    }
    for name, tensors in chosen.items():
        data = naive.file(tensors, kept=range(len(tensors)))
        yield ErrorCase(name, CORRUPT, "section 3.1", data)
    yield ErrorCase("copy-of-one-not-kept", CORRUPT, "section 2.3", naive.file([a, b]))


def bases() -> Iterator[ErrorCase]:
    """Updates, docs/format.md 3.8, 3.9."""
    held = [raw("U8", [5] * 4), raw("F16", [0x3C00] * 4, "f")]
    digest = naive.state_digest(held)
    data = naive.file([tensor("U8", [5] * 4, naive.block(3, b""))], base=digest)
    yield ErrorCase("base-missing", BASE, "an update without its base", data)
    other = naive.file([raw("U8", [6] * 4)])
    yield ErrorCase("base-other", BASE, "an update and another base", data, other)
    yield block_case("base-mode-without-base", CORRUPT, "section 3", "U8", 4, naive.block(3, b""))
    lacking = tensor("U8", [5] * 4, naive.block(3, b""), name="x")
    four = naive.integer_stream([0] * 4)
    chosen: dict[str, tuple[str, str, bytes]] = {
        "steps-no-contexts": ("f", "F16", naive.block(9, b"\0\0\0" + four)),
        "steps-17-contexts": ("f", "F16", naive.block(9, b"\x11\0\0" + four)),
        "steps-contexts-of-integers": ("w", "U8", naive.block(9, b"\2\0\0" + four)),
        "sparse-none": ("w", "U8", naive.block(10, b"\0" + naive.integer_stream([0]))),
        "sparse-all": ("w", "U8", naive.block(10, b"\4" + four + b"\1\0\0" + four)),
        "sparse-gap": (
            "w",
            "U8",
            naive.block(
                10, b"\1" + naive.integer_stream([4]) + b"\1\0\0" + naive.integer_stream([1])
            ),
        ),
        "sparse-gap-huge": (
            "w",
            "U8",
            naive.block(
                10,
                b"\2"
                + naive.integer_stream([2**64 - 1] * 2)
                + b"\1\0\0"
                + naive.integer_stream([1] * 2),
            ),
        ),
    }
    yield ErrorCase(
        "base-lacks-the-tensor",
        CORRUPT,
        "a base mode for a tensor that the base lacks",
        naive.file([lacking], base=digest),
        naive.file(held),
    )
    for name, (of, dtype, payload) in chosen.items():
        coded = tensor(dtype, [0] * 4, payload, name=of)
        yield ErrorCase(
            name, CORRUPT, "sections 3.8, 3.9", naive.file([coded], base=digest), naive.file(held)
        )


def decimals() -> Iterator[ErrorCase]:
    """docs/format.md 3.10."""
    good = naive.decimal([1, 2, 3], {1: 0x7F800000}, 32)
    packed = lzma.compress(bytes(24))

    def with_xz(xz: bytes) -> bytes:
        return naive.block(13, b"\0" + naive.varint(len(xz)) + xz)

    wants_more = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**30}]
    chosen: dict[str, tuple[str, str, bytes]] = {
        "decimal-of-integers": (CORRUPT, "I32", naive.block(11, good)),
        "decimal-exception-outside": (CORRUPT, "F32", naive.block(11, b"\1\3" + good[2:])),
        "decimal-exceptions-above-n": (
            CORRUPT,
            "F32",
            naive.block(11, b"\4" + b"\0\0\0\0\0" * 4 + good[6:]),
        ),
        "decimal-short": (TRUNCATED, "F32", naive.block(11, good[:-1])),
        "xz-garbage": (CORRUPT, "F32", with_xz(b"\xfd7zXZ\0" + bytes(40))),
        "xz-cut": (CORRUPT, "F32", with_xz(packed[:-9])),
        "xz-few": (CORRUPT, "F32", with_xz(lzma.compress(bytes(16)))),
        "xz-many": (CORRUPT, "F32", with_xz(lzma.compress(bytes(10**6)))),
        "xz-two": (CORRUPT, "F32", with_xz(packed + packed)),
        "xz-dictionary": (CORRUPT, "F32", with_xz(lzma.compress(bytes(24), filters=wants_more))),
        "xz-short": (TRUNCATED, "F32", with_xz(packed)[:-1]),
    }
    for name, (error, dtype, payload) in chosen.items():
        yield block_case(name, error, "section 3.10", dtype, 3, payload, digits=3)
    yield block_case(
        "decimal-in-lossless", CORRUPT, "section 3.10", "F32", 3, naive.block(11, good)
    )
