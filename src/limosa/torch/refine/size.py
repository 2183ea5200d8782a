"""The step that gives an update of a wanted size."""

from __future__ import annotations

import math
from collections.abc import Callable

from limosa.errors import ConfigError

_TOLERANCE = 0.03
_STEPS = 40
_LARGEST = 2.0**12


def reach_bytes(size_at: Callable[[float], int], start: float, wanted: int) -> float:
    """The step, from *start* on, whose size is at most *wanted* and within 3 % of it.

    Args:
        size_at: bytes of the update at a step; falls, though not strictly, as the step grows.
        start: a first guess.
        wanted: bytes.

    Raises:
        ConfigError: even the largest step needs more, or the finest needs less than 97 %.

    >>> round(reach_bytes(lambda step: int(1000 / step), 1.0, 500), 1)
    2.0
    """
    low, high = math.log2(start), math.log2(start)
    if size_at(start) > wanted:
        while size_at(2**high) > wanted:
            high += 1
            if 2**high > start * _LARGEST:
                raise ConfigError(
                    "too few bytes", where="target_bytes", found=str(wanted),
                    allowed=f"{size_at(2**high)} or more",
                )  # fmt: skip
        low = high - 1
    else:
        while size_at(2**low) <= wanted:
            if 2**low * _LARGEST < start:
                raise ConfigError(
                    "more bytes than the update can use", where="target_bytes",
                    found=str(wanted), allowed=f"at most {size_at(2**low)}",
                )  # fmt: skip
            low -= 1
        high = low + 1
    for _ in range(_STEPS):
        if size_at(2**high) >= (1 - _TOLERANCE) * wanted:
            break
        middle = (low + high) / 2
        low, high = (middle, high) if size_at(2**middle) > wanted else (low, middle)
    return float(2**high)
