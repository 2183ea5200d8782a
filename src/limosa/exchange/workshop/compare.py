"""How far one model is from another."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from limosa.codec.base import Base
from limosa.errors import ChecksumError
from limosa.tensors import Tensor, TensorSpec

_PIECE = 2**20


@dataclass(frozen=True)
class Distance:
    """Between two models of the same tensors.

    Attributes:
        snr: signal-to-noise ratio in dB over all elements of float tensors; infinite if equal.
        max_error: the largest difference of an element.
    """

    snr: float
    max_error: float


def compare(target: Base, other: Base) -> Distance:
    """How far *other* is from *target*, element by element, in double precision.

    Raises:
        ChecksumError: integers, NaN or infinities differ, or tensors do: no loss explains that.

    >>> one = Base.from_tensors({"w": Tensor.from_numpy(np.float32([3, 4]))})
    >>> two = Base.from_tensors({"w": Tensor.from_numpy(np.float32([3, 3.5]))})
    >>> found = compare(one, two)
    >>> round(found.snr, 9), found.max_error
    (20.0, 0.5)
    """
    signal, noise = _Power(), _Power()
    for name, spec in target.specs.items():
        if other.specs.get(name) != spec:
            raise _differs(name, "its dtype or shape")
        one, two = target.data(name, spec), other.data(name, spec)
        assert one is not None
        assert two is not None
        if np.array_equal(one, two):
            values = _floats(spec, one)
            if values is not None:
                signal.add(_finite(values))
            continue
        old, new = _floats(spec, one), _floats(spec, two)
        if old is None or new is None:
            raise _differs(name, "an integer")
        finite = np.isfinite(old)
        if not np.array_equal(old[~finite], new[~finite], equal_nan=True):
            raise _differs(name, "NaN or an infinity")
        signal.add(old[finite])
        with np.errstate(over="ignore"):
            noise.add(np.nan_to_num(new[finite] - old[finite]))
    if noise.peak == 0.0:
        return Distance(math.inf, 0.0)
    return Distance(signal.decibels() - noise.decibels(), noise.peak)


class _Power:
    """A sum of squares, of numbers whose squares may overflow."""

    def __init__(self) -> None:
        self._sum, self.peak = 0.0, 0.0

    def add(self, values: NDArray[np.float64]) -> None:
        """The squares of *values*."""
        peak = max(self.peak, float(np.abs(values).max(initial=0.0)))
        if peak > 0.0:
            self._sum *= (self.peak / peak) ** 2
            self._sum += float(np.square(values / peak).sum())
            self.peak = peak

    def decibels(self) -> float:
        """10 times its logarithm."""
        if self.peak == 0.0:
            return -math.inf
        return 10 * math.log10(self._sum) + 20 * math.log10(self.peak)


def _floats(spec: TensorSpec, data: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    """The values of a float tensor as F64; None of another."""
    values = Tensor(spec.dtype, spec.shape, data).numpy()
    if values.dtype.kind == "c":
        values = np.ascontiguousarray(values).ravel().view(values.real.dtype)
    if values.dtype.kind not in "fV" and "float" not in values.dtype.name:
        return None
    return np.asarray(values, np.float64).ravel()


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[np.isfinite(values)]


def _differs(name: str, what: str) -> ChecksumError:
    return ChecksumError(
        "a copy differs where it must not",
        where=f"tensor {name!r}",
        found=f"another value of {what}",
    )
