"""Repeats and unsigned fields (docs/format.md 3.4, 3.15): golden files, and files to refuse."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import naive_encoder as naive
from hand_made import Case, tensor, weights
from hand_made_errors import CORRUPT, TRUNCATED, ErrorCase, block_case


@dataclass
class Repeats:
    """A block of repeats; `kinds` where they shall not be those of the units."""

    dtype: str
    units: Sequence[int]
    columns: int
    of_rows: dict[int, int]
    common: int | None = None
    first: int = 0
    mode: int = 0
    kinds: list[int] | None = None
    flags: int | None = None
    count: int | None = None
    more_rows: int = 0  # that are promised and not there
    options: dict = field(default_factory=dict)

    def own_kinds(self) -> list[int]:
        """0 zero, 1 in full, 2 common, 3 the row's."""
        kinds = []
        for i, u in enumerate(self.units):
            row = self.of_rows.get((self.first + i) // self.columns)
            kinds.append(0 if u == 0 else 2 if u == self.common else 3 if u == row else 1)
        return kinds

    def content(self) -> bytes:
        """The block after its mode and count."""
        width = naive.WIDTHS[self.dtype]
        size = width // 8
        rows = -(-(self.first + len(self.units)) // self.columns)
        kinds = self.own_kinds() if self.kinds is None else self.kinds
        full = [u for u, kind in zip(self.units, self.own_kinds(), strict=True) if kind == 1]
        flags = self.common is not None if self.flags is None else self.flags
        out = naive.varint(self.columns) + naive.varint(self.first) + bytes([flags])
        out += b"" if self.common is None else self.common.to_bytes(size, "little")
        which = naive.bits([(int(row in self.of_rows), 1) for row in range(rows)])
        out += naive.varint(len(self.of_rows) + self.more_rows)
        out += naive.symbol_stream(list(which))
        out += b"".join(self.of_rows[row].to_bytes(size, "little") for row in sorted(self.of_rows))
        out += naive.varint(len(full) if self.count is None else self.count)
        packed = naive.bits([(kind, 2) for kind in kinds])
        out += naive.symbol_stream(list(packed), **self.options)
        if not full:
            return out
        if self.mode == 0:
            coded = naive.pack(full, width)
        elif self.mode == 4:
            coded = naive.fields(full, self.dtype, 1)
        elif self.mode == 5:
            coded = naive.palette(full, width)
        else:
            coded = naive.planes(full, width)
        return out + bytes([self.mode]) + coded


def block(dtype: str = "F32", n: int = 150, columns: int = 20, **more) -> Repeats:
    """Rows of which some have a value that repeats, and some units the common one."""
    rng = random.Random(columns)
    values = weights(dtype, n + 40)
    of_rows = {row: values[n + row] or 1 for row in range(0, 30, 3) if row * columns < n}
    first = more.get("first", 0)
    of_rows = {r: v for r, v in of_rows.items() if r < -(-(first + n) // columns)}
    common = more.pop("common", values[-1] or 2)
    units = []
    for i in range(n):
        own, row = values[i], of_rows.get((first + i) // columns, 0)
        units.append(rng.choice([0, own, row, own if common is None else common]))
    return Repeats(dtype, units, columns, of_rows, common, **more)


def repeat_cases() -> Iterator[Case]:
    """Files that must decode."""
    made = {f"mode-{mode}": block(mode=mode) for mode in (0, 4, 5, 7)}
    made |= {dtype.lower(): block(dtype) for dtype in ("F64", "F16", "BF16", "C64")}
    made |= {dtype.lower(): block(dtype, mode=7) for dtype in ("U8", "I16")}
    made["no-common"] = block(common=None)
    made["first"] = block(first=13, columns=17)
    made["one-row"] = block(columns=1000)
    made["long-row"] = block(columns=2**61)
    made["one-column"] = block(columns=1, n=25)
    made["rans"] = block(n=2000, columns=100, options={"kind": 2})
    zeros = [0, 0, 5, 5, 5, 0, 9]
    made["none-in-full"] = Repeats("F32", zeros, 4, {0: 5, 1: 5}, 9)
    for name, one in made.items():
        coded = tensor(one.dtype, one.units, naive.block(19, one.content()))
        yield Case(f"repeats-{name}", "repeats", [coded])
    for dtype, k, z in [("F32", 1, 0), ("F32", 3, 0), ("F32", 1, 2), ("F64", 2, 0), ("F16", 2, 0),
                        ("BF16", 1, 0), ("BF16", 7 - 4, 2), ("BF16", 3, 4)]:  # fmt: skip
        width = naive.WIDTHS[dtype]
        units = [u % 2 ** (width - 1) >> z << z for u in weights(dtype, 300)]
        content = naive.fields(units, dtype, k, z, unsigned=True)
        name = f"fields-unsigned-{dtype.lower()}-{k}-{z}"
        yield Case(name, "unsigned fields", [tensor(dtype, units, naive.block(4, content))])


def repeat_error_cases() -> Iterator[ErrorCase]:
    """Files that must be refused."""
    good = block(n=40, columns=10)
    content = good.content()
    kinds = good.own_kinds()
    lonely = kinds.index(1)  # a unit in full, made a row's value in a row that has none
    rowless = next(i for i, kind in enumerate(kinds) if i // 10 not in good.of_rows and kind == 1)
    changed = {
        "flags": (CORRUPT, replace(good, flags=2)),
        "rows": (CORRUPT, replace(good, more_rows=1)),
        "count-above-n": (CORRUPT, replace(good, count=41)),
        "count-above": (CORRUPT, replace(good, kinds=[*kinds[:lonely], 0, *kinds[lonely + 1 :]])),
        "count-below": (CORRUPT, replace(good, kinds=[1] * 40)),
        "row-without-value": (
            CORRUPT,
            replace(good, kinds=[*kinds[:rowless], 3, *kinds[rowless + 1 :]]),
        ),
        "no-common": (
            CORRUPT,
            replace(good, common=None, units=[1] * 40, kinds=[2] + [1] * 39, count=39),
        ),
    }
    for name, (error, one) in changed.items():
        yield bad(f"repeats-{name}", error, one.dtype, 40, one.content())
    yield bad("repeats-columns-none", CORRUPT, "F32", 40, b"\0" + content[1:])
    yield bad("repeats-first-outside", CORRUPT, "F32", 40, content[:1] + b"\x0a" + content[2:])
    full = content.rindex(
        naive.pack([u for u, k in zip(good.units, kinds, strict=True) if k == 1], 32)
    )
    yield bad("repeats-mode", CORRUPT, "F32", 40, content[: full - 1] + b"\6" + content[full:])
    for size in (2, 4, 8, 12, full - 1, len(content) - 1):
        yield bad(f"repeats-short-{size}", TRUNCATED, "F32", 40, content[:size])
    even = naive.fields([0x3C00, 0x3C01, 0x4000], "F16", 1)
    even = bytes([even[0] | 128]) + even[1:]
    yield block_case(
        "fields-unsigned-even", CORRUPT, "3.4: r is even", "F16", 3, naive.block(4, even)
    )


def bad(name: str, error: str, dtype: str, n: int, content: bytes) -> ErrorCase:
    return block_case(name, error, "section 3.15", dtype, n, naive.block(19, content))
