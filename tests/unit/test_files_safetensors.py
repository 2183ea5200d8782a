"""safetensors in and out: the same bytes, whatever the dtype, the names and the header."""

from __future__ import annotations

import io
import json
import os
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

from limosa.errors import ConfigError, CorruptError, FormatError, LimitError, TruncatedError
from limosa.files import Restorer, bundle_from_tensors, metadata_of, read
from limosa.limits import Limits
from limosa.tensors import DTYPES, Tensor


def restore(bundle, out):
    """Write a bundle as a decoder would."""
    with Restorer(bundle.sources, bundle.specs, out, Limits()) as restorer:
        for spec, data in bundle:
            restorer.write(spec, data)
        restorer.finish()


def raw(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def round_trip(content, tmp_path):
    """Through a file and through a pipe."""
    path = tmp_path / "in.safetensors"
    path.write_bytes(content)
    with read(path) as bundle:
        restore(bundle, tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == content
    out = io.BytesIO()
    restore(read(io.BytesIO(content)), out)
    assert out.getvalue() == content
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.safetensors", "out.safetensors"]
    return bundle


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(dtype, tmp_path):
    bits = DTYPES[dtype].bits
    header, data = {}, b""
    for name, shape, count in [("s", [8], 8), ("e", [0, 3], 0), ("m", [2, 4], 8)]:
        size = count * bits // 8
        header[name] = entry(dtype, shape, len(data), len(data) + size)
        data += bytes(range(size))
    if bits >= 8:
        header["0d"] = entry(dtype, [], len(data), len(data) + bits // 8)
        data += bytes(bits // 8)
    bundle = round_trip(raw(header, data), tmp_path)
    assert {spec.name: spec.shape for spec in bundle.specs}["e"] == (0, 3)


def test_what_the_library_writes_needs_no_header(tmp_path):
    content = save({"b": np.ones((2, 3), np.float32), "a": np.zeros(5, np.float16)})
    bundle = round_trip(content, tmp_path)
    assert bundle.sources[0].skeleton == b"\0"
    assert metadata_of(bundle.sources[0], Limits()) is None


def test_metadata_come_back_in_their_order(tmp_path):
    metadata = {"format": "pt", "licence": 'Apache-2.0 ü \u2028 " \\ \x01'}
    content = save({"層.重み": np.ones(3)}, metadata)
    bundle = round_trip(content, tmp_path)
    assert metadata_of(bundle.sources[0], Limits()) == metadata
    assert bundle.sources[0].skeleton[0] == 1


@pytest.mark.parametrize(
    "content",
    [
        raw({}),
        raw(b"{}"),
        raw({"__metadata__": {}}),
        raw(b'{"__metadata__":null}'),
        raw({"a": entry("U8", [2], 0, 2)}, b"xy"),
        raw(json.dumps({"a": entry("U8", [1], 0, 1)}, indent=2).encode() + b"\n", b"x"),
        raw({"b": entry("U8", [1], 1, 2), "a": entry("U8", [1], 0, 1)}, b"xy"),
        raw({"a": entry("U8", [1], 0, 1), "__metadata__": {"k": "v"}}, b"x"),
        raw({"e": entry("F32", [0], 1, 1), "a": entry("U8", [1], 0, 1)}, b"x"),
    ],
)
def test_unusual_headers_come_back(content, tmp_path):
    round_trip(content, tmp_path)


def test_the_order_is_that_of_the_data():
    content = raw({"b": entry("U8", [1], 1, 2), "a": entry("U8", [1], 0, 1)}, b"xy")
    bundle = read(io.BytesIO(content))
    assert [(s.name, d.tobytes()) for s, d in bundle] == [("a", b"x"), ("b", b"y")]


@given(
    st.dictionaries(
        st.text(
            st.characters(exclude_categories=["Cs"], exclude_characters="\0./\\"), max_size=8
        ).filter(lambda name: name != "__metadata__"),
        st.lists(st.integers(0, 4), max_size=3),
        max_size=5,
    ),
    st.none()
    | st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])),
        st.text(st.characters(exclude_categories=["Cs"])),
        max_size=3,
    ),
)
def test_any_names_and_metadata(shapes, metadata):
    tensors = {name: Tensor.from_numpy(np.ones(shape, np.int16)) for name, shape in shapes.items()}
    out = io.BytesIO()
    restore(bundle_from_tensors(tensors, metadata), out)
    again = read(io.BytesIO(out.getvalue()))
    assert [s.name for s in again.specs if s.elements] == [
        n for n in tensors if 0 not in tensors[n].shape
    ]
    assert metadata_of(again.sources[0], Limits()) == metadata
    copy = io.BytesIO()
    restore(again, copy)
    assert copy.getvalue() == out.getvalue()


def test_the_library_reads_what_is_restored(tmp_path):
    from safetensors.numpy import load_file

    arrays = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(7)}
    bundle = bundle_from_tensors({k: Tensor.from_numpy(a) for k, a in arrays.items()})
    restore(bundle, tmp_path / "m.safetensors")
    loaded = load_file(tmp_path / "m.safetensors")
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)


