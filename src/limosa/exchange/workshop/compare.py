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
    >>> compare(one, two)
    Distance(snr=20.0, max_error=0.5)
    """
    signal = noise = largest = 0.0
    for name, spec in target.specs.items():
        if other.specs.get(name) != spec:
            raise _differs(name, "its dtype or shape")
        one, two = target.data(name, spec), other.data(name, spec)
        assert one is not None
        assert two is not None
        if np.array_equal(one, two):
            values = _floats(spec, one)
            signal += 0.0 if values is None else float(np.square(_finite(values)).sum())
            continue
        old, new = _floats(spec, one), _floats(spec, two)
        if old is None or new is None:
            raise _differs(name, "an integer")
        finite = np.isfinite(old)
        if not np.array_equal(old[~finite], new[~finite], equal_nan=True):
            raise _differs(name, "NaN or an infinity")
        error = np.abs(new[finite] - old[finite])
        signal += float(np.square(old[finite]).sum())
        noise += float(np.square(error).sum())
        largest = max(largest, float(error.max(initial=0.0)))
    if noise == 0.0:
        return Distance(math.inf, 0.0)
    return Distance(10 * math.log10(signal / noise) if signal else -math.inf, largest)


def _floats(spec: TensorSpec, data: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    """The values of a float tensor as F64; None of another."""
    values = Tensor(spec.dtype, spec.shape, data).numpy()
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
