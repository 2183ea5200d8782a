"""numpy archives: array for array."""

from __future__ import annotations

import contextlib
import io
import zipfile

import numpy as np
import pytest

from limosa.errors import CorruptError, FormatError, LimitError
from limosa.files import Restorer, read
from limosa.limits import Limits


def restore(bundle, out):
    """Write a bundle as a decoder would."""
    with Restorer(bundle.sources, bundle.specs, out, Limits()) as restorer:
        for spec, data in bundle:
            restorer.write(spec, data.copy())
        restorer.finish()


ARRAYS = {
    "f32": np.arange(12, dtype=np.float32).reshape(3, 4),
    "fortran": np.asfortranarray(np.arange(24, dtype=np.int64).reshape(2, 3, 4)),
    "f16": np.ones(3, np.float16),
    "bool": np.array([True, False]),
    "c64": np.array([1 + 2j], np.complex64),
    "c128": np.array([1 + 2j]),
    "0d": np.array(7, np.uint8),
    "empty": np.zeros((0, 3)),
    "big": np.arange(3, dtype=">f4"),
    "text": np.array(["limosa", "ü"]),
    "bytes": np.array([b"a", b"bc"]),
    "struct": np.array([(1, 2.0)], dtype=[("a", "<i4"), ("b", ">f8")]),
    "when": np.array(["2024-01-01"], dtype="M8[D]"),
    "dense/kernel:0": np.ones(2),
    "dense": np.ones(1),
    "層": np.ones(1),
}


def same(path, arrays):
    with np.load(path, allow_pickle=False) as loaded:
        assert loaded.files == list(arrays)
        for name, array in arrays.items():
            found = loaded[name]
            assert found.dtype == array.dtype
            assert found.shape == array.shape
            assert found.flags.f_contiguous == array.flags.f_contiguous
            assert found.tobytes("A") == array.tobytes("A")


@pytest.mark.parametrize("saver", [np.savez, np.savez_compressed])
def test_arrays_come_back(saver, tmp_path):
    saver(tmp_path / "in.npz", **ARRAYS)
    with read(tmp_path / "in.npz") as bundle:
        restore(bundle, tmp_path / "out.npz")
        np.testing.assert_array_equal(bundle.get("fortran").numpy(), ARRAYS["fortran"])
        assert bundle.get("struct").dtype == "U8"
    same(tmp_path / "out.npz", ARRAYS)
    sizes = [(tmp_path / name).stat().st_size for name in ("in.npz", "out.npz")]
    assert abs(sizes[0] - sizes[1]) < 0.2 * sizes[0]
    restore(read(tmp_path / "in.npz"), tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "out.npz").read_bytes()


def test_members_that_are_no_arrays(tmp_path):
    with zipfile.ZipFile(tmp_path / "in.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
        archive.writestr("empty.txt", "")
    restore(read(tmp_path / "in.npz"), tmp_path / "out.npz")
    with zipfile.ZipFile(tmp_path / "out.npz") as archive:
        assert archive.read("readme.txt") == b"hello"
        assert archive.namelist() == ["readme.txt", "empty.txt"]


def test_an_empty_archive(tmp_path):
    np.savez(tmp_path / "in.npz")
    restore(read(tmp_path / "in.npz"), tmp_path / "out.npz")
    same(tmp_path / "out.npz", {})


def test_objects_are_refused(tmp_path):
    np.savez(tmp_path / "in.npz", o=np.array([{}], dtype=object))
    with pytest.raises(FormatError, match="pickle"):
        read(tmp_path / "in.npz")


def npy(header, data=b""):
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


GOOD = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }\n"


@pytest.mark.parametrize(
    "member",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x09\x00\x01\x00x",
        npy(b"__import__('os').system('touch owned')"),
        npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"9" * 30 + b",)}"),
        npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}"),
        npy(b"{'descr': '<f4', 'fortran_order': 1, 'shape': (1,)}", bytes(4)),
        npy(b"{'descr': 'zz', 'fortran_order': False, 'shape': (1,)}"),
        npy(b"{'descr': [('a',)], 'fortran_order': False, 'shape': (1,)}"),
        npy(b"(" * 5000),
        npy(GOOD, bytes(3)),
        npy(GOOD, bytes(5)),
        npy(GOOD[:-20], bytes(4)),
        npy(b" " * 20_000),
    ],
)
def test_malformed_members(member, tmp_path):
    with zipfile.ZipFile(tmp_path / "in.npz", "w") as archive:
        archive.writestr("a.npy", member)
    with pytest.raises(FormatError):
        read(tmp_path / "in.npz")


@pytest.mark.parametrize("name", ["../a.npy", "/a.npy", "a/../../b.npy"])
def test_names_that_escape(name, tmp_path):
    with zipfile.ZipFile(tmp_path / "in.npz", "w") as archive:
        archive.writestr(name, npy(GOOD, bytes(4)))
    with pytest.raises(CorruptError):
        read(tmp_path / "in.npz")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_come_twice(tmp_path):
    with zipfile.ZipFile(tmp_path / "in.npz", "w") as archive:
        archive.writestr("a.npy", npy(GOOD, bytes(4)))
        archive.writestr("a.npy", npy(GOOD, bytes(4)))
    with pytest.raises(CorruptError, match="twice"):
        read(tmp_path / "in.npz")


def test_bombs(tmp_path):
    np.savez_compressed(tmp_path / "in.npz", a=np.zeros(2**20))
    with pytest.raises(LimitError, match="max_total_bytes"):
        read(tmp_path / "in.npz", limits=Limits(max_total_bytes=2**20))
    with pytest.raises(LimitError, match="max_elements"):
        read(tmp_path / "in.npz", limits=Limits(max_elements=2**10))


def test_damage_is_noticed(tmp_path):
    out = io.BytesIO()
    np.savez_compressed(out, a=np.random.default_rng(0).normal(size=100))
    good = out.getvalue()
    rng = np.random.default_rng(1)
    for _ in range(200):
        bad = bytearray(good)
        bad[rng.integers(len(bad))] ^= 1 << int(rng.integers(8))
        (tmp_path / "in.npz").write_bytes(bad)
        with contextlib.suppress(FormatError):
            list(read(tmp_path / "in.npz"))
    for size in range(0, len(good), 7):
        (tmp_path / "in.npz").write_bytes(good[:size])
        with pytest.raises(FormatError):
            read(tmp_path / "in.npz")