def test_random_access(tmp_path):
    save_file({"a": np.arange(3), "b": np.arange(4.0)}, tmp_path / "m.safetensors")
    with read(tmp_path / "m.safetensors") as bundle:
        tensor = bundle.get("b")
        np.testing.assert_array_equal(tensor.numpy(), np.arange(4.0))
        with pytest.raises(ConfigError, match="no such tensor"):
            bundle.get("c")
    assert tensor.numpy()[3] == 3.0


def test_a_pipe_is_read_in_order_and_once():
    content = save({"a": np.arange(2**17), "b": np.ones(3)})
    reader, writer = os.pipe()

    def feed():
        with os.fdopen(writer, "wb") as file:
            file.write(content)

    thread = threading.Thread(target=feed)
    thread.start()
    with os.fdopen(reader, "rb", buffering=0) as stream:
        bundle = read(stream)
        assert not bundle.random_access
        with pytest.raises(ConfigError, match="in order"):
            bundle.get("a")
        out = io.BytesIO()
        restore(bundle, out)
        with pytest.raises(ConfigError, match="once"):
            next(iter(bundle))
    thread.join()
    assert out.getvalue() == content


def test_every_prefix_is_truncated(tmp_path):
    content = save({"a": np.arange(3, dtype=np.uint8), "b": np.ones(2)})
    path = tmp_path / "m.safetensors"
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(TruncatedError):
            read(path)
        with pytest.raises(TruncatedError):
            list(read(io.BytesIO(content[:size])))


def test_trailing_bytes(tmp_path):
    for content in (save({"a": np.ones(2)}) + b"x", raw({}) + b"x"):
        path = tmp_path / "m.safetensors"
        path.write_bytes(content)
        with pytest.raises(CorruptError, match="follow"):
            read(path)
        with pytest.raises(CorruptError, match="follow"):
            list(read(io.BytesIO(content)))


ONE = entry("U8", [1], 0, 1)


@pytest.mark.parametrize(
    ("header", "match"),
    [
        (b"[]", "not a safetensors header"),
        (b" {}", "not a safetensors header"),
        (b"{", "not JSON"),
        (b'{"a\xff":1}', "not JSON"),
        (b'{"a":' + b"[" * 100000, "not JSON"),
        (b'{"a":' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"a":1,"a":1}', "twice"),
        (b'{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}', "twice"),
        ({"__metadata__": {"a": 1}}, "map of strings"),
        ({"__metadata__": []}, "map of strings"),
        (b'{"__metadata__":{"a":"\\ud800"}}', "map of strings"),
        ({"a": 1}, "bad entry"),
        ({"a": {**ONE, "more": 1}}, "bad entry"),
        ({"a": {**ONE, "dtype": "F7"}}, "unknown dtype"),
        ({"a": {**ONE, "dtype": [1]}}, "bad dtype"),
        ({"a": {**ONE, "shape": 1}}, "bad shape"),
        ({"a": {**ONE, "shape": [1.0]}}, "bad dimension"),
        ({"a": {**ONE, "shape": [True]}}, "bad dimension"),
        ({"a": {**ONE, "shape": [-1]}}, "bad dimension"),
        ({"a": {**ONE, "data_offsets": [0]}}, "bad data_offsets"),
        ({"a": {**ONE, "data_offsets": [-1, 0]}}, "bad data_offsets"),
        ({"a": {**ONE, "data_offsets": [0, 2**64]}}, "bad data_offsets"),
        ({"a": {**ONE, "data_offsets": [0, 2]}}, "overlap"),
        ({"a": {**ONE, "data_offsets": [1, 2]}}, "hole"),
        ({"a": {**ONE, "data_offsets": [1, 0]}}, "overlap"),
        ({"a": ONE, "b": ONE}, "overlap"),
        ({"a": entry("F4", [1], 0, 1)}, "whole bytes"),
        ({"../a": ONE}, "leaves its folder"),
        (b'{"\\ud800":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', "Unicode"),
    ],
)
def test_malformed_headers(header, match, tmp_path):
    content = raw(header, b"x")
    with pytest.raises(FormatError, match=match):
        read(io.BytesIO(content))
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(FormatError, match=match):
        read(tmp_path / "m.safetensors")


def test_huge_header_lengths_are_not_allocated():
    for length in (2**63, 2**64 - 1, 2**30):
        with pytest.raises(LimitError, match="max_header_bytes"):
            read(io.BytesIO(length.to_bytes(8, "little") + b"{}"))


def test_limits_come_before_the_data():
    header = raw({"a": entry("F64", [2**40], 0, 2**43)})
    with pytest.raises(LimitError, match="max_elements"):
        read(io.BytesIO(header))
    two = raw({"a": ONE, "b": entry("U8", [1], 1, 2)}, b"xy")
    with pytest.raises(LimitError, match="max_tensors 1"):
        read(io.BytesIO(two), limits=Limits(max_tensors=1))
