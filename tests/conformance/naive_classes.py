"""Classed fields (docs/format.md 3.14): golden files, and files that every decoder must refuse."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import naive_encoder as naive
from hand_made import Case, tensor, weights
from hand_made_errors import CORRUPT, TRUNCATED, ErrorCase, block_case


@dataclass
class Classed:
    """A block of classed fields."""

    dtype: str
    units: Sequence[int]
    K: int
    rows: Sequence[int]
    columns: Sequence[int]
    o: int = 0
    lists: int = 0  # kind of the two streams
    options: dict = field(default_factory=dict)

    def contexts(self) -> list[int]:
        """The class of each unit."""
        c = len(self.columns)
        places = [divmod(self.o + i, c) for i in range(len(self.units))]
        return [min(self.rows[row] + self.columns[col], self.K - 1) for row, col in places]

    def classes(self) -> bytes:
        """What 3.4 does not have."""
        out = naive.varint(len(self.columns)) + naive.varint(self.o) + bytes([self.K])
        lists = (self.rows, self.columns)
        return out + b"".join(naive.symbol_stream(part, kind=self.lists) for part in lists)

    def content(self) -> bytes:
        """The block after its mode and count."""
        options = {"k": 2, "kind": 2, **self.options}
        return naive.fields(
            self.units,
            self.dtype,
            classes=self.classes(),
            contexts=self.contexts(),
            count=self.K,
            **options,
        )

    def block(self, count: int = 0) -> bytes:
        """The whole block."""
        return naive.block(18, self.content(), count)

    def changed(self, **changes) -> Classed:
        """Another block."""
        return replace(self, **changes)


def window(dtype: str, k: int) -> int:
    """A start of the window that leaves some top fields of `weights` outside."""
    return max((2 ** (naive.FLOATS[dtype][0] - 1) - 4 << k) - 250, 0)


def made(dtype: str, n: int, c: int, o: int, K: int, **options) -> Classed:
    """Random classes."""
    rng = random.Random(f"{dtype} {n} {c} {o} {K}")
    rows = rng.choices(range(K + 1), k=-(-(o + n) // c))
    columns = rng.choices((0, 0, 1, 15), k=c)
    options = {"w": window(dtype, options.get("k", 2)), **options}
    return Classed(dtype, weights(dtype, n), K, rows, columns, o, options=options)


def class_cases() -> Iterator[Case]:
    """All golden files."""
    blocks = {f"{dtype.lower()}": made(dtype, 600, 23, 11, 4) for dtype in naive.FLOATS}
    blocks |= {f"k-{k}": made("F32", 300, 40, 39, 3, k=k, z=0) for k in (0, 5)}
    blocks |= {f"{K}": made("BF16", 400, 17, 3, K) for K in (2, 5, 8)}
    blocks |= {
        "one-lane": made("F16", 300, 10, 9, 8, kind=3, scale=11),
        "stream-raw": made("BF16", 90, 10, 0, 3, kind=0),
        "rans-lists": made("BF16", 300, 12, 5, 3).changed(lists=3),
        "one-column": made("BF16", 200, 1, 0, 4),
        "one-row": made("BF16", 200, 200, 0, 4),
        "long-row": made("BF16", 100, 5000, 4950, 4),
        "pieces": made("BF16", 17_000, 1003, 1000, 4).changed(lists=2),
        "unused": made("BF16", 60, 60, 0, 8).changed(rows=[0], columns=[0] * 60),
    }
    few = made("BF16", 99, 9, 0, 2, kind=1, k=0)
    blocks["stream-constant"] = few.changed(units=[0x3F80, 0xBF81, 0x3FFF] * 33)
    for name, block in blocks.items():
        coded = tensor(block.dtype, block.units, block.block())
        yield Case(f"classed-fields-{name}", "classed fields", [coded])
    first, last = made("F16", 50, 20, 0, 3), made("F16", 70, 20, 15, 4)
    units = [*first.units, *[7] * 5, *last.units]
    payload = first.block(50) + naive.block(1, b"\7\0", 5) + last.block()
    coded = tensor("F16", units, payload)
    yield Case("classed-fields-blocks", "classed fields between other blocks", [coded])


def class_error_cases() -> Iterator[ErrorCase]:
    """All files that are wrong."""
    units = [0x3C00, 0x3C01, 0xBC02, 0x4000]
    block = Classed("F16", units, 2, [0, 1], [1, 0], options={"w": 50})
    good = block.content()
    assert good[4:13] == b"\2\0\2" + b"\0\0\1" + b"\0\1\0"
    three = block.changed(K=3).content()
    wide = naive.varint(2**18 + 1) + b"\0\2" + b"\1\0" * 2
    contents = {
        "columns-none": good[:4] + b"\0\0" + good[6:],
        "column-outside": good[:4] + b"\2\2" + good[6:],
        "columns-2-62": good[:4] + naive.varint(2**62) + good[5:],
        "columns-262145": good[:4] + wide + good[13:],
        "classes-0": good[:6] + b"\0" + good[7:],
        "classes-1": good[:6] + b"\1" + good[7:],
        "classes-9": good[:6] + b"\x09" + good[7:],
        "row-class-16": good[:8] + b"\x10" + good[9:],
        "column-class-16": good[:11] + b"\x10" + good[12:],
        "other-contexts": three[:6] + b"\2" + three[7:],
        "escapes-above-n": good[:13] + b"\5" + naive.integer_stream([0] * 5, s=1, m=0) + good[14:],
        "more": good + b"\0",
    }
    for name, content in contents.items():
        payload = naive.block(18, content)
        why = "section 3.14"
        yield block_case(f"classed-fields-{name}", CORRUPT, why, "F16", 4, payload)
    for end in (5, 6, 7, 9, 12, 13, 14, 18, len(good) - 1):
        payload = naive.block(18, good[:end])
        yield block_case(
            f"classed-fields-short-{end}", TRUNCATED, "section 3.14", "F16", 4, payload
        )
    payload = naive.block(18, good)
    yield block_case("classed-fields-of-i16", CORRUPT, "section 3.14", "I16", 4, payload)
    masked = naive.block(6, naive.zero_mask([*units, 0], 18, good))
    yield block_case("classed-fields-in-mask", CORRUPT, "section 3.6", "F16", 5, masked)
