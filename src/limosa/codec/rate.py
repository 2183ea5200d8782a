"""A result instead of a step (size, bits or signal-to-noise ratio), found by real encodings.

All tensors share one step: at a given size, equal slopes of distortion over rate are the least
distortion in all (T. Wiegand and H. Schwarz, "Source coding", 2011, section 5).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from limosa.codec.base import Base
from limosa.codec.constants import FLOAT_DTYPES
from limosa.codec.measure import sample
from limosa.codec.quality import Step, Target
from limosa.codec.quantize import finite_values
from limosa.errors import ConfigError
from limosa.files.bundle import Bundle

#: So many encodings at most, one of them to write what an earlier one than the last had found.
ATTEMPTS = 12
_TOLERANCE = 0.01
# Where to aim inside the tolerance: what misses by a little still counts.
_AIM = 0.002
# Steps between these multiples of the deviation of the weights, as powers of two.
_FINEST, _COARSEST = -26, 8
_JUMP = 6.0
_DB_PER_BIT = 20 * math.log10(2)


@dataclass(frozen=True)
class Attempt:
    """What one step gave: bytes of the file and dB."""

    quality: Step
    nbytes: int
    snr: float


class _Goal:
    """How far an attempt is from its target: 0 is where to aim, below 0 the step is too fine."""

    def __init__(self, target: Target, bundle: Bundle) -> None:
        self._elements = max(1, sum(spec.elements for spec in bundle.specs))
        self._nbytes = target.wanted_bytes(bundle.nbytes, self._elements)
        self._snr = target.snr or 0.0

    @property
    def first_guess(self) -> float:
        """log2 of the step over the deviation, by the high-rate theory of a Gaussian source."""
        if self._nbytes is None:
            return 1.79 - self._snr / _DB_PER_BIT
        return 2.05 - 8 * self._nbytes / self._elements

    def distance(self, attempt: Attempt) -> float:
        """In octaves of the step, which are bits an element at high rates."""
        if self._nbytes is None:
            return (self._snr * (1 + _AIM) - min(attempt.snr, 400.0)) / _DB_PER_BIT
        return 8 * (self._nbytes * (1 - _AIM) - attempt.nbytes) / self._elements

    def keeps(self, attempt: Attempt) -> bool:
        """Whether the attempt is on the side that the user may rely on."""
        if self._nbytes is None:
            return attempt.snr >= self._snr
        return attempt.nbytes <= self._nbytes

    def reached(self, attempt: Attempt) -> bool:
        """Whether it is within the tolerance as well."""
        if self._nbytes is None:
            return self._snr <= attempt.snr <= self._snr * (1 + _TOLERANCE)
        return self._nbytes * (1 - _TOLERANCE) <= attempt.nbytes <= self._nbytes

    def describe(self, attempt: Attempt) -> str:
        """What it gave, for a message."""
        return f"{attempt.nbytes} bytes" if self._nbytes is not None else f"{attempt.snr:.2f} dB"


def find_step(
    target: Target, bundle: Bundle, base: Base | None, encode: Callable[[Step], Attempt]
) -> tuple[Attempt, bool]:
    """The attempt that reaches *target*, and whether it was the last.

    It takes fewer than :data:`ATTEMPTS` calls of *encode*.

    Args:
        target: what is asked for.
        bundle: with random access.
        base: what *encode* codes against.
        encode: encodes all of *bundle*.

    Raises:
        ConfigError: no step reaches it, or *bundle* reads from a pipe.
    """
    if not bundle.random_access:
        raise ConfigError(
            "a target is found by encoding several times, and a pipe can be read once",
            found=str(target),
            remedy="give a file, or a step",
        )
    goal = _Goal(target, bundle)
    deviation = _deviation(bundle, base, target)
    search = _Search(math.log2(deviation), goal.first_guess)
    best: Attempt | None = None
    for _ in range(ATTEMPTS - 1):
        attempt = encode(target.step(2.0**search.x, bundle.specs))
        distance = goal.distance(attempt)
        nearer = best is None or abs(distance) < abs(goal.distance(best))
        if goal.keeps(attempt) and nearer:
            best = attempt
        if goal.reached(attempt) or not search.go_on(distance):
            break
    if best is None:
        raise ConfigError(
            "the target is out of reach",
            found=goal.describe(attempt),
            allowed=str(target),
            remedy="ask for less, or let lossy= name tensors that are kept near-lossless now",
        )
    return best, best is attempt


class _Search:
    """The zero of a falling function of x = log2(step), whose slope is about -1."""

    def __init__(self, deviation: float, guess: float) -> None:
        self._lowest, self._highest = deviation + _FINEST, deviation + _COARSEST
        self.x = deviation + guess
        # The nearest points on both sides: too fine (distance below 0), too coarse.
        self._fine: tuple[float, float] | None = None
        self._coarse: tuple[float, float] | None = None
        self._same = 0

    def go_on(self, distance: float) -> bool:
        """Move to the next x; False at the end of the range."""
        too_coarse = distance > 0
        if self.x <= self._lowest if too_coarse else self.x >= self._highest:
            return False
        same = (self._coarse if too_coarse else self._fine) is not None
        self._same = self._same + 1 if same and self._fine and self._coarse else 0
        if too_coarse:
            self._coarse = self.x, distance
        else:
            self._fine = self.x, distance
        self.x = min(max(self._next(distance), self._lowest), self._highest)
        return True

    def _next(self, distance: float) -> float:
        if self._fine is None or self._coarse is None:
            # At few bits the slope is less than 1: a little farther brackets sooner.
            return self.x - min(max(1.2 * distance, -_JUMP), _JUMP)
        (a, below), (b, above) = self._fine, self._coarse
        if self._same > 1:
            # One end stays, so the line creeps towards the other: halve instead.
            self._same = 0
            return (a + b) / 2
        return a - below * (b - a) / (above - below)


def _deviation(bundle: Bundle, base: Base | None, target: Target) -> float:
    """Root mean square of what is quantized, from a sample; 1 without any."""
    total = count = 0.0
    for piece in sample(bundle):
        spec = piece.spec
        if spec.dtype not in FLOAT_DTYPES or target.keeps(spec):
            continue
        held = None if base is None else base.data(spec.name, spec)
        part = None if held is None else held[piece.begin : piece.end]
        values = finite_values(piece.data, part, spec.dtype)
        total += float(np.dot(values, values))
        count += values.size
    return math.sqrt(total / count) if total else 1.0
