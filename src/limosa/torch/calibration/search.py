"""Searches along the one parameter of the rate-distortion curve."""

from __future__ import annotations

import math
from collections.abc import Callable

FIRST = 0.01
SMALLEST, LARGEST = 1e-9, 1e3
"""Divergences in nats: below, levels are no coarser than floats; above, all weights are 0."""
BITS_TOLERANCE = 0.002
DIVERGENCE_RATIO = 1.1
_STEPS = 16


def reach_bits(bits_at: Callable[[float], float], target: float) -> float:
    """The divergence at which the weights take *target* bits each, within 0.2 % if it exists.

    Args:
        bits_at: bits of a weight at a divergence; falls as the divergence grows.
        target: bits of a weight.

    >>> round(reach_bits(lambda nats: 2.0 - math.log2(nats) / 2, 4.0), 4)
    0.0625
    """
    low, high = math.log2(SMALLEST), math.log2(LARGEST)  # too many bits, too few
    guess, best = math.log2(FIRST), (math.inf, FIRST)
    for _ in range(_STEPS):
        excess = bits_at(2**guess) - target
        best = min(best, (abs(excess), 2**guess))
        if abs(excess) <= BITS_TOLERANCE * target:
            break
        low, high = (guess, high) if excess > 0 else (low, guess)
        # A step that is twice as large saves a bit and costs four times the divergence.
        guess += 2 * excess
        if not low < guess < high:
            guess = (low + high) / 2
    return best[1]


def largest_within(accepted: Callable[[float], bool]) -> float | None:
    """The largest divergence that is accepted, within 10 %; None if none is.

    >>> 0.45 < largest_within(lambda nats: nats < 0.5) < 0.5
    True
    """
    good, bad = 0.0, math.inf
    guess = FIRST
    while (good == 0.0 or bad == math.inf) and SMALLEST < guess < LARGEST:
        good, bad = (guess, bad) if accepted(guess) else (good, guess)
        guess = guess / 4 if good == 0.0 else guess * 4
    while good and bad / good > DIVERGENCE_RATIO and bad < math.inf:
        guess = math.sqrt(good * bad)
        good, bad = (guess, bad) if accepted(guess) else (good, guess)
    return good or None
