"""The slow decoder against files whose every block was written by hand."""

from __future__ import annotations

import importlib.util
import json
import random
import struct
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


naive = load(ROOT / "tests" / "conformance" / "naive_encoder.py")
reference = load(ROOT / "reference" / "limosa_reference.py")

FLOATS = list(naive.FLOATS)


def tensor(dtype: str, units: list[int], *payloads: bytes, name: str = "w") -> naive.Coded:
    width = naive.WIDTHS[dtype]
    elements = len(units) // (2 if dtype == "C64" else 1)
    return naive.Coded(name, dtype, (elements,), naive.pack(units, width), list(payloads))


def weights(dtype: str, n: int, seed: int = 0) -> list[int]:
    """Units like those of a trained layer, with the special values of floats among them."""
    rng = random.Random(seed)
    E, M = naive.FLOATS.get(dtype, (0, 0))
    if not E:
        return [rng.getrandbits(naive.WIDTHS[dtype]) for _ in range(n)]
    middle = 2 ** (E - 1) - 5
    units = [
        (rng.getrandbits(1) << E | middle - int(rng.expovariate(1))) << M | rng.getrandbits(M)
        for _ in range(n)
    ]
    infinity = (2**E - 1) << M
    special = [0, 1 << (E + M), infinity, infinity | 1 << (E + M), infinity + 1, 1]
    for i, unit in enumerate(special[: n // 8]):
        units[5 * i + 3] = unit
    return units


def nudge(units: list[int], seed: int = 1) -> list[int]:
    rng = random.Random(seed)
    return [max(u + rng.choice((-3, 0, 0, 1)), 0) % 2**64 if u > 3 else u for u in units]


def decoded(dtype: str, units: list[int], payload: bytes, **options) -> None:
    """Checks that `payload` decodes to `units`."""
    coded = tensor(dtype, units, payload)
    state = reference.decode(naive.file([coded], **options))
    assert state.tensors[0].data == coded.data
    assert state.checked


def decoded_with_base(dtype: str, units: list[int], base: list[int], payload: bytes) -> None:
    held = tensor(dtype, base, naive.block(0, naive.pack(base, naive.WIDTHS[dtype])))
    coded = tensor(dtype, units, payload)
    first = reference.decode(naive.file([held]))
    update = naive.file([coded], base=naive.state_digest([held]))
    assert reference.decode(update, first).tensors[0].data == coded.data


def test_crc32c_of_the_specification():
    assert reference.crc32c(b"123456789") == 0xE3069283


# 2 File


@pytest.mark.parametrize("method", [0, 1])
def test_file_without_tensors(method: int):
    state = reference.decode(naive.file([], method=method))
    assert state.tensors == []
    assert state.sources == [reference.Source("", 0, b"", [])]


def test_names_shapes_and_sources():
    one = naive.Coded("", "F32", (), b"abcd", [naive.block(0, b"abcd")])
    none = naive.Coded("größe/x", "I64", (3, 0, 2), b"")
    sources = [("a/b.safetensors", 1, b"skeleton", [1, 0]), ("c", 5, b"", [])]
    state = reference.decode(naive.file([one, none], method=1, sources=sources))
    assert [(t.name, t.shape, t.data) for t in state.tensors] == [
        ("", (), b"abcd"),
        ("größe/x", (3, 0, 2), b""),
    ]
    assert [(s.path, s.kind, s.skeleton, s.tensors) for s in state.sources] == sources


@pytest.mark.parametrize("dtype", naive.NAMES)
def test_raw_of_every_dtype(dtype: str):
    units = weights(dtype, 24)
    coded = tensor(dtype, units, naive.block(0, naive.pack(units, naive.WIDTHS[dtype])))
    bits = next(d.bits for d in reference.DTYPES if d.name == dtype)
    coded.shape = (len(coded.data) * 8 // bits,)
    assert reference.decode(naive.file([coded])).tensors[0].data == coded.data


def test_chunks_and_blocks():
    units = [i * 7 % 251 for i in range(naive.CHUNK + 1000)]
    first = (
        naive.block(0, bytes(units[:1000]), 1000)
        + naive.block(7, naive.planes(units[1000:2000], 8, kind=3), 1000)
        + naive.block(0, bytes(units[2000 : naive.CHUNK]))
    )
    last = naive.block(1, b"\x05", 999) + naive.block(0, b"\x07")
    units[naive.CHUNK :] = [5] * 999 + [7]
    coded = tensor("U8", units, first, last)
    assert reference.decode(naive.file([coded])).tensors[0].data == coded.data


def test_every_prefix_is_truncated():
    coded = tensor("F32", [1, 2], naive.block(0, naive.pack([1, 2], 32)))
    data = naive.file([coded], method=1)
    reference.decode(data)
    for end in range(len(data)):
        with pytest.raises(reference.TruncatedError):
            reference.decode(data[:end])


def test_every_flipped_bit_is_found():
    coded = tensor("F32", [1, 2], naive.block(0, naive.pack([1, 2], 32)))
    data = naive.file([coded])
    for i in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[i // 8] ^= 1 << i % 8
        with pytest.raises(reference.ReferenceError):
            reference.decode(bytes(damaged))


def test_limits():
    coded = tensor("F32", [1, 2], naive.block(0, naive.pack([1, 2], 32)))
    data = naive.file([coded])
    for limits in [
        {"max_elements": 1},
        {"max_tensors": 0},
        {"max_sources": 0},
        {"max_name_bytes": 0},
        {"max_rank": 0},
        {"max_total_bytes": 7},
        {"max_header_bytes": 20},
    ]:
        with pytest.raises(reference.LimitError, match=next(iter(limits))):
            reference.decode(data, limits=reference.Limits(**limits))


def test_later_version():
    with pytest.raises(reference.UnsupportedError, match="version 1"):
        reference.decode(naive.file([], version=1))


@pytest.mark.parametrize("name", ["a/../b", "..", "a\\..", "a\0b"])
def test_names_that_leave_the_folder(name: str):
    with pytest.raises(reference.CorruptError, match="name"):
        reference.decode(naive.file([naive.Coded(name, "U8", (0,), b"")]))


BAD_PATHS = ["../x", "/x", "a//b", "a/.", "c:x", "a\\b", "a\0", "a/", "NUL.x", "x" * 256]


@pytest.mark.parametrize("path", BAD_PATHS)
def test_paths_that_leave_the_folder(path: str):
    with pytest.raises(reference.CorruptError, match="path"):
        reference.decode(naive.file([], sources=[(path, 5, b"", [])]))


# 3.1 Raw, constant, copies


def test_constant():
    decoded("BF16", [0x3F80] * 9, naive.block(1, b"\x80\x3f"))


def test_tensor_copy():
    units = [i % 256 for i in range(naive.CHUNK + 5)]
    raw = [naive.block(0, bytes(units[: naive.CHUNK])), naive.block(0, bytes(units[-5:]))]
    a = tensor("U8", units, *raw)
    copy = naive.block(2, naive.varint(0))
    b = tensor("U8", units, copy, copy, name="v")
    assert reference.decode(naive.file([a, b], kept=[0])).tensors[1].data == a.data
    with pytest.raises(reference.CorruptError, match="not kept"):
        reference.decode(naive.file([a, b]))
    for payloads in ([copy, raw[1]], [raw[0], copy]):
        b.payloads = payloads
        with pytest.raises(reference.CorruptError, match=r"not throughout|only a part"):
            reference.decode(naive.file([a, b], kept=[0]))


def test_copy_of_a_copy_is_refused():
    a = tensor("U8", [1], naive.block(0, b"\1"), name="a")
    b = tensor("U8", [1], naive.block(2, b"\0"), name="b")
    c = tensor("U8", [1], naive.block(2, b"\1"), name="c")
    with pytest.raises(reference.CorruptError, match="itself a copy"):
        reference.decode(naive.file([a, b, c], kept=[0, 1]))


def test_base_copy():
    units = weights("F16", 50)
    decoded_with_base("F16", units, units, naive.block(3, b""))


# 3.2, 3.3 Symbol and integer streams


@pytest.mark.parametrize("kind", [0, 2, 3])
@pytest.mark.parametrize("scale", [8, 10, 12])
@pytest.mark.parametrize("n", [1, 31, 32, 33, 700])
def test_symbol_streams(kind: int, scale: int, n: int):
    rng = random.Random(n)
    units = [min(int(rng.expovariate(0.1)), 255) for _ in range(n)]
    decoded("U8", units, naive.block(7, naive.symbol_stream(units, kind=kind, scale=scale)))


def test_symbol_stream_of_one_symbol():
    for options in ({"kind": 1}, {"kind": 2, "scale": 11}, {"kind": 3, "scale": 12}):
        decoded("U8", [9] * 40, naive.block(7, naive.symbol_stream([9] * 40, **options)))


def test_symbol_stream_that_does_not_end_where_it_should():
    units = [1, 2, 3, 1, 1, 1] * 40
    good = naive.symbol_stream(units, kind=3)
    for bad, problem in [
        (good[:-2] + b"\0\0", "last state|words|index"),
        (good[:1] + b"\x0d" + good[2:], "2\\^13"),
    ]:
        with pytest.raises(reference.CorruptError, match=problem):
            decoded("U8", units, naive.block(7, bad))


@pytest.mark.parametrize(("s", "m"), [(0, 0), (1, 1), (4, 1), (5, 2), (3, 2), (7, 0)])
def test_integer_streams(s: int, m: int):
    rng = random.Random(s)
    base = [rng.getrandbits(64) for _ in range(200)]
    units = [(b + rng.getrandbits(rng.randrange(40))) % 2**64 for b in base]
    content = naive.steps(units, base, "U64", s=s, m=m, kind=2)
    decoded_with_base("U64", units, base, naive.block(9, content))


# 3.4 Fields


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("k", [0, 1, 5])
@pytest.mark.parametrize("n", [1, 300])
def test_fields(dtype: str, k: int, n: int):
    units = weights(dtype, 2 * n)
    E, _ = naive.FLOATS[dtype]
    w = max((2 ** (E - 1) - 5 << k) - 230, 0)
    decoded(dtype, units, naive.block(4, naive.fields(units, dtype, k, w=w, kind=2)))


@pytest.mark.parametrize("z", range(8))
def test_fields_with_trailing_zeros(z: int):
    units = [u >> z << z for u in weights("BF16", 300)]
    decoded("BF16", units, naive.block(4, naive.fields(units, "BF16", 0, z)))


def test_fields_with_equal_escapes():
    units = [0x3C00, 0, 0xBC01, 0, 0x8000]  # the window begins above the zeros
    content = naive.fields(units, "F16", 0, w=1)
    decoded("F16", units, naive.block(4, content))


# 3.5, 3.6, 3.7


@pytest.mark.parametrize("dtype", ["F32", "U8", "C64", "I64"])
def test_palette(dtype: str):
    few = weights(dtype, 7)
    units = random.Random(3).choices(few, k=100)
    decoded(dtype, units, naive.block(5, naive.palette(units, naive.WIDTHS[dtype], kind=3)))


@pytest.mark.parametrize("mode", [0, 4, 5, 7])
def test_zero_mask(mode: int):
    units = [u if i % 3 else 0 for i, u in enumerate(weights("F32", 99))]
    rest = [u for u in units if u]
    content = {
        0: lambda: naive.pack(rest, 32),
        4: lambda: naive.fields(rest, "F32", 1),
        5: lambda: naive.palette(rest, 32),
        7: lambda: naive.planes(rest, 32, kind=2),
    }[mode]()
    decoded("F32", units, naive.block(6, naive.zero_mask(units, mode, content, kind=3)))


@pytest.mark.parametrize("dtype", ["F64", "F32", "I16", "F8_E4M3"])
def test_planes(dtype: str):
    units, base = weights(dtype, 50), weights(dtype, 50, seed=9)
    width = naive.WIDTHS[dtype]
    decoded(dtype, units, naive.block(7, naive.planes(units, width, kind=3)))
    content = naive.base_planes(units, base, width)
    decoded_with_base(dtype, units, base, naive.block(8, content))


# 3.8, 3.9


@pytest.mark.parametrize("dtype", [*FLOATS, "I32", "U8"])
@pytest.mark.parametrize("kind", [0, 2])
def test_base_steps(dtype: str, kind: int):
    base = weights(dtype, 200)
    half = 2 ** (naive.WIDTHS[dtype] - 1)
    units = [half, 0, 1, half + 1, half - 1, 2 * half - 1, *nudge(base)[6:]]
    units = [u % (2 * half) for u in units]
    contexts = 16 if dtype in FLOATS else 1
    first = 2 ** (naive.FLOATS[dtype][0] - 1) - 15 if dtype in FLOATS else 0
    content = naive.steps(units, base, dtype, contexts, first, kind=kind)
    decoded_with_base(dtype, units, base, naive.block(9, content))


@pytest.mark.parametrize("dtype", ["BF16", "F64", "I8"])
def test_base_sparse(dtype: str):
    base = weights(dtype, 400)
    units = list(base)
    for i in (0, 7, 8, 300, 399):
        units[i] ^= 3
    contexts = 4 if dtype in FLOATS else 1
    content = naive.base_sparse(units, base, dtype, contexts)
    decoded_with_base(dtype, units, base, naive.block(10, content))


def test_steps_meet_at_zero():
    """-0 is one step below 0, and the smallest negative number one below -0."""
    assert [reference.ordered(u, reference.DTYPES[2]) for u in (1, 0, 0x8000, 0x8001)] == [
        1, 0, -1, -2,
    ]  # fmt: skip


# 3.10 Decimal

NUMPY = {
    "F64": (np.float64, np.uint64),
    "F32": (np.float32, np.uint32),
    "F16": (np.float16, np.uint16),
    "BF16": (ml_dtypes.bfloat16, np.uint16),
    "C64": (np.float32, np.uint32),
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("digits", [0, 3, 7, 18])
@pytest.mark.parametrize("coder", ["rans", "lzma"])
@pytest.mark.parametrize("with_base", [False, True])
def test_decimal(dtype: str, digits: int, coder: str, with_base: bool):
    """The arithmetic is compared with numpy's."""
    kind, unsigned = NUMPY[dtype]
    rng = np.random.default_rng(digits)
    integers = [*(rng.standard_normal(200) * min(10**digits, 2**58)).astype(np.int64).tolist()]
    integers[:4] = [0, -1, 2**53 + 1, -(2**63)]
    base = rng.standard_normal(200).astype(kind)
    base[50:60] *= np.array(1e-3, kind)
    quotient = np.array(integers, np.int64).astype(np.float64) / np.float64(10**digits)
    wide = np.float64 if dtype == "F64" else np.float32
    with np.errstate(over="ignore"):
        values = quotient.astype(wide).astype(kind)
        if with_base:
            values = (base.astype(wide) + values.astype(wide)).astype(kind)
    units = values.view(unsigned).tolist()
    infinity = (2 ** naive.FLOATS[dtype][0] - 1) << naive.FLOATS[dtype][1]
    exceptions = {10: infinity, 11: infinity + 1, 199: 0}
    for place, unit in exceptions.items():
        units[place] = unit
    width = naive.WIDTHS[dtype]
    code = naive.decimal if coder == "rans" else naive.decimal_lzma
    content = code(integers, exceptions, width)
    mode = {"rans": 11, "lzma": 13}[coder] + with_base
    held = tensor(dtype, base.view(unsigned).tolist(), naive.block(0, base.tobytes()))
    options = {"base": naive.state_digest([held])} if with_base else {}
    coded = tensor(dtype, units, naive.block(mode, content))
    data = naive.file([coded], digits=digits, **options)
    first = reference.decode(naive.file([held]))
    assert reference.decode(data, first).tensors[0].data == coded.data


@pytest.mark.parametrize("fmt", ["F32", "F16", "BF16"])
def test_rounding_is_that_of_numpy(fmt: str):
    kind, unsigned = NUMPY[fmt]
    rng = np.random.default_rng(5)
    bits = rng.integers(0, 2**32, 4000, dtype=np.uint64).astype(np.uint32)
    values = bits.view(np.float32)
    values = values[np.isfinite(values)].astype(np.float64)
    if fmt == "F32":
        values *= 1 + rng.random(len(values)) * 2.0**-24
    else:
        values = np.concatenate([values, rng.standard_normal(4000).astype(np.float32)])
    E, M = naive.FLOATS[fmt]
    with np.errstate(over="ignore"):
        # ml_dtypes rounds a double to bfloat16 by way of binary32, which here it already is.
        expected = values.astype(kind).view(unsigned).tolist()
    assert [reference.to_unit(float(v), E, M) for v in values] == expected
    finite = [u for u in expected if u >> M & (2**E - 1) != 2**E - 1]
    assert [reference.to_unit(reference.to_float(u, E, M), E, M) for u in finite] == finite


def test_decimal_needs_digits_in_the_layout():
    payload = naive.block(11, naive.decimal([1], {}, 32))
    with pytest.raises(reference.CorruptError, match="lossless"):
        decoded("F32", [0x3F800000], payload)


# 6 Sets, bases and the command


def test_set():
    a = tensor("U8", [1, 2], naive.block(0, b"\1\2"))
    b = tensor("U8", [1, 9], naive.block(10, naive.base_sparse([1, 9], [1, 2], "U8")))
    c = tensor("U8", [7, 9], naive.block(8, naive.base_planes([7, 9], [1, 9], 8)))
    data = naive.model_set(
        [
            ("v1", None, naive.file([a])),
            ("v2", 0, naive.file([b], base=naive.state_digest([a]))),
            ("v3", 1, naive.file([c], base=naive.state_digest([b]))),
        ]
    )
    states = reference.decode_set(data)
    assert {name: s.tensors[0].data for name, s in states.items()} == {
        "v1": b"\1\2",
        "v2": b"\1\x09",
        "v3": b"\7\x09",
    }
    for end in range(len(data)):
        with pytest.raises(reference.ReferenceError):
            reference.decode_set(data[:end])


def test_renamed_tensors():
    a = tensor("U8", [1], naive.block(0, b"\1"), name="a")
    b = tensor("U8", [1], naive.block(3, b""), name="b")
    state = reference.decode(naive.file([a]))
    options = {"base": naive.state_digest([a])}
    assert reference.decode(naive.file([b], base_names=["a"], **options), state).tensors[0].data
    with pytest.raises(reference.CorruptError, match="without a base"):
        reference.decode(naive.file([b], base_names=[None], **options), state)


def test_another_base_is_refused():
    data = naive.file([], base=bytes(32))
    for base in (None, reference.decode(naive.file([]))):
        with pytest.raises(reference.BaseMismatchError):
            reference.decode(data, base)


def test_base_mode_without_a_tensor_in_the_base():
    coded = tensor("U8", [1], naive.block(3, b""))
    data = naive.file([coded], base=naive.state_digest([]))
    with pytest.raises(reference.CorruptError, match="without a base"):
        reference.decode(data, reference.decode(naive.file([])))


def test_command(tmp_path: Path):
    a = tensor("F32", [0x3F800000, 0], naive.block(0, struct.pack("<ff", 1, 0)), name="a\tb")
    b = tensor("F32", [0x3F800000, 1], naive.block(10, naive.base_sparse([1, 1], [1, 0], "F32")))
    b.name = a.name
    (tmp_path / "v1.limosa").write_bytes(naive.file([a]))
    (tmp_path / "v2.limosa").write_bytes(naive.file([b], base=naive.state_digest([a])))
    script = [sys.executable, ROOT / "reference" / "limosa_reference.py"]

    def run(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run([*script, *arguments], cwd=tmp_path, capture_output=True, text=True)

    assert run("v1.limosa", "-o", "v1").returncode == 0
    for base in ("v1.limosa", "v1"):
        done = run("v2.limosa", "--base", base, "-o", "v2")
        assert (done.returncode, done.stderr) == (0, "")
        assert naive.state_digest([b]).hex() in done.stdout
        assert (tmp_path / "v2" / "000000.bin").read_bytes() == b.data
    record = json.loads((tmp_path / "v2" / "tensors.json").read_text())
    assert record["tensors"] == [{"name": "a\tb", "dtype": "F32", "shape": [2]}]
    done = run("v2.limosa")
    assert done.returncode == 3
    assert done.stderr.startswith("base-mismatch: ")
