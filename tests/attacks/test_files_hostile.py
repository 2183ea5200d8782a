"""Attacks on the readers of files: a typed error, at once, and nothing is left behind."""

from __future__ import annotations

import contextlib
import io
import json
import resource
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from limosa.errors import FormatError
from limosa.files import Restorer, Source, read
from limosa.limits import Limits
from limosa.tensors import TensorSpec

GOOD = save(
    {"層": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(0), "c": np.array(3)},
    {"format": "pt"},
)
SMALL = Limits(max_elements=2**16, max_tensors=100, max_header_bytes=2**16, max_total_bytes=2**20)


def consume(content):
    for _, data in read(io.BytesIO(content), limits=SMALL):
        assert data.size <= 2**16 * 8


@given(st.binary(max_size=200))
def test_random_bytes(content):
    with pytest.raises(FormatError):
        consume(content)


def test_every_flipped_bit_is_an_error_or_another_file():
    for position in range(len(GOOD)):
        for bit in range(8):
            bad = bytearray(GOOD)
            bad[position] ^= 1 << bit
            with contextlib.suppress(FormatError):
                consume(bytes(bad))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=4)
    | st.sampled_from(["F32", "F4", "U8", "dtype", "shape", "data_offsets"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__", "w", "../w"]),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300)
@given(st.dictionaries(st.text(max_size=3) | st.just("__metadata__"), JSON, max_size=3))
def test_any_json_header(header):
    text = json.dumps(header).encode()
    with contextlib.suppress(FormatError):
        consume(len(text).to_bytes(8, "little") + text + bytes(8))


@pytest.mark.parametrize("kind", ["safetensors", "npz", "torch", "onnx"])
@pytest.mark.parametrize(
    "content", [b"", b"\0" * 8, b"\xff" * 64, b"PK\x03\x04", b"PK\x05\x06" + bytes(18), b"{}"]
)
def test_files_of_another_kind(kind, content, tmp_path):
    if kind in ("torch", "onnx"):
        pytest.importorskip(kind)
    path = tmp_path / "file"
    path.write_bytes(content)
    with contextlib.suppress(FormatError), read(path, kind=kind) as bundle:
        assert kind == "npz"
        assert list(bundle) == []  # an empty archive is a sound one


def test_a_member_that_lies_about_its_size(tmp_path):
    out = io.BytesIO()
    np.savez_compressed(out, a=np.zeros(10))
    content = bytearray(out.getvalue())
    with zipfile.ZipFile(io.BytesIO(bytes(content))) as archive:
        size = archive.infolist()[0].file_size.to_bytes(4, "little")
    at = content.rindex(size)
    content[at : at + 4] = (2**32 - 2).to_bytes(4, "little")
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(FormatError):
        list(read(tmp_path / "a.npz"))


def test_announced_sizes_cost_no_memory():
    """A header of some bytes that announces gigabytes, from a pipe that then ends."""
    header = {"w": {"dtype": "U8", "shape": [2**33], "data_offsets": [0, 2**33]}}
    text = json.dumps(header).encode()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FormatError):
        list(read(io.BytesIO(len(text).to_bytes(8, "little") + text + b"abc")))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB


KINDS = ["safetensors", "npz", "torch", "onnx", "bytes"]


@settings(max_examples=200)
@given(st.sampled_from(KINDS), st.binary(max_size=60), st.booleans())
def test_random_skeletons_leave_nothing(tmp_path_factory, kind, skeleton, with_tensor):
    if kind in ("torch", "onnx"):
        pytest.importorskip(kind)
    folder = tmp_path_factory.mktemp("out")
    specs = [TensorSpec("w", "U8", (4,))] if with_tensor else []
    source = Source("", kind, skeleton, tuple(spec.name for spec in specs))
    finished = False
    with (
        contextlib.suppress(FormatError),
        Restorer([source], specs, folder / "out", SMALL) as restorer,
    ):
        for spec in specs:
            restorer.write(spec, np.zeros(4, np.uint8))
        restorer.finish()
        finished = True
    assert [path.name for path in folder.iterdir()] == (["out"] if finished else [])
