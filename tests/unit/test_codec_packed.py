"""Packed chunks: what repeats itself takes no more bytes than with a compressor of text."""

from contextlib import suppress

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

import limosa
from limosa.codec.constants import MODE_PACKED
from limosa.codec.inspect import inspect
from limosa.codec.packed import decode_payload
from limosa.errors import FormatError

RNG = np.random.default_rng(0)


def window(side):
    """Relative positions of a window of attention, as Swin keeps them."""
    places = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij")).reshape(2, -1)
    apart = places[:, :, None] - places[:, None, :] + side - 1
    return apart[0] * (2 * side - 1) + apart[1]


TENSORS = {
    "positions": window(7),
    "windows": np.tile(window(4), (20, 1)).astype("i4"),
    "repeated": np.tile(np.arange(1000, dtype="u2"), 100),
    "mask": np.where(np.tril(np.ones((256, 256))) > 0, 0, -np.inf).astype("f4"),
    "bool": np.tril(np.ones((512, 512), bool)),
    "bytes": np.tril(np.ones((512, 512), "u1")),
    "offsets": np.cumsum(RNG.integers(0, 40, 20_000)).astype("i4"),
    "ids": np.sort(RNG.integers(0, 10**6, 20_000)),
    "range": np.arange(300_000),
    "falling": np.arange(0, -9000, -3, dtype="i2"),
}


def modes(data):
    (one,) = inspect(data)
    return {mode for tensor in one.tensors for mode in tensor.modes}


@pytest.mark.parametrize("name", TENSORS)
def test_no_larger_than_zstd(name):
    tensor = TENSORS[name]
    data = limosa.save({name: tensor})
    assert modes(data) == {"packed"}
    # A file has a header, an index and digests beside the tensor.
    empty = len(limosa.save({name: tensor[:0]}))
    assert len(data) - empty < len(zstandard.compress(tensor.tobytes(), 19))
    back = limosa.load(data)[name]
    assert back.dtype == tensor.dtype
    assert back.tobytes() == tensor.tobytes()
    assert limosa.save({name: tensor}, threads=1) == limosa.save({name: tensor}, threads=2) == data


@pytest.mark.parametrize("quality", [limosa.Digits(3), limosa.MaxError(abs=0.01)])
def test_integers_in_a_file_with_loss(quality):
    tensors = {"positions": TENSORS["positions"], "weight": RNG.standard_normal((64, 64), "f4")}
    data = limosa.save(tensors, quality=quality)
    assert "packed" in modes(data)
    back = limosa.load(data)
    assert np.array_equal(back["positions"], tensors["positions"])
    assert np.abs(back["weight"] - tensors["weight"]).max() <= 0.01


@pytest.mark.parametrize(
    "tensor",
    [
        RNG.integers(-(2**31), 2**31, 100_000).astype("i4"),
        np.clip(RNG.normal(0, 20, (300, 300)), -127, 127).astype("i1"),
        RNG.standard_normal((200, 200), "f4"),
        np.where(RNG.random((200, 200)) < 0.9, 0, RNG.standard_normal((200, 200))).astype("f4"),
        np.zeros((300, 300), "i8"),
    ],
)
def test_weights_are_left_to_the_core(tensor):
    assert "packed" not in modes(limosa.save({"x": tensor}))


def test_neither_with_a_base_nor_in_haste():
    old = TENSORS["positions"]
    new = old.copy()
    new[0, 0] += 1
    update = limosa.save({"x": new}, base={"x": old})
    assert "packed" not in modes(update)
    assert np.array_equal(limosa.load(update, base={"x": old})["x"], new)
    assert "packed" not in modes(limosa.save({"x": old}, quality=limosa.Lossless(effort=1)))


def test_parts_of_a_tensor(tmp_path):
    limosa.save_file({"range": TENSORS["range"], "w": np.ones(3, "f4")}, tmp_path / "x.limosa")
    with limosa.open_file(tmp_path / "x.limosa") as file:
        assert np.array_equal(file.get_tensor("range"), TENSORS["range"])


@given(st.binary(max_size=60))
def test_any_bytes_are_a_typed_error_or_units(data):
    out = np.empty(32, np.uint8)
    for payload in (bytes([MODE_PACKED, 0, 1, len(data)]) + data, data):
        with suppress(FormatError):
            decode_payload(payload, out, "I32", "here")


@given(st.lists(st.integers(-128, 127), min_size=64, max_size=80), st.integers(4, 40))
def test_whatever_repeats_comes_back(values, times):
    for dtype in ("i1", "i8", "u2", "u4"):
        tensor = np.tile(np.array(values).astype(dtype), times)
        assert limosa.load(limosa.save({"x": tensor}))["x"].tobytes() == tensor.tobytes()
