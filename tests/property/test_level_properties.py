"""Blocks of levels and base palettes that no encoder chose: the slow decoder and limosa agree."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from limosa.codec.blocks import find_blocks
from limosa.codec.decoder import Reader
from limosa.errors import FormatError

ROOT = Path(__file__).parents[2]
CONFORMANCE = ROOT / "tests" / "conformance"


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


naive = load(CONFORMANCE / "naive_encoder.py")
load(CONFORMANCE / "naive_adaptive.py")
naive_levels = load(CONFORMANCE / "naive_levels.py")
reference = load(ROOT / "reference" / "limosa_reference.py")
quiet = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def random_floats(rng: random.Random, dtype: str, n: int) -> list[int]:
    """Mostly small numbers, some of any bits."""
    E, M = naive.FLOATS[dtype]
    middle = 2 ** (E - 1) - 6
    return [
        rng.getrandbits(1 + E + M)
        if rng.random() < 0.03
        else (rng.getrandbits(1) << E | middle + rng.randrange(6)) << M | rng.getrandbits(M)
        for _ in range(n)
    ]


def not_finite(unit: int, dtype: str) -> bool:
    return naive_levels.exact_value(unit, *naive.FLOATS[dtype]) is None


SIZES = st.integers(1, 300)


@st.composite
def blocks(draw, sizes=SIZES):
    """A block of levels, with or without each of its parts."""
    dtype = draw(st.sampled_from(list(naive.FLOATS)))
    rng = random.Random(draw(st.integers(0, 2**32)))
    n = draw(sizes) * (2 if dtype == "C64" else 1)
    spread = draw(st.sampled_from([0.3, 2, 30]))
    largest = draw(st.sampled_from([2, 7, 16, 28]))
    q = [
        rng.choice((-1, 1)) * rng.getrandbits(rng.randint(1, largest))
        if rng.random() < 0.02
        else round(rng.gauss(0, spread))
        for _ in range(n)
    ]
    base = random_floats(rng, dtype, n) if draw(st.booleans()) else None
    exceptions = {}
    for i in rng.sample(range(n), min(n, draw(st.integers(0, 5)))):
        exceptions[i] = rng.getrandbits(naive.WIDTHS[dtype])
    c = draw(st.one_of(st.just(n), st.integers(1, 2 * n + 3)))
    o = draw(st.integers(0, c - 1))
    rows = -(-(o + n) // c)
    K = draw(st.integers(1, 8))
    by = draw(st.sampled_from(["nothing", "rows", "exponents"]))
    by_rows = by_exponents = None
    if by == "rows":
        by_rows = K, rng.choices(range(5), k=rows), rng.choices((0, 1, 2, 15), k=c)
    elif by == "exponents" and base is not None:
        E, _ = naive.FLOATS[dtype]
        by_exponents = K, max(2 ** (E - 1) - 6 + draw(st.integers(-9, 4)), 0)
    s = draw(st.integers(3, 7))
    return naive_levels.Levels(
        dtype,
        q,
        naive_levels.binary32(draw(st.sampled_from([1.0, 2.0**-8, 3 * 2.0**-14, 1.9990234375]))),
        dependent=draw(st.booleans()),
        scales=[rng.randrange(100, 150) for _ in range(rows)] if draw(st.booleans()) else (),
        c=c,
        o=o,
        by_rows=by_rows,
        by_exponents=by_exponents,
        base=base,
        exceptions=exceptions,
        s=s,
        m=draw(st.integers(0, 2)),
        kind=draw(st.sampled_from([0, 2, 3])),
        scale=draw(st.integers(9, 11)),
        adaptive=draw(st.integers(0, 3)) == 0,
        g=draw(st.integers(0, 215)),
    )


def tensor(dtype: str, units: list[int], payload: bytes):
    elements = len(units) // (2 if dtype == "C64" else 1)
    return naive.Coded("w", dtype, (elements,), naive.pack(units, naive.WIDTHS[dtype]), [payload])


def files(dtype: str, units: list[int], payload: bytes, base: list[int] | None):
    """The file and its base's."""
    coded = tensor(dtype, units, payload)
    if base is None:
        return naive.file([coded]), None
    held = tensor(dtype, base, naive.block(0, naive.pack(base, naive.WIDTHS[dtype])))
    return naive.file([coded], base=naive.state_digest([held])), naive.file([held])


def by_limosa(data: bytes, base: bytes | None, *, verify: bool = True) -> bytes:
    held = None if base is None else Reader(base).as_base()
    with Reader(data, base=held, verify=verify) as reader:
        return b"".join(np.asarray(part).tobytes() for _, part in reader)


def by_reference(dtype: str, n: int, payload: bytes, base: list[int] | None) -> list[int]:
    kind = reference.DTYPES[naive.NAMES.index(dtype)]
    chunk = reference.Chunk(kind, base, reference.State(), 0, slice(0, n * kind.width // 8))
    return reference.read_payload(reference.Cursor(payload, "payload"), chunk, n)


def check(dtype: str, units: list[int], payload: bytes, base: list[int] | None) -> None:
    """Both decoders give `units`, and the block is found without decoding."""
    assert by_reference(dtype, len(units), payload, base) == units
    assert by_limosa(*files(dtype, units, payload, base)) == naive.pack(units, naive.WIDTHS[dtype])
    found = find_blocks(payload, len(units), dtype, "payload")
    assert [block.nbytes for block in found] == [len(payload)]


@quiet
@given(blocks())
def test_levels(block):
    check(block.dtype, block.units(), block.block(), block.base)


@settings(quiet, max_examples=6)
@given(blocks(sizes=st.sampled_from([8190, 16383, 16384, 16399, 16416, 20011])))
def test_long_levels(block):
    check(block.dtype, block.units(), block.block(), block.base)


@quiet
@given(st.sampled_from(list(naive.FLOATS)), st.integers(1, 200), st.integers(0, 2**32))
def test_base_palettes(dtype, n, seed):
    rng = random.Random(seed)
    n *= 2 if dtype == "C64" else 1
    base = random_floats(rng, dtype, n)
    entries = [e for e in random_floats(rng, dtype, 9) if not not_finite(e, dtype)]
    entries += [0, 1 << naive.WIDTHS[dtype] - 1]
    chosen = rng.choices(entries, k=n)
    exceptions = {}
    for i in range(n):
        if rng.random() < 0.02:
            exceptions[i] = rng.getrandbits(naive.WIDTHS[dtype])
    content = naive_levels.base_palette(chosen, exceptions, naive.WIDTHS[dtype], kind=3)
    units = naive_levels.palette_units(dtype, base, chosen, exceptions)
    check(dtype, units, naive.block(17, content), base)


@quiet
@given(blocks(sizes=st.integers(1, 60)), st.data())
def test_damaged_levels(block, data):
    """Whatever a block is changed to, both refuse it or give the same."""
    payload = bytearray(block.block())
    for _ in range(data.draw(st.integers(1, 3))):
        # Heads are short, so most changes are made there.
        end = len(payload) - 1 if data.draw(st.booleans()) else min(40, len(payload) - 1)
        place = data.draw(st.integers(0, end))
        payload[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del payload[data.draw(st.integers(1, len(payload))) :]
    payload = bytes(payload)
    try:
        units = by_reference(block.dtype, block.n, payload, block.base)
    except reference.ReferenceError:
        file, base = files(block.dtype, [0] * block.n, payload, block.base)
        with pytest.raises(FormatError):
            by_limosa(file, base, verify=False)
        return
    found = by_limosa(*files(block.dtype, units, payload, block.base))
    assert found == naive.pack(units, naive.WIDTHS[block.dtype])
