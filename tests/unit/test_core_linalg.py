"""Exact linear algebra: right, and the same bits everywhere."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from blake3 import blake3

from limosa import _core

DTYPES = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]
SHAPES = [(1, 1), (1, 9), (9, 1), (5, 5), (3, 8), (8, 3), (17, 40), (64, 27), (33, 130)]


def matrix(o: int, i: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([o, i, seed]).normal(size=(o, i))


@pytest.mark.parametrize(("o", "i"), SHAPES)
def test_singular_values_and_vectors(o: int, i: int):
    a = matrix(o, i)
    u, s, vt = _core.svd(a)
    m = min(o, i)
    assert (u.shape, s.shape, vt.shape) == ((o, m), (m,), (m, i))
    np.testing.assert_allclose(s, np.linalg.svd(a, compute_uv=False), rtol=1e-11)
    np.testing.assert_allclose(u * s @ vt, a, atol=1e-11)
    np.testing.assert_allclose(u.T @ u, np.eye(m), atol=1e-11)
    np.testing.assert_allclose(vt @ vt.T, np.eye(m), atol=1e-11)
    assert (np.diff(s) <= 0).all()
    assert all(row[np.abs(row).argmax()] > 0 for row in vt)


def test_deficient_matrices_have_null_vectors():
    a = matrix(12, 3) @ matrix(3, 20)
    u, s, vt = _core.svd(a)
    assert not s[3:].any()
    assert not u[:, 3:].any()
    assert not vt[3:].any()
    np.testing.assert_allclose(u * s @ vt, a, atol=1e-11)
    assert not any(part.any() for part in _core.svd(np.zeros((4, 6))))
    a = np.zeros((6, 4))
    a[2] = 3.0  # dead filters
    u, s, vt = _core.svd(a)
    np.testing.assert_allclose(u * s @ vt, a, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
def test_extreme_magnitudes(scale: float):
    a = matrix(6, 9) * scale
    u, s, vt = _core.svd(a)
    np.testing.assert_allclose(u * s @ vt, a, rtol=0, atol=1e-11 * scale)


def test_equal_singular_values_still_end():
    u, s, vt = _core.svd(np.eye(24))
    np.testing.assert_allclose(s, 1, rtol=1e-15)
    np.testing.assert_allclose(u @ vt, np.eye(24), atol=1e-15)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(value: float):
    a = matrix(3, 3)
    a[1, 1] = value
    with pytest.raises(ValueError, match="not finite"):
        _core.svd(a)


# ---- the same bits everywhere ----


def made_of_integers(o: int, i: int) -> np.ndarray:
    """The same matrix on every machine: no generator, no rounding."""
    k = np.arange(o * i, dtype=np.int64)
    return ((k * 7919 + k * k * 104729) % 2003 - 1001).astype(np.float64).reshape(o, i) / 512


def digest_of_all() -> str:
    digest = blake3()
    for shape in [(7, 7), (6, 20), (20, 6), (40, 90)]:
        for part in _core.svd(made_of_integers(*shape)):
            digest.update(part.tobytes())
    left, right = made_of_integers(9, 5), made_of_integers(5, 11)
    digest.update(_core.matmul(left, right).tobytes())
    for code, dtype in enumerate(DTYPES):
        base = made_of_integers(9, 11).astype(dtype).reshape(-1).view(np.uint8)
        digest.update(_core.merge(base, code, left / 3, right).tobytes())
    return digest.hexdigest()


GOLDEN = "3e15b60b68cec73802749c8e3a203bb721c7761ab12d94f757821b6d3b1276f4"


def test_golden_digest():
    """Whoever gets another digest rebuilds other weights: docs/format.md 8.4, 8.5."""
    assert digest_of_all() == GOLDEN


def test_every_instruction_set_gives_the_same_bits():
    before = _core.simd()
    try:
        for name in _core.simd_paths():
            _core.set_simd(name)
            assert digest_of_all() == GOLDEN, name
    finally:
        _core.set_simd(before)


@pytest.mark.parametrize("threads", ["1", "2", "8"])
def test_the_threads_of_other_libraries_do_not_matter(threads: str):
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    code = (
        "import sys, runpy; sys.argv = ['x'];"
        f"print(runpy.run_path({__file__!r})['digest_of_all']())"
    )
    environment = {**os.environ, **dict.fromkeys(names, threads)}
    found = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert found.strip() == GOLDEN


UPWARD = {"x86_64": 0x800, "AMD64": 0x800, "aarch64": 0x400000, "arm64": 0x400000}


@contextmanager
def arithmetic(mode: str) -> Iterator[None]:
    """Another state of the processor: "upward", or "flush" as torch.set_flush_denormal has it."""
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    before, changed = ctypes.create_string_buffer(64), ctypes.create_string_buffer(64)
    libm.fegetenv(before)
    libm.fegetenv(changed)
    try:
        if mode == "upward":
            libm.fesetround(UPWARD[platform.machine()])
        else:
            control = int.from_bytes(changed[28:32], "little") | 0x8040
            changed[28:32] = control.to_bytes(4, "little")
            libm.fesetenv(changed)
        yield
    finally:
        libm.fesetenv(before)


def in_force(mode: str) -> bool:
    if mode == "upward":
        return bool(np.float64(1.0) + np.float64(2.0**-60) > 1.0)
    return not (np.array([1e-40], np.float32) * np.float32(1.0)).any()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc")
@pytest.mark.parametrize("mode", ["upward", "flush"])
def test_the_state_of_the_processor_does_not_matter(mode: str):
    if mode == "flush" and platform.machine() != "x86_64":
        pytest.skip("where the bit lies is known for x86-64 only")
    a = matrix(9, 13)
    right = a.T.copy()
    base = np.array([1e-40, 1.0], np.float32).view(np.uint8)
    one, addend = np.ones((1, 1)), np.array([[1e-41, 2.0**-24]])

    def all_bytes() -> list[bytes]:
        parts = (*_core.svd(a), _core.matmul(a, right), _core.merge(base, 1, one, addend))
        return [part.tobytes() for part in parts]

    expected = all_bytes()
    with arithmetic(mode):
        before = in_force(mode)
        found = all_bytes()
        after = in_force(mode)
    assert found == expected
    assert before
    assert after  # as the caller had it


# ---- merge ----


@pytest.mark.parametrize("code", range(4))
def test_merge_rounds_once(code: int):
    dtype = np.dtype(DTYPES[code])
    rng = np.random.default_rng(code)
    base = (rng.normal(size=300) * 10.0 ** rng.integers(-8, 5, 300)).astype(dtype)
    addend = base.astype(np.float64) * rng.normal(size=300) * 2.0 ** rng.integers(-16, 3, 300)
    base[:4] = [0.0, ml_dtypes.finfo(dtype).smallest_subnormal, ml_dtypes.finfo(dtype).max, 1.0]
    addend[:4] = [
        2.0**-30,
        float(ml_dtypes.finfo(dtype).tiny) / 3,
        float(ml_dtypes.finfo(dtype).max),
        2.0**-9,
    ]
    if code == 0:
        addend[2] = 1.0
    found = _core.merge(base.view(np.uint8), code, np.ones((1, 1)), addend.reshape(1, -1))
    values = found.view(dtype)
    for old, add, new in zip(base, addend, values, strict=True):
        exact = float(old) + float(add)  # one operation in binary64
        assert is_nearest(exact, new, dtype), (old, add, new)


def is_nearest(exact: float, value: np.generic, dtype: np.dtype) -> bool:
    """Whether *value* is the float nearest to *exact*, ties to even."""
    if not np.isfinite(value):
        largest = Fraction(float(ml_dtypes.finfo(dtype).max))
        spacing = largest - Fraction(float(np.nextafter(ml_dtypes.finfo(dtype).max, dtype.type(0))))
        return abs(Fraction(exact)) >= largest + spacing / 2
    unit = np.array([value]).view(f"u{dtype.itemsize}")
    distance = abs(Fraction(exact) - Fraction(float(value)))
    for step in (1, -1):
        near = (unit.astype(np.int64) + step).astype(unit.dtype).view(dtype)[0]
        if not np.isfinite(near) or float(near) * float(value) < 0:
            continue
        other = abs(Fraction(exact) - Fraction(float(near)))
        if other < distance or (other == distance and int(unit[0]) % 2):
            return False
    return True


@pytest.mark.parametrize("code", range(4))
def test_merge_of_nothing_keeps_every_bit(code: int):
    dtype = np.dtype(DTYPES[code])
    special = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1.5], dtype).view(np.uint8)
    for left, right in [
        (np.zeros((2, 0)), np.zeros((0, 3))),
        (np.zeros((2, 1)), -np.ones((1, 3))),
    ]:
        assert _core.merge(special, code, left, right).tobytes() == special.tobytes()
    moved = _core.merge(special, code, np.ones((1, 1)), np.ones((1, 6))).view(dtype)
    assert moved[:2].tolist() == [1.0, 1.0]
    assert np.isnan(moved[2])
    assert moved[3:5].tolist() == [np.inf, -np.inf]
    assert _core.merge(None, code, np.ones((1, 1)), np.ones((1, 6))).view(dtype).tolist() == [1] * 6


@pytest.mark.parametrize("code", range(4))
def test_a_sum_that_is_no_number_has_one_form(code: int):
    dtype = np.dtype(DTYPES[code])
    unsigned = np.dtype(f"u{dtype.itemsize}")
    quiet = [0x7FF8 << 48, 0x7FC00000, 0x7E00, 0x7FC0][code]
    nans = np.array([[0x7FF8 << 48, 0xFFF8 << 48, 2**63 - 1, 2**64 - 1]], np.uint64)
    for base in (None, np.ones(4, dtype).view(np.uint8)):
        found = _core.merge(base, code, np.ones((1, 1)), nans.view(np.float64))
        assert found.view(unsigned).tolist() == [quiet] * 4
    found = _core.merge(None, code, np.ones((1, 2)), np.array([[np.inf], [-np.inf]]))
    assert found.view(unsigned).tolist() == [quiet]


def test_sums_are_in_order():
    left, right = np.ones((1, 3)), np.array([[1.0], [2.0**53], [-(2.0**53)]])
    assert _core.matmul(left, right).item() == 0.0  # (1 + 2^53) - 2^53, the 1 lost
    assert _core.matmul(left, right[::-1].copy()).item() == 1.0


@pytest.mark.parametrize(
    "call",
    [
        lambda: _core.matmul(np.zeros((2, 3)), np.zeros((2, 3))),
        lambda: _core.matmul(np.zeros((2**40, 0)), np.zeros((0, 2**40))),
        lambda: _core.merge(None, 0, np.zeros((2**40, 0)), np.zeros((0, 2**40))),
        lambda: _core.merge(None, 8, np.zeros((2, 3)), np.zeros((3, 3))),
        lambda: _core.merge(np.zeros(3, np.uint8), 1, np.zeros((2, 3)), np.zeros((3, 3))),
        lambda: _core.encode_levels(np.array([2**29], np.int32), 1),
        lambda: _core.encode_levels(np.array([1], np.int32), 0),
        lambda: _core.decode_levels(b"", 3, 1),
        lambda: _core.decode_levels(_core.encode_levels(np.ones(5, np.int32), 1) + b"x", 5, 1),
        lambda: _core.decode_levels(_core.encode_levels(np.ones(5, np.int32), 1)[:-1], 5, 1),
    ],
)
def test_impossible_arguments(call):
    with pytest.raises(ValueError, match=r"\w"):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: _core.svd(np.ones((2, 2), np.float32)),
        lambda: _core.svd(np.ones((2, 3)).T),
        lambda: _core.svd(np.ones(3)),
        lambda: _core.matmul(np.ones((2, 2), np.int64), np.ones((2, 2))),
        lambda: _core.merge(np.ones(4, np.float32), 1, np.ones((2, 1)), np.ones((1, 2))),
        lambda: _core.encode_levels(np.array([2**32 + 1], np.int64), 1),
        lambda: _core.encode_levels(np.ones(8, np.int32)[::2], 1),
        lambda: _core.decode_levels(np.ones(8, np.int32), 1, 1),
        lambda: _core.decode_levels(b"", -1, 1),
    ],
)
def test_nothing_is_converted(call):
    with pytest.raises(TypeError):
        call()


def test_damaged_levels_are_refused_or_others():
    levels = np.rint(np.random.default_rng(3).laplace(size=200) * 3).astype(np.int32)
    data = _core.encode_levels(levels, 5)
    for size in range(len(data)):
        with pytest.raises(ValueError, match=r"\w"):
            _core.decode_levels(data[:size], 200, 5)
    refused = 0
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            found = _core.decode_levels(bytes(damaged), 200, 5)
        except ValueError:
            refused += 1
        else:
            assert found.shape == (200,)
    assert refused > 0
    for n in (1, 199, 201, 10**6):  # all of the bytes, and no more
        with pytest.raises(ValueError, match=r"\w"):
            _core.decode_levels(data, n, 5)


def test_levels_of_any_size_come_back():
    most = 2**29 - 1
    levels = np.array([most, -most, 0, 1, -1, *[0] * 50, 12345678, most], np.int32)
    for columns in (1, 3, 2**61):
        found = _core.decode_levels(_core.encode_levels(levels, columns), levels.size, columns)
        assert found.tolist() == levels.tolist()


@pytest.mark.parametrize("columns", [1, 7, 1000])
def test_levels_come_back(columns: int):
    levels = np.rint(np.random.default_rng(columns).laplace(size=700) * 3).astype(np.int32)
    data = _core.encode_levels(levels, columns)
    assert _core.decode_levels(data, 700, columns).tolist() == levels.tolist()
    assert _core.encode_levels(levels[:0], columns) == b""
    assert _core.decode_levels(b"", 0, columns).size == 0
