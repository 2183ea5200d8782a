"""What a lossy quality does to each tensor before, or while, it is coded."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from limosa.codec.constants import FLOAT_DTYPES, FLOAT_FIELDS, UNIT_BYTES, unit_count
from limosa.codec.quality import (
    KEPT_MANTISSA,
    Codebook,
    Lossy,
    MaxError,
    Signs,
    Step,
)
from limosa.errors import ConfigError
from limosa.tensors import Bytes, TensorSpec, numpy_dtype

# The weight of a bit in units of step**2 where levels are chosen by their cost too: about what
# a bit is worth by the high-rate theory, 0.1 of the squared distance of neighbours in a quantizer.
_TRELLIS_LAMBDA, _PLAIN_LAMBDA = 0.4, 0.08
# Step of a kept tensor's difference over its deviation: 47 dB.
_KEPT_SHARE = 2.0**-6
# About the least step that the bitstream holds, and the inverse of the largest; beyond them
# nothing is gained either.
_LEAST_STEP = 2.0**-120
_LLOYD_ROUNDS = 50
_START_BINS = 4096


class Levels(NamedTuple):
    """What the core is asked for; see ``LevelsRequest`` in core/include/limosa/chunk.hpp."""

    step: float = 1.0
    dependent: bool = False
    rate_weight: float = 0.0
    adaptive: bool = False
    signs_only: bool = False
    row_scales: bool = False
    max_error: float = 0.0
    book: Sequence[float] = ()


class Treatment(NamedTuple):
    """How one tensor is coded: these bytes, exactly or as levels."""

    data: Bytes
    levels: Levels | None = None


def treat(spec: TensorSpec, data: Bytes, base: Bytes | None, quality: Lossy) -> Treatment:
    """Apply *quality* to a tensor; what is not float stays as it is."""
    if spec.dtype not in FLOAT_DTYPES or not data.size:
        return Treatment(data)
    if isinstance(quality, MaxError):
        return _bounded(spec, data, quality)
    if quality.keeps(spec):
        return _kept(spec, data, base)
    if isinstance(quality, Step):
        return Treatment(data, _step_levels(spec, quality))
    if isinstance(quality, Codebook):
        return _coded_by_book(spec, data, base, quality.k)
    assert isinstance(quality, Signs), quality
    return Treatment(data, Levels(signs_only=True))


def row_units(spec: TensorSpec) -> int:
    """Units in one row of the first axis: the weights of one output channel."""
    rows = spec.shape[0] if len(spec.shape) > 1 else 1
    return max(1, unit_count(spec) // max(rows, 1))


def _step_levels(spec: TensorSpec, quality: Step) -> Levels:
    dependent = quality.effort > 1 and not quality.rounded
    choosing = _TRELLIS_LAMBDA if dependent else _PLAIN_LAMBDA
    rate_weight = 0.0 if quality.rounded else choosing
    size = quality.size_of(spec.name)
    # The union of the two quantizers of the trellis has levels half as far apart.
    step = with_twelve_bits(size / 2 if dependent else size)
    return Levels(
        step, dependent, rate_weight, adaptive=quality.effort > 5, row_scales=quality.by_row is True
    )


def _coded_by_book(spec: TensorSpec, data: Bytes, base: Bytes | None, k: int) -> Treatment:
    if base is None:
        return Treatment(round_to_codebook(data, spec.dtype, k))
    moved = finite_values(data, base, spec.dtype)
    if not moved.size:
        return Treatment(data)
    return Treatment(data, Levels(book=_codebook(moved, k).tolist()))


def _kept(spec: TensorSpec, data: Bytes, base: Bytes | None) -> Treatment:
    """Near-lossless: rounded, or against a base so many levels for the difference."""
    if base is not None:
        moved = finite_values(data, base, spec.dtype)
        with np.errstate(over="ignore"):
            deviation = math.sqrt(float(np.mean(moved * moved))) if moved.size else 0.0
        if not _LEAST_STEP <= deviation * _KEPT_SHARE <= 1 / _LEAST_STEP:
            return Treatment(data)
        return Treatment(data, Levels(with_twelve_bits(deviation * _KEPT_SHARE)))
    return Treatment(round_mantissa(data, spec.dtype, KEPT_MANTISSA))


def with_twelve_bits(step: float, rounding: Callable[[float], int] = round) -> float:
    """A step as the bitstream holds it (docs/format.md 3.11)."""
    significand, exponent = math.frexp(step)
    if not -125 < exponent < 128:
        raise ConfigError("a step out of range", found=repr(step), allowed="2**-125 to 2**126")
    return math.ldexp(rounding(significand * 4096), exponent - 12)


def _bounded(spec: TensorSpec, data: Bytes, quality: MaxError) -> Treatment:
    if quality.abs is None:
        return Treatment(round_mantissa(data, spec.dtype, quality.mantissa))
    if quality.keeps(spec):
        rounded = round_mantissa(data, spec.dtype, KEPT_MANTISSA)
        return Treatment(_where_within(quality.abs, rounded, data, spec.dtype))
    if quality.abs < _LEAST_STEP:
        return Treatment(data)
    # A little less, so that rounding in the dtype seldom makes an exception.
    step = with_twelve_bits(1.998 * quality.abs, math.floor)
    return Treatment(data, Levels(step, max_error=quality.abs))


def as_floats(data: Bytes, dtype: str) -> NDArray[np.float64]:
    """The values of float units (docs/format.md 2.3) in binary64; C64 gives its parts."""
    part = "F32" if dtype == "C64" else dtype
    return data.view(numpy_dtype(part)).astype(np.float64)


def finite_values(data: Bytes, base: Bytes | None, dtype: str) -> NDArray[np.float64]:
    """Those values of float units, or of their differences from *base*, that are finite."""
    values = as_floats(data, dtype)
    if base is not None:
        with np.errstate(invalid="ignore", over="ignore"):
            values = values - as_floats(base, dtype)
    return values[np.isfinite(values)]


def round_mantissa(data: Bytes, dtype: str, bits: int) -> Bytes:
    """Float units with all but *bits* bits of mantissa rounded away, to nearest, ties to even.

    NaN, infinities, denormals and what would become an infinity stay as they are.

    >>> round_mantissa(np.array([1.01], np.float32).view(np.uint8), "F32", 7).view(np.float32)
    array([1.0078125], dtype=float32)
    """
    exponent_bits, mantissa_bits = FLOAT_FIELDS[dtype]
    dropped = mantissa_bits - bits
    if dropped <= 0:
        return data
    unit = np.dtype(f"<u{UNIT_BYTES[dtype]}")
    units = data.view(unit)
    one = unit.type(1)
    half = (one << unit.type(dropped - 1)) - one
    odd = (units >> unit.type(dropped)) & one
    low = (one << unit.type(dropped)) - one
    with np.errstate(over="ignore"):
        rounded = (units + half + odd) & ~low
    mask = unit.type(2**exponent_bits - 1)
    shift = unit.type(mantissa_bits)
    before, after = (units >> shift) & mask, (rounded >> shift) & mask
    keep = (before == 0) | (before == mask) | (after == mask)
    result: Bytes = np.where(keep, units, rounded).view(np.uint8)
    return result


def _where_within(bound: float, rounded: Bytes, data: Bytes, dtype: str) -> Bytes:
    """*rounded* where it is within *bound* of *data*, else *data*."""
    if rounded is data:
        return data
    with np.errstate(invalid="ignore"):
        within = np.abs(as_floats(rounded, dtype) - as_floats(data, dtype)) <= bound
    unit = np.dtype(f"<u{UNIT_BYTES[dtype]}")
    result: Bytes = np.where(within, rounded.view(unit), data.view(unit)).view(np.uint8)
    return result


def round_to_codebook(data: Bytes, dtype: str, k: int) -> Bytes:
    """Float units replaced by the nearest of *k* values that Lloyd's algorithm places.

    What is not finite stays as it is; zero stays zero where it occurs often.

    Source: S. P. Lloyd, "Least squares quantization in PCM", 1982.
    """
    values = as_floats(data, dtype)
    finite = np.isfinite(values)
    if not finite.any():
        return data
    book = _codebook(values[finite], k)
    part = numpy_dtype("F32" if dtype == "C64" else dtype)
    # Sorted again: rounding to the dtype may join neighbours.
    book = np.unique(book.astype(part).astype(np.float64))
    middles = (book[1:] + book[:-1]) / 2
    chosen = book[np.searchsorted(middles, values)].astype(part)
    result: Bytes = np.where(finite, chosen, data.view(part)).view(np.uint8)
    return result


def _codebook(values: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    ordered = np.sort(values)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    # Lloyd's algorithm only finds a near optimum: start with the density of levels that is best for
    # many of them, the cube root of that of the values (P. F. Panter and W. Dite, 1951).
    counts, edges = np.histogram(ordered, bins=_START_BINS)
    shares = np.concatenate([[0.0], np.cumsum(np.cbrt(counts))])
    book = np.unique(np.interp((np.arange(k) + 0.5) * shares[-1] / k, shares, edges))
    for _ in range(_LLOYD_ROUNDS):
        edges = np.searchsorted(ordered, (book[1:] + book[:-1]) / 2)
        edges = np.concatenate([[0], edges, [ordered.size]])
        counts = np.diff(edges)
        means = np.diff(sums[edges]) / np.maximum(counts, 1)
        moved = np.where(counts > 0, means, book)
        if np.allclose(moved, book, rtol=1e-6, atol=0):
            break
        book = moved
    zeros = np.searchsorted(ordered, 0.0, "right") - np.searchsorted(ordered, 0.0, "left")
    if zeros * k > ordered.size:
        book[np.abs(book).argmin()] = 0.0
    return np.asarray(np.unique(book))
