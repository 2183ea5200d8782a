"""The tensors of a model, rounded at any point of the rate-distortion curve."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from limosa.torch.calibration.fisher import FisherSums
from limosa.torch.calibration.rounding import (
    Factor,
    entropy_bits,
    factor,
    round_levels,
    short_step,
)
from limosa.torch.calibration.views import MatrixView

SMALLEST_STEP, LARGEST_STEP = 2.0**-100, 2.0**100
"""Steps stay normal binary32 numbers, and so do their first multiples."""


@dataclass(frozen=True)
class Rounded:
    """A tensor of levels times a step.

    Attributes:
        tensor: of the original's shape and dtype.
        step: of 12 significant bits.
        bits: entropy of the levels.
    """

    tensor: torch.Tensor
    step: float
    bits: float


class Layers:
    """Weights with the factors of their Hessians.

    One slope for all: a step falls with the root of the mean cost of its tensor's errors, so that
    a bit more or less brings the same divergence everywhere (reverse water-filling).

    Args:
        tensors: the weights.
        views: of those to round.
        sums: of the samples. A tensor without any gradient is left as it is, for nothing is
            known about it; so is one that holds NaN or infinities.
        damping: as of :func:`limosa.torch.calibration.rounding.factor`.
        keep_zeros: as of :func:`limosa.torch.calibration.rounding.round_levels`.
    """

    def __init__(
        self,
        tensors: Mapping[str, torch.Tensor],
        views: Mapping[str, MatrixView],
        sums: FisherSums,
        damping: float,
        *,
        keep_zeros: bool = False,
    ) -> None:
        self._tensors, self._views, self._keep_zeros = tensors, views, keep_zeros
        self._factors: dict[str, Factor] = {}
        for name, view in views.items():
            found = factor(sums.hessian(name, view), damping)
            if found is not None and bool(tensors[name].isfinite().all()):
                self._factors[name] = found

    @property
    def count(self) -> int:
        """The number of weights that are rounded."""
        return sum(self._tensors[name].numel() for name in self._factors)

    def rounded(self, divergence: float, rate_weight: float) -> dict[str, Rounded]:
        """All tensors at a divergence, in nats, that a quadratic model expects of their errors."""
        # Errors of a step s are uniform: s² / 12 each, of which the divergence takes a half.
        unit = math.sqrt(24 * divergence / max(self.count, 1))
        return {name: self._round(name, unit, rate_weight) for name in self._factors}

    def _round(self, name: str, unit: float, rate_weight: float) -> Rounded:
        tensor, view, known = self._tensors[name], self._views[name], self._factors[name]
        step = unit / math.sqrt(known.sensitivity)
        step = short_step(min(max(step, SMALLEST_STEP), LARGEST_STEP))
        matrices = view.cut(tensor.detach()).to(known.upper.device)
        levels = round_levels(matrices, known, step, rate_weight, keep_zeros=self._keep_zeros)
        # As the decoder does it: an exact product, rounded once to F32 and once to the dtype.
        values = (view.join(levels).double() * step).float().to(tensor)
        return Rounded(values, step, entropy_bits(levels))
