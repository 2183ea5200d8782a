"""Tensors, their checks and their digests."""

from __future__ import annotations

import pickle

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limosa.errors import (
    ConfigError,
    CorruptError,
    LimitError,
    LimosaError,
    MissingExtraError,
    TruncatedError,
)
from limosa.limits import Limits
from limosa.tensors import (
    DTYPES,
    Tensor,
    TensorSpec,
    check_name,
    check_specs,
    numpy_dtype,
    state_digest,
    tensor_digest,
)

WHOLE_BYTE = [name for name, dtype in DTYPES.items() if dtype.bits % 8 == 0]


def test_the_codes_of_the_dtypes_never_move():
    assert list(DTYPES)[:17] == [
        "F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4",
        "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL",
    ]  # fmt: skip


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (4,), (2, 0, 3), (2, 4)])
def test_from_numpy_and_back(name, shape):
    bits = DTYPES[name].bits
    count = int(np.prod(shape))
    if count * bits % 8:
        pytest.skip("does not fill whole bytes")
    data = np.random.default_rng(1).integers(0, 2, count * bits // 8, dtype=np.uint8)
    tensor = Tensor(name, shape, data)
    array = tensor.numpy()
    assert array.shape == shape
    assert array.dtype == numpy_dtype(name)
    again = Tensor.from_numpy(array)
    assert (again.dtype, again.shape) == (name, shape)
    assert again.data.dtype == np.uint8
    assert again.data.tobytes() == data.tobytes()
    assert tensor.spec("x").nbytes == data.size


@pytest.mark.parametrize("name", ["F4", "F6_E2M3", "F6_E3M2"])
@given(st.data())
def test_packed_floats_survive(name, data):
    size = DTYPES[name].bits * data.draw(st.integers(0, 9))
    raw = data.draw(st.binary(min_size=size, max_size=size))
    shape = (size * 8 // DTYPES[name].bits,)
    tensor = Tensor(name, shape, np.frombuffer(raw, np.uint8))
    assert Tensor.from_numpy(tensor.numpy()).data.tobytes() == raw


def test_f4_keeps_its_first_element_in_the_low_bits():
    array = np.array([1.0, 6.0], dtype=ml_dtypes.float4_e2m1fn)
    assert Tensor.from_numpy(array).data.tolist() == [0x72]


def test_from_numpy_takes_any_layout():
    array = np.arange(12, dtype=">i4").reshape(3, 4).T
    tensor = Tensor.from_numpy(array)
    assert tensor.shape == (4, 3)
    np.testing.assert_array_equal(tensor.numpy(), array)


def test_contiguous_memory_is_shared():
    array = np.zeros(4, np.float32)
    assert np.shares_memory(Tensor.from_numpy(array).data, array)


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([1j]), np.array([{}], dtype=object)])
def test_dtypes_without_a_counterpart(array):
    with pytest.raises(ConfigError, match=r"found .*, allowed .*; convert"):
        Tensor.from_numpy(array)


def test_odd_packed_sizes():
    with pytest.raises(CorruptError, match="whole bytes"):
        _ = TensorSpec("w", "F4", (3,)).nbytes
    with pytest.raises(ConfigError, match="whole bytes"):
        Tensor.from_numpy(np.zeros(3, ml_dtypes.float4_e2m1fn))


@pytest.mark.parametrize("name", ["../w", "a/../w", "a\\..\\w", "..", "a\0b", "\ud800"])
def test_names_that_leave_their_folder(name):
    with pytest.raises(CorruptError):
        check_name(name, Limits())


@pytest.mark.parametrize("name", ["", "/conv/weight", "a..b", "層.重み", "__metadata"])
def test_names_that_are_fine(name):
    check_name(name, Limits())


@pytest.mark.parametrize(
    ("specs", "limits", "named"),
    [
        ([TensorSpec("w", "U8", (5,))], Limits(max_elements=4), "max_elements 4"),
        ([TensorSpec("w", "U8", (1,) * 3)], Limits(max_rank=2), "max_rank 2"),
        ([TensorSpec("wwww", "U8", ())], Limits(max_name_bytes=3), "max_name_bytes 3"),
        ([TensorSpec(c, "U8", ()) for c in "ab"], Limits(max_tensors=1), "max_tensors 1"),
        ([TensorSpec(c, "F32", (2,)) for c in "ab"], Limits(max_total_bytes=15), "max_total_bytes"),
    ],
)
def test_limits(specs, limits, named):
    with pytest.raises(LimitError, match=named):
        check_specs(specs, limits)


@pytest.mark.parametrize(
    "specs",
    [
        [TensorSpec("w", "F31", ())],
        [TensorSpec("w", "F32", (-1,))],
        [TensorSpec("w", "F32", (2**63,))],
        [TensorSpec("w", "F4", (1,))],
        [TensorSpec("w", "F32", ()), TensorSpec("w", "F32", ())],
    ],
)
def test_malformed_specs(specs):
    with pytest.raises(CorruptError, match="'w'"):
        check_specs(specs, Limits())


def test_huge_dimensions_are_only_multiplied():
    with pytest.raises(LimitError):
        check_specs([TensorSpec("w", "F64", (2**62,) * 32)], Limits())


def test_limits_are_whole_numbers():
    with pytest.raises(ConfigError, match="max_rank"):
        Limits(max_rank=-1)


def test_the_digest_covers_dtype_and_shape():
    data = bytes(8)
    digests = {
        tensor_digest("F32", (2,), data),
        tensor_digest("I32", (2,), data),
        tensor_digest("F32", (2, 1), data),
        tensor_digest("F32", (1, 2), data),
        tensor_digest("F32", (2,), np.ones(8, np.uint8)),
    }
    assert len(digests) == 5


def test_the_state_digest_ignores_the_order_and_not_the_names():
    a, b = bytes(32), bytes([1]) * 32
    assert state_digest({"x": a, "y": b}) == state_digest({"y": b, "x": a})
    assert state_digest({"x": a, "y": b}) != state_digest({"x": b, "y": a})


def test_errors_say_where_what_and_how():
    error = TruncatedError("too short", where="file", found="3", allowed="8", remedy="fetch again")
    assert str(error) == "file: too short; found 3, allowed 8; fetch again"
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, LimosaError)
    assert str(again) == str(error)
    assert "limosa[onnx]" in str(MissingExtraError.for_extra("onnx", "reading"))
