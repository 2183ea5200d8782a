"""Files that every decoder must refuse: levels and base palettes, docs/format.md 3.11 to 3.13."""

from __future__ import annotations

from collections.abc import Iterator

import naive_encoder as naive
from hand_made import raw, tensor
from hand_made_errors import BASE, CORRUPT, TRUNCATED, ErrorCase, block_case
from hand_made_levels import level_list
from naive_levels import Levels, base_palette

NAN = 0x7FC00000


def level_error_cases() -> Iterator[ErrorCase]:
    """All of them."""
    yield from heads()
    yield from structures()
    yield from streams()
    yield from adaptive()
    yield from against_base()
    yield from layers()


def heads() -> Iterator[ErrorCase]:
    """Flags, step, exceptions, columns."""
    block = Levels("F32", [1, 2, 3, -4])
    good = block.content()
    assert good[4:7] == b"\0\4\0"  # no exceptions, four columns, the first one
    rest = good[4:]
    contents = {
        "flag-32": bytes([32]) + good[1:],
        "flag-128": bytes([128]) + good[1:],
        "classes-3": bytes([12]) + good[1:],
        "classes-of-no-base": bytes([8]) + good[1:7] + b"\1\0\0" + good[7:],
        "step-zero": b"\0\0\0\0" + rest,
        "step-subnormal": b"\0\0\x40\0" + rest,
        "step-infinite": b"\0\0\x80\x7f" + rest,
        "step-nan": b"\0\0\xc0\x7f" + rest,
        "step-negative": b"\0\0\x80\xbc" + rest,
        "step-of-13-bits": b"\0\x08\x80\x3c" + rest,
        "exception-outside": good[:4] + b"\1\4\0\0\0\0" + good[5:],
        "exceptions-above-n": good[:4] + b"\5" + b"\0\0\0\0\0" * 5 + good[5:],
        "columns-none": good[:5] + b"\0\0" + good[7:],
        "column-outside": good[:5] + b"\4\4" + good[7:],
        "columns-2-62": good[:5] + naive.varint(2**62) + b"\0" + good[7:],
        "column-2-64": good[:5] + naive.varint(2**64 - 1) + naive.varint(2**64 - 2) + good[7:],
    }
    for name, content in contents.items():
        payload = naive.block(15, content)
        yield block_case(f"levels-{name}", CORRUPT, "section 3.11", "F32", 4, payload)
    for dtype in ("I32", "F8_E5M2"):
        payload = naive.block(15, good)
        name = f"levels-of-{dtype.lower()}"
        yield block_case(name, CORRUPT, "section 3.11", dtype, 4, payload)
    for end in (1, 3, 4, 5, 6, len(good) - 1):
        payload = naive.block(15, good[:end])
        yield block_case(f"levels-short-{end}", TRUNCATED, "section 3.11", "F32", 4, payload)


def structures() -> Iterator[ErrorCase]:
    """Row scales and classes."""
    scaled = Levels("F32", [1, 2, 3, -4], c=2, scales=[128, 129])
    good = scaled.content()
    assert good[7:10] == b"\0\x80\x81"
    ends = {"rows-short": good[:9], "rows-none": good[:7]}
    for name, content in ends.items():
        payload = naive.block(15, content)
        yield block_case(f"levels-{name}", TRUNCATED, "section 3.11", "F32", 4, payload)
    classes = scaled.changed(scales=(), by_rows=(3, [0, 1], [2, 0]))
    good = classes.content()
    assert good[7:14] == b"\3\0\0\1\0\2\0"
    huge = naive.varint(2**18 + 1) + b"\0\3" + b"\1\0" * 2 + good[14:]
    contents = {
        "classes-none": good[:7] + b"\0" + good[8:],
        "classes-9": good[:7] + b"\x09" + good[8:],
        "row-class-16": good[:9] + b"\x10" + good[10:],
        "column-class-16": good[:12] + b"\x10" + good[13:],
        "classes-of-262145-columns": good[:5] + huge,
        "unused-column-class": classes.changed(
            c=9, by_rows=(3, [0], [0, 0, 0, 0, 16, 0, 0, 0, 0])
        ).content(),
    }
    for name, content in contents.items():
        payload = naive.block(15, content)
        yield block_case(f"levels-{name}", CORRUPT, "section 3.11", "F32", 4, payload)
    payload = naive.block(15, good[:12])
    yield block_case("levels-columns-short", TRUNCATED, "section 3.11", "F32", 4, payload)


def streams() -> Iterator[ErrorCase]:
    """The levels themselves."""
    block = Levels("F32", level_list(60))
    far = {1: 0x3F800000}
    blocks = {
        "large": block.changed(q=[1, 2**29, 0]),
        "large-dependent": block.changed(q=[1, 0, -(2**28) - 1], dependent=True),
        "large-in-exception": block.changed(q=[1, 2**29, 0], exceptions=far),
        "far-too-large": block.changed(q=[1, 2**31 - 1, -(2**31)], dependent=True),
        "above-width": block.changed(q=[1, 2**31, 0]),
    }
    for name, bad in blocks.items():
        yield block_case(f"levels-{name}", CORRUPT, "section 3.11", "F32", bad.n, bad.block())
    good = block.changed(dependent=True, by_rows=(2, [1], [0] * 60)).content()
    bad = bytes([good[0] & ~1]) + good[1:]  # half of the tables are left over
    yield block_case(
        "levels-other-contexts", CORRUPT, "section 3.11", "F32", 60, naive.block(15, bad)
    )


