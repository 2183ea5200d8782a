"""Tensors as they are coded: channels in the order and at the scale of a profile (format 9.2)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limosa.codec.feature.source import Channels
from limosa.tensors import Tensor, TensorSpec, numpy_dtype

Array = NDArray[Any]
PROFILED_DTYPES = ("F64", "F32", "F16", "BF16")


def to_coded(tensor: Tensor, channels: Channels) -> Tensor:
    """Permute and divide; the shape stays, and what is not finite as well."""
    values = np.take(_wide(tensor.numpy()), channels.order, axis=channels.axis)
    with np.errstate(over="ignore"):
        divided = values / _scales(values, channels)
    return Tensor.from_numpy(_narrow(_finite(values, divided), tensor.dtype))


def from_coded(tensor: Tensor, channels: Channels) -> Tensor:
    """The reverse: one multiplication in binary32 (F64: binary64), one rounding to the dtype."""
    values = _wide(tensor.numpy())
    with np.errstate(over="ignore"):
        product = values * _scales(values, channels)
    out = np.empty_like(values)
    at: list[Any] = [slice(None)] * values.ndim
    at[channels.axis] = channels.order
    out[tuple(at)] = _finite(values, product)
    return Tensor.from_numpy(_narrow(out, tensor.dtype))


def _finite(values: Array, scaled: Array) -> Array:
    """*scaled*, but *values* where these are not finite: a NaN's bits are its own."""
    finite = np.isfinite(values)
    return scaled if finite.all() else np.where(finite, scaled, values)


def row_units(spec: TensorSpec, *, lossy: bool) -> int:
    """Units of a row in the sense of docs/format.md 3.11.

    A row of levels is a row of a map, whose neighbours above are worth looking at; without loss it
    is a whole map, whose values repeat.
    """
    axes = spec.shape[-1:] if lossy or len(spec.shape) < 3 else spec.shape[2:]
    return max(1, math.prod(axes))


def _wide(array: Array) -> Array:
    return array if array.dtype == np.float64 else array.astype(np.float32)


def _narrow(array: Array, dtype: str) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(numpy_dtype(dtype))


def _scales(values: Array, channels: Channels) -> Array:
    along = [1] * values.ndim
    along[channels.axis] = -1
    return channels.scale.astype(values.dtype).reshape(along)
