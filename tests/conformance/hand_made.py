"""The golden files whose blocks are written by hand, one for each feature of docs/format.md."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import naive_encoder as naive


@dataclass
class Case:
    """One folder of tests/golden."""

    name: str
    feature: str
    tensors: list[naive.Coded]
    base: list[naive.Coded] | None = None
    options: dict = field(default_factory=dict)
    below: list[list[naive.Coded]] = field(default_factory=list)  # the layers before (section 7)

    def files(self) -> dict[str, bytes]:
        options = dict(self.options)
        files = {}
        if self.base is not None:
            files["base.limosa"] = naive.file(self.base)
            options["base"] = naive.state_digest(self.base)
        data = b""
        for layer in self.below:
            data += naive.file(layer, **options)
            options["base"] = naive.state_digest(layer)
        return {"file.limosa": data + naive.file(self.tensors, **options), **files}


def tensor(dtype: str, units: list[int], *payloads: bytes, name: str = "w") -> naive.Coded:
    """A flat tensor with these units."""
    elements = len(units) // 2 if dtype == "C64" else len(units)
    return naive.Coded(
        name, dtype, (elements,), naive.pack(units, naive.WIDTHS[dtype]), list(payloads)
    )


def raw(dtype: str, units: list[int], name: str = "w") -> naive.Coded:
    """A flat tensor in one raw block."""
    data = naive.pack(units, naive.WIDTHS[dtype])
    return tensor(dtype, units, naive.block(0, data), name=name)


def weights(dtype: str, n: int, seed: int = 0) -> list[int]:
    """Units like those of a trained layer, with the special values of floats among them."""
    rng = random.Random(f"{dtype} {seed}")
    E, M = naive.FLOATS.get(dtype, (0, 0))
    if not E:
        return [rng.getrandbits(naive.WIDTHS[dtype]) for _ in range(n)]
    middle = 2 ** (E - 1) - 5
    units = [
        (rng.getrandbits(1) << E | middle - rng.choice((0, 0, 0, 1, 1, 2, 3, 4))) << M
        | rng.getrandbits(M)
        for _ in range(n)
    ]
    infinity = (2**E - 1) << M
    # 0, -0, both infinities, both kinds of NaN, the smallest subnormal
    special = [
        0,
        1 << E + M,
        infinity,
        infinity | 1 << E + M,
        infinity + 1,
        infinity + 2 ** (M - 1),
        1,
    ]
    for i, unit in enumerate(special):
        units[5 * i + 3] = unit
    return units


def nudged(units: list[int], seed: int = 1) -> list[int]:
    """Nearly the same units."""
    rng = random.Random(seed)
    return [u + rng.choice((-2, -1, 0, 0, 1)) if 2 < u % 256 < 254 else u for u in units]


def cases() -> Iterator[Case]:
    """All of them."""
    yield from container()
    yield from plain_blocks()
    yield from streams()
    yield from float_blocks()
    yield from base_blocks()
    yield from decimals()


def container() -> Iterator[Case]:
    """docs/format.md 2."""
    for method in (0, 1):
        name = ("stored", "deflated")[method]
        yield Case(
            f"sections-{name}", f"{name} sections", [raw("U8", [1, 2])], None, {"method": method}
        )
    yield Case("no-tensors", "a file without tensors", [])
    shapes = [(), (0,), (3, 0, 2), (1, 1, 1, 1, 1)]
    odd = [naive.Coded(f"{s}", "I16", s, b"\1\2" * math.prod(s)) for s in shapes]
    for t in odd:
        t.payloads = [naive.block(0, t.data)] if t.data else []
    yield Case("shapes", "tensors of rank 0, of rank 5, and empty ones", odd)
    names = ["", "größe", "重み", "/a//b.", "\n\x7f", "x" * 4096]
    yield Case("names", "names are any UTF-8", [raw("U8", [i], n) for i, n in enumerate(names)])
    sources = [
        ("model/a.safetensors", 1, b"skeleton", [2, 0]),
        ("b.npz", 2, b"", [1]),
        ("c.pt", 3, b"\0" * 300, [1]),
        ("d.onnx", 4, b"", []),
        ("e/größe.json", 5, b"{}", []),
    ]
    three = [raw("U8", [i], f"{i}") for i in range(3)]
    yield Case("sources", "sources of each kind", three, None, {"sources": sources})
    every = []
    for code, dtype in enumerate(naive.NAMES):
        units = weights(dtype, 48, code)
        one = raw(dtype, units, dtype)
        one.shape = (len(one.data) * 8 // naive.BITS[dtype],)
        every.append(one)
    yield Case("dtypes", "every dtype, in raw blocks", every)


def plain_blocks() -> Iterator[Case]:
    """docs/format.md 3, 3.1, 3.5 to 3.7."""
    big = [7] * (naive.CHUNK + 3)
    chunks = tensor("I16", big, naive.block(1, b"\7\0"), naive.block(1, b"\7\0"))
    yield Case("two-chunks", "a tensor of more than one chunk; constant blocks", [chunks])
    copy = tensor("I16", big, *[naive.block(2, naive.varint(0))] * 2, name="v")
    yield Case(
        "tensor-copy",
        "a tensor coded as the copy of an earlier one",
        [chunks, copy],
        None,
        {"kept": [0]},
    )
    units = weights("I32", 30)
    parts = naive.block(0, naive.pack(units[:10], 32), 10) + naive.block(1, b"\5\0\0\0", 15)
    parts += naive.block(7, naive.planes(units[25:], 32))
    units[10:25] = [5] * 15
    yield Case("several-blocks", "a chunk of three blocks", [tensor("I32", units, parts)])
    for dtype in ("F32", "BF16", "I64", "U8"):
        few = random.Random(1).choices(weights(dtype, 40)[:9], k=200)
        content = naive.palette(few, naive.WIDTHS[dtype], kind=2)
        yield Case(
            f"palette-{dtype.lower()}", "palette", [tensor(dtype, few, naive.block(5, content))]
        )
    all_bytes = [*range(256)] * 2
    full = naive.block(5, naive.palette(all_bytes, 8))
    yield Case("palette-256", "a palette of 256 values", [tensor("U8", all_bytes, full)])
    for mode in (0, 4, 5, 7):
        units = [u if i % 3 else 0 for i, u in enumerate(weights("F32", 99))]
        rest = [u for u in units if u]
        content = {
            0: naive.pack(rest, 32),
            4: naive.fields(rest, "F32", 1),
            7: naive.planes(rest, 32),
            5: naive.palette(rest, 32),
        }[mode]
        block = naive.block(6, naive.zero_mask(units, mode, content, kind=3))
        yield Case(
            f"zero-mask-{mode}", f"zero mask over mode {mode}", [tensor("F32", units, block)]
        )
    for dtype in ("F64", "I16"):
        units = weights(dtype, 80)
        block = naive.block(7, naive.planes(units, naive.WIDTHS[dtype], kind=2))
        yield Case(f"planes-{dtype.lower()}", "planes", [tensor(dtype, units, block)])


def streams() -> Iterator[Case]:
    """docs/format.md 3.2, 3.3."""
    rng = random.Random(7)
    for kind, scale in [(2, 8), (2, 10), (2, 12), (3, 8), (3, 12)]:
        units = [min(int(rng.expovariate(0.1)), 255) for _ in range(1003)]
        block = naive.block(7, naive.symbol_stream(units, kind=kind, scale=scale))
        name = f"rans-{32 if kind == 2 else 1}-lanes-{scale}"
        yield Case(name, f"rANS with frequencies of sum 2^{scale}", [tensor("U8", units, block)])
    for n in (1, 31, 32, 33):
        units = [rng.choice((3, 4)) for _ in range(n)]
        block = naive.block(7, naive.symbol_stream(units, kind=2))
        yield Case(f"rans-{n}-symbols", "rANS, 32 lanes, few symbols", [tensor("U8", units, block)])
    same = [9] * 70
    for kind in (1, 2, 3):
        block = naive.block(7, naive.symbol_stream(same, kind=kind, scale=11))
        yield Case(
            f"one-symbol-{kind}", f"one symbol, stream kind {kind}", [tensor("U8", same, block)]
        )
    base = weights("U64", 200)
    for s, m in [(0, 0), (1, 1), (4, 2), (7, 7), (7, 0)]:
        units = [(b + rng.getrandbits(rng.randrange(1, 40))) % 2**64 for b in base]
        if (s, m) == (7, 7):  # tokens end at 255, so only small values have one
            units = [b + rng.getrandbits(7) if b < 2**63 else b for b in base]
        block = naive.block(9, naive.steps(units, base, "U64", s=s, m=m, kind=2))
        yield Case(
            f"integers-{s}-{m}", "integer stream", [tensor("U64", units, block)], [raw("U64", base)]
        )


def float_blocks() -> Iterator[Case]:
    """docs/format.md 3.4."""
    for dtype, (E, _) in naive.FLOATS.items():
        units = weights(dtype, 600)
        for k in (0, 2, 5):
            w = max((2 ** (E - 1) - 4 << k) - 250, 0)
            block = naive.block(4, naive.fields(units, dtype, k, w=w, kind=2))
            yield Case(
                f"fields-{dtype.lower()}-{k}", f"fields, k = {k}", [tensor(dtype, units, block)]
            )
    for z in (1, 3, 7):
        units = [u >> z << z for u in weights("BF16", 100)]
        block = naive.block(4, naive.fields(units, "BF16", 0, z, kind=3))
        yield Case(
            f"fields-zeros-{z}", "fields with trailing zeros", [tensor("BF16", units, block)]
        )
    units = [u >> 16 << 16 for u in weights("F32", 100)]
    block = naive.block(4, naive.fields(units, "F32", 3, 16, w=900))
    yield Case("fields-bf16-in-f32", "16 trailing zeros", [tensor("F32", units, block)])
    units = [0x3C00, 0, 0xBC01, 0, 0x8000] * 20
    block = naive.block(4, naive.fields(units, "F16", 0, w=1))
    yield Case(
        "fields-shared-escape", "one top field for all escapes", [tensor("F16", units, block)]
    )


def base_blocks() -> Iterator[Case]:
    """docs/format.md 3.8, 3.9 and the modes of 3.1 and 3.7 that need a base."""
    for dtype in [*naive.FLOATS, "I32", "U8"]:
        base = weights(dtype, 300)
        units = nudged(base)
        held = [raw(dtype, base)]
        width = naive.WIDTHS[dtype]
        contexts, first = 1, 0
        if dtype in naive.FLOATS:
            contexts, first = 16, 2 ** (naive.FLOATS[dtype][0] - 1) - 15
        low = dtype.lower()
        blocks = {
            "base-copy": (base, naive.block(3, b"")),
            "base-planes": (units, naive.block(8, naive.base_planes(units, base, width, kind=2))),
            "base-steps": (
                units,
                naive.block(9, naive.steps(units, base, dtype, contexts, first, kind=2, m=2)),
            ),
            "base-sparse": (
                units,
                naive.block(10, naive.base_sparse(units, base, dtype, contexts, first)),
            ),
        }
        for name, (data, block) in blocks.items():
            yield Case(f"{name}-{low}", name.replace("-", " "), [tensor(dtype, data, block)], held)
    half = 2**15
    units = [0, half, 1, half + 1, half - 1, 2 * half - 1]
    base = [half, 0, half + 1, 1, 2 * half - 1, 0]
    block = naive.block(9, naive.steps(units, base, "F16"))
    yield Case(
        "base-steps-signs",
        "steps over zero and over all floats",
        [tensor("F16", units, block)],
        [raw("F16", base)],
    )
    other = [raw("U8", [1, 2]), naive.Coded("s", "U8", (1, 2), b"ab", [naive.block(0, b"ab")])]
    mine = [raw("U8", [3, 4], "new"), raw("U8", [5, 6], "s")]
    renamed = naive.Coded("v2.w", "U8", (2,), b"\1\2", [naive.block(3, b"")])
    intra = raw("U8", [3, 4])
    yield Case(
        "base-names",
        "a base tensor of another name, and none",
        [renamed, intra],
        other,
        {"base_names": ["w", None]},
    )
    yield Case("base-of-others", "tensors that the base lacks or has in another shape", mine, other)


def to_unit(value: float, E: int, M: int) -> int:
    """The nearest float of E and M bits, ties to even, found by exact fractions."""
    sign = int(math.copysign(1, value) < 0) << E + M
    exact = abs(Fraction(value)) if math.isfinite(value) else None
    bias = 2 ** (E - 1) - 1
    if exact is None or exact >= Fraction(2 ** (M + 2) - 1, 2 ** (M + 1)) * Fraction(2) ** bias:
        return sign | (2**E - 1) << M
    exponent = 1 - bias
    while exact >= Fraction(2) ** (exponent + 1):
        exponent += 1
    steps = round(exact / Fraction(2) ** (exponent - M))  # round() of a Fraction: ties to even
    return sign | ((exponent + bias - 1) << M) + steps


def to_float(unit: int, E: int, M: int) -> float:
    """The value of a finite float."""
    top, low = unit >> M & 2**E - 1, unit & 2**M - 1
    value = math.ldexp(low + (2**M if top else 0), max(top, 1) - 2 ** (E - 1) + 1 - M)
    return -value if unit >> E + M else value


def decode_decimal(w: int, digits: int, dtype: str, base: int | None) -> int:
    """What docs/format.md 3.10 makes of an integer."""
    E, M = naive.FLOATS[dtype]

    def rounded(value: float) -> int:
        if dtype != "F64":
            value = struct.unpack("<f", struct.pack("<I", to_unit(value, 8, 23)))[0]
        return to_unit(value, E, M)

    unit = rounded(float(w) / 10.0**digits)
    return unit if base is None else rounded(to_float(base, E, M) + to_float(unit, E, M))


def decimals() -> Iterator[Case]:
    """docs/format.md 3.10."""
    rng = random.Random(3)
    for dtype, (E, M) in naive.FLOATS.items():
        for digits in (0, 4, 18):
            if digits != 4 and dtype not in ("F64", "F32"):
                continue
            integers = [int(rng.gauss(0, 0.3) * 10**digits) for _ in range(120)]
            integers[:3] = [0, -1, 10**digits]
            base = weights(dtype, 120)
            infinity = (2**E - 1) << M
            exceptions = {i: infinity for i, u in enumerate(base) if u >> M & 2**E - 1 == 2**E - 1}
            exceptions |= {0: infinity + 1, 119: 1 << E + M}
            for mode in (11, 12, 13, 14):
                if mode > 12 and (dtype not in ("F32", "BF16") or digits != 4):
                    continue
                against = mode in (12, 14)
                units = [
                    exceptions[i]
                    if i in exceptions
                    else decode_decimal(w, digits, dtype, base[i] if against else None)
                    for i, w in enumerate(integers)
                ]
                code = naive.decimal if mode < 13 else naive.decimal_lzma
                block = naive.block(mode, code(integers, exceptions, naive.WIDTHS[dtype]))
                name = f"{'base-' if against else ''}decimal-{'lzma-' if mode > 12 else ''}"
                yield Case(
                    f"{name}{dtype.lower()}-{digits}",
                    f"mode {mode}, {digits} digits",
                    [tensor(dtype, units, block)],
                    [raw(dtype, base)] if against else None,
                    {"digits": digits},
                )
