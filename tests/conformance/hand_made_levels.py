"""Golden files of docs/format.md 3.11 to 3.13 and of a lossy file's layout."""

from __future__ import annotations

import random
from collections.abc import Iterator

import naive_encoder as naive
from hand_made import Case, raw, tensor, weights
from naive_levels import Levels, base_palette, binary32, palette_units

KINDS = {"rans": 2, "one-lane": 3, "raw": 0}


def level_list(n: int, seed: int = 0, spread: float = 3, jump: int = 0) -> list[int]:
    """Levels such as quantized weights have; every 19th may be far away."""
    rng = random.Random(f"{n} {seed}")
    q = [round(rng.gauss(0, spread)) for _ in range(n)]
    for i in range(0, n if jump else 0, 19):
        q[i] = rng.choice((-1, 1)) * rng.getrandbits(rng.randrange(3, jump))
    return q


def step_near(dtype: str) -> int:
    """A step that gives values of the size of `weights`."""
    return binary32(2.0**-7 * 1.375 if dtype != "F16" else 2.0**-9)


def against(dtype: str, n: int) -> tuple[list[int], dict[int, int]]:
    """A base with special values, and an exception for one of those."""
    E, M = naive.FLOATS[dtype]
    base = weights(dtype, n)
    infinite = [i for i, u in enumerate(base) if u >> M & 2**E - 1 == 2**E - 1]
    return base, {i: 5 + i for i in infinite[:1]}


def level_cases() -> Iterator[Case]:
    """All of them."""
    made = [*plain(), *structured(), *segments(), *from_base(), *adaptive()]
    for name, feature, block in made:
        units = block.units()
        held = None if block.base is None else [held_tensor(block)]
        yield Case(name, feature, [tensor(block.dtype, units, block.block())], held)
    yield from palettes()
    yield from mixed()
    yield from layers()


def held_tensor(block: Levels) -> naive.Coded:
    """The base; in a palette where raw units would make the file long."""
    base = list(block.base)
    if len(base) < 1000:
        return raw(block.dtype, base)
    content = naive.palette(base, naive.WIDTHS[block.dtype], kind=2)
    return tensor(block.dtype, base, naive.block(5, content))


def plain() -> Iterator[tuple[str, str, Levels]]:
    """Levels without classes."""
    for dtype, (E, M) in naive.FLOATS.items():
        q = level_list(120, jump=9)
        exceptions = {3: (2**E - 1) << M, 4: 1 << E + M, 119: 1}
        block = Levels(dtype, q, step_near(dtype), exceptions=exceptions)
        low = dtype.lower()
        yield f"levels-{low}", "levels, exceptions", block
        dependent = block.changed(dependent=True)
        yield f"levels-dependent-{low}", "dependent levels, exceptions", dependent
    q = level_list(200, 1, 40, 20)
    for word, kind in KINDS.items():
        block = Levels("F32", q, dependent=True, kind=kind, s=3, m=2)
        yield f"levels-stream-{word}", "dependent levels, their stream", block
    block = Levels("F32", [-3] * 99, dependent=True, kind=1)
    yield "levels-stream-constant", "the same level everywhere, dependent", block
    for s, m in [(0, 0), (1, 0), (7, 7)]:
        small = [x % 61 - 30 for x in q] if s == 7 else q
        block = Levels("F32", small, dependent=True, s=s, m=m)
        feature = "dependent levels whose tokens and levels differ in parity"
        yield f"levels-parity-{s}-{m}", feature, block
    ends = [2**29 - 1, 1 - 2**29, 1, 0, -1] * 2
    yield "levels-largest", "the largest levels", Levels("F64", ends, binary32(1.0))
    ends = [2**28 - 1, 1 - 2**28, 1, 0, -1] * 2
    block = Levels("F64", ends, binary32(1.0), dependent=True)
    yield "levels-largest-dependent", "the largest levels, dependent", block
    for name, step in [("smallest", 0x00800000), ("largest", 0x7F7FF000), ("fine", 0x3F7FF000)]:
        block = Levels("F64", level_list(40), step)
        yield f"levels-step-{name}", f"a step of bits {step:#010x}", block
    block = Levels("F16", [1, -1, 3, -3, 100, 32751, 32752, -32752, 65504], binary32(2.0))
    yield "levels-to-infinity", "levels that are rounded to infinity", block
    block = Levels("F16", [1, -1, 2, -2, 3, -3, 5, 1000], binary32(2.0**-26))
    yield "levels-to-subnormal", "levels that are rounded to zeros and subnormals", block
    block = Levels("F32", [1, -1, 2, -2, 3, -3], 0x00800000, scales=[40], c=6)
    yield "levels-to-zero", "levels that are rounded to zeros by way of binary32", block