def adaptive() -> Iterator[ErrorCase]:
    """docs/format.md 3.13."""
    block = Levels("F32", level_list(60), c=10, adaptive=True)
    head = block.head()
    size, code = block.content()[len(head)], block.content()[len(head) + 1 :]
    assert size == len(code) < 127

    def coded(changed: bytes) -> bytes:
        return head + naive.varint(len(changed)) + changed

    large = block.changed(q=[2**28 + 2, 1, 1], dependent=True, c=3)
    cases = {
        "length-0": (CORRUPT, coded(b"")),
        "length-1": (CORRUPT, coded(code[:1])),
        "scale-216": (CORRUPT, coded(b"\xd8" + code[1:])),
        "range": (CORRUPT, coded(code[:1] + b"\xff" * 4 + code[5:])),
        "more": (CORRUPT, coded(code + b"\0")),
        "fewer": (CORRUPT, coded(code[:-1])),
        "outside": (TRUNCATED, head + bytes([size + 1]) + code),
        "huge": (TRUNCATED, head + naive.varint(2**60) + code),
    }
    for name, (error, content) in cases.items():
        payload = naive.block(15, content)
        yield block_case(f"levels-adaptive-{name}", error, "section 3.13", "F32", 60, payload)
    payload = large.block()
    yield block_case("levels-adaptive-large", CORRUPT, "section 3.11", "F32", 3, payload)


def against_base() -> Iterator[ErrorCase]:
    """What needs a base."""
    q = [1, 0, 2, 0]
    base = [0x3F800000, NAN, 0xBF800000, 0xFF800000]
    good = Levels("F32", q, base=base)
    held = [raw("F32", base)]
    digest, held_file = naive.state_digest(held), naive.file(held)
    entries = [0, 0x3C000000]
    exponents = good.changed(by_exponents=(2, 120)).content()
    payloads = {
        "base-levels-classes-none": exponents[:7] + b"\0" + exponents[8:],
        "base-levels-classes-9": exponents[:7] + b"\x09" + exponents[8:],
        "base-levels-flag-128": bytes([128]) + good.content()[1:],
    }
    for name, content in payloads.items():
        coded = tensor("F32", base, naive.block(16, content))
        data = naive.file([coded], base=digest)
        yield ErrorCase(name, CORRUPT, "section 3.11", data, held_file)
    chosen = [entries[1], 0, entries[1], 0]
    content = base_palette(chosen, {}, 32)
    assert content[:2] == b"\0\1"
    palettes = {
        "nan": (CORRUPT, base_palette([NAN, 0, 0, 0], {0: 1}, 32)),
        "infinity": (CORRUPT, base_palette([0, 0, 0xFF800000, 0], {}, 32)),
        "exception-outside": (CORRUPT, b"\1\4\0\0\0\0" + content[1:]),
        "descending": (CORRUPT, content[:2] + content[6:10] + content[2:6] + content[10:]),
        "index": (CORRUPT, content[:11] + b"\2" + content[12:]),
        "short": (TRUNCATED, content[:9]),
    }
    for name, (error, bad) in palettes.items():
        coded = tensor("F32", base, naive.block(17, bad))
        data = naive.file([coded], base=digest)
        yield ErrorCase(f"base-palette-{name}", error, "section 3.12", data, held_file)
    for mode, body in ((16, good.content()), (17, content)):
        payload = naive.block(mode, body)
        name = f"mode-{mode}-without-base"
        yield block_case(name, CORRUPT, "section 3", "F32", 4, payload)
    whole = [raw("I32", base)]
    coded = tensor("I32", base, naive.block(17, content))
    data = naive.file([coded], base=naive.state_digest(whole))
    yield ErrorCase("base-palette-of-i32", CORRUPT, "section 3.12", data, naive.file(whole))


def layers() -> Iterator[ErrorCase]:
    """docs/format.md 7."""
    first = [raw("U8", [1, 2])]
    same = [tensor("U8", [1, 2], naive.block(3, b""))]
    digest = naive.state_digest(first)
    start, more = naive.file(first), naive.file(same, base=digest)
    other = naive.file(same, base=naive.state_digest([raw("U8", [3, 4])]))
    cases = {
        "other-base": (BASE, start + other),
        "17": (CORRUPT, start + more * 16),
        "gap": (CORRUPT, start + b"\0" + more),
        "first-needs-base": (BASE, more + more),
    }
    for name, (error, data) in cases.items():
        count = 2 if name == "other-base" else 1
        yield ErrorCase(f"layers-{name}", error, "section 7", data, layers=count)
