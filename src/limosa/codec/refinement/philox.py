"""Random numbers that are the same everywhere: Philox4x32-10, counter based, integers only.

Source: J. Salmon, M. Moraes, R. Dror and D. Shaw, "Parallel random numbers: as easy as 1, 2, 3",
2011. The test vectors are theirs (tests/unit/test_refinement_philox.py).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


def philox(counters: NDArray[np.uint32], key: tuple[int, int]) -> NDArray[np.uint32]:
    """Four words for each counter.

    Args:
        counters: shape (n, 4).
        key: two words.

    Returns:
        Shape (n, 4).

    >>> philox(np.zeros((1, 4), np.uint32), (0, 0))[0].tolist() == [
    ...     0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    True
    """
    x = [column.astype(np.uint64) for column in counters.T]
    low, high = key
    for _ in range(_ROUNDS):
        first, second = _MULTIPLIERS[0] * x[0], _MULTIPLIERS[1] * x[2]
        x = [
            (second >> _HALF) ^ x[1] ^ np.uint64(low),
            second & _LOW,
            (first >> _HALF) ^ x[3] ^ np.uint64(high),
            first & _LOW,
        ]
        low, high = (low + _WEYL[0]) & 0xFFFFFFFF, (high + _WEYL[1]) & 0xFFFFFFFF
    return np.stack(x, axis=1).astype(np.uint32)


def words(seed: int, stream: tuple[int, int], count: int) -> NDArray[np.uint32]:
    """The first *count* words of a stream of a seed (docs/format.md 8.3).

    Args:
        seed: below 2**64.
        stream: two numbers below 2**32: the tensor, and the part of it.
        count: how many; a shorter request gives the beginning of a longer one.
    """
    blocks = -(-count // 4)
    counters = np.empty((blocks, 4), np.uint32)
    counters[:, 0] = np.arange(blocks, dtype=np.uint32)
    counters[:, 1] = 0
    counters[:, 2:] = stream
    return philox(counters, (seed & 0xFFFFFFFF, seed >> 32)).reshape(-1)[:count]


def signs(seed: int, stream: tuple[int, int], count: int) -> NDArray[np.float64]:
    """*count* numbers 1 or -1: the lowest bit of each word; 1 where it is set.

    >>> signs(0, (0, 0), 4).tolist()
    [1.0, 1.0, -1.0, -1.0]
    """
    return (words(seed, stream, count) & np.uint32(1)).astype(np.float64) * 2.0 - 1.0


def mask(seed: int, stream: tuple[int, int], count: int, threshold: int) -> NDArray[np.bool_]:
    """*count* booleans, true where a word is below *threshold*, which is at most 2**32."""
    chosen: NDArray[np.bool_] = words(seed, stream, count).astype(np.uint64) < np.uint64(threshold)
    return chosen