def structured() -> Iterator[tuple[str, str, Levels]]:
    """Row scales and classes."""
    rng = random.Random(11)
    for dtype in naive.FLOATS:
        q = level_list(100, 2)
        scales = [120, 131, 128, 125, 135, 127, 120]
        block = Levels(dtype, q, step_near(dtype), scales=scales, c=16, o=9)
        yield f"levels-rows-{dtype.lower()}", "row scales", block
    block = Levels("F64", level_list(256, 3), scales=range(256), c=1)
    yield "levels-rows-every", "every row scale", block
    block = Levels("F32", level_list(40, 3), scales=[130, 122], c=2**40, o=2**40 - 7)
    yield "levels-rows-long", "rows longer than a chunk", block
    for K in (1, 3, 8):
        q = level_list(140, K, K)
        rows, columns = rng.choices(range(K + 1), k=12), rng.choices((0, 0, 1, 15), k=13)
        block = Levels("F32", q, c=13, o=12, by_rows=(K, rows, columns))
        yield f"levels-classes-{K}", f"{K} classes by rows and columns", block
        block = block.changed(dependent=True, scales=[128 + r for r in rows])
        yield f"levels-classes-{K}-dependent", f"{K} classes, row scales, dependent", block


def segments() -> Iterator[tuple[str, str, Levels]]:
    """32 walks through the trellis."""
    for n in (16383, 16384, 16415):
        q = level_list(n, n, 0.3, 6)
        block = Levels("BF16", q, dependent=True, scale=11)
        yield f"levels-dependent-{n}", f"{n} dependent levels", block
    rng = random.Random(12)
    rows, columns = rng.choices(range(4), k=165), rng.choices(range(3), k=100)
    block = block.changed(c=100, o=50, by_rows=(5, rows, columns), exceptions={16414: 3})
    yield "levels-dependent-classes", "16415 dependent levels in classes", block
    block = block.changed(by_rows=None, kind=1, q=[1] * 16415)
    yield "levels-dependent-constant", "16415 equal levels, dependent", block


def from_base() -> Iterator[tuple[str, str, Levels]]:
    """Base levels."""
    rng = random.Random(14)
    for dtype, (E, _) in naive.FLOATS.items():
        base, exceptions = against(dtype, 150)
        q = level_list(150, 4, jump=8)
        low = dtype.lower()
        block = Levels(dtype, q, binary32(2.0**-8), base=base, exceptions=exceptions)
        yield f"base-levels-{low}", "base levels", block
        dependent = block.changed(dependent=True, by_exponents=(8, 2 ** (E - 1) - 11))
        feature = "dependent base levels in classes of base exponents"
        yield f"base-levels-exponents-{low}", feature, dependent
    block = block.changed(by_exponents=(1, 0), dependent=False)
    yield "base-levels-signs", "base levels, negated where the base is negative", block
    rows, columns = [0, 1, 2, 0, 1, 2], [0, 1] * 14
    block = block.changed(by_exponents=None, by_rows=(4, rows, columns), c=28, o=1)
    block = block.changed(scales=[127, 128, 140, 90, 128, 130])
    yield "base-levels-classes", "base levels, row scales and classes by rows", block
    base = rng.choices([0x3C00, 0xBC80, 0x3D12, 0xBD90, 0x0000], (9, 3, 1, 1, 1), k=16500)
    block = Levels("BF16", level_list(16500, 5, 0.3), base=base, dependent=True)
    block = block.changed(by_exponents=(6, 120), scale=11)
    yield "base-levels-dependent-16500", "32 segments, classes of base exponents", block


def adaptive() -> Iterator[tuple[str, str, Levels]]:
    """The adaptive coder."""
    rng = random.Random(15)
    walk = [0]
    for _ in range(899):
        walk.append(round(0.9 * walk[-1] + rng.gauss(0, 2)))
    for dependent in (False, True):
        word = "-dependent" * dependent
        block = Levels("F32", walk, c=45, o=13, adaptive=True, dependent=dependent)
        yield f"levels-adaptive{word}", "the adaptive coder", block
        for c, o in [(1, 0), (2, 1), (899, 0), (900, 0), (901, 2), (2**61, 2**61 - 1)]:
            short = block.changed(q=walk[:300], c=c, o=o)
            yield f"levels-adaptive-{c}-columns{word}", "adaptive, rows of any length", short
        wide = block.changed(q=level_list(300, 6, 100, 28), c=20)
        for g in (0, 88, 215):
            yield f"levels-adaptive-scale-{g}{word}", "adaptive, large levels", wide.changed(g=g)
        zeros = block.changed(q=[0] * 16500, c=500, g=0, scales=[128] * 34)
        yield f"levels-adaptive-zeros{word}", "16500 adaptive zeros", zeros
    ends = [2**29 - 1, 1 - 2**29, 0, 2**28, -1] * 3
    block = Levels("F64", ends, binary32(1.0), adaptive=True)
    yield "levels-adaptive-largest", "adaptive, the largest levels", block
    base, exceptions = against("F16", 400)
    block = Levels("F16", walk[:400], binary32(2.0**-9), True, base=base, exceptions=exceptions)
    block = block.changed(adaptive=True, by_exponents=(3, 9), c=37)
    feature = "adaptive base levels with signs of the base, and classes that have no use"
    yield "base-levels-adaptive", feature, block


def palettes() -> Iterator[Case]:
    """Base palettes."""
    rng = random.Random(13)
    for dtype, (E, M) in naive.FLOATS.items():
        base, exceptions = against(dtype, 90)
        small = (2 ** (E - 1) - 9) << M
        sign = 1 << E + M
        entries = [0, sign, small, small + sign, small + (1 << M - 2), small + (1 << M) + sign, 1]
        chosen = rng.choices(entries, k=90)
        content = base_palette(chosen, exceptions, naive.WIDTHS[dtype], kind=2)
        units = palette_units(dtype, base, chosen, exceptions)
        coded = tensor(dtype, units, naive.block(17, content))
        yield Case(f"base-palette-{dtype.lower()}", "base palette", [coded], [raw(dtype, base)])


def mixed() -> Iterator[Case]:
    """Levels beside other blocks, and the words of a lossy file."""
    first, last = Levels("F16", level_list(30), c=20), Levels("F16", level_list(50, 1), c=20, o=15)
    units = [*first.units(), *[7] * 5, *last.units()]
    payload = first.block(30) + naive.block(1, b"\7\0", 5) + last.block()
    coded = tensor("F16", units, payload)
    yield Case("levels-blocks", "levels between other blocks", [coded])
    for name, text in {"said": "step size=0.01 größe", "unsaid": "", "long": "x" * 256}.items():
        yield Case(f"lossy-{name}", "a lossy file", [coded], None, {"lossy": text})


def layers() -> Iterator[Case]:
    """docs/format.md 7."""
    base = weights("BF16", 60)
    start = [raw("BF16", base)]
    coarse = Levels("BF16", [1] * 60, binary32(2.0**-4), base=base)
    fine = Levels("BF16", [1] * 60, binary32(2.0**-9), base=coarse.units(), dependent=True)
    first = [tensor("BF16", coarse.units(), coarse.block())]
    second = [tensor("BF16", fine.units(), fine.block())]
    exact = [tensor("BF16", base, naive.block(8, naive.base_planes(base, fine.units(), 16)))]
    intra = Levels("BF16", [0] * 60, binary32(1.0))
    zeros = [tensor("BF16", intra.units(), intra.block())]
    steps = naive.block(9, naive.steps(base, intra.units(), "BF16"))
    yield Case("layers-2", "two layers", [tensor("BF16", base, steps)], below=[zeros])
    yield Case("layers-with-base", "three layers of an update", exact, start, below=[first, second])
    same = [tensor("BF16", base, naive.block(3, b""))]
    yield Case("layers-16", "as many layers as there may be", same, below=[start, *[same] * 14])
