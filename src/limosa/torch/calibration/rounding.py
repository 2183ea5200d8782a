"""Rounding to levels so that what one weight loses the later ones make good (OBS, GPTQ).

Weights go column by column; the error of a column is fed forward into the columns that are still
to come, as the Hessian says (Frantar and Alistarh, arXiv 2210.17323). With a rate weight, a level
may be another than the nearest one if its shorter code is worth the error (CERWU, arXiv
2505.18758).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

BLOCK = 128
"""Columns that are fed forward at once: within a block by column, behind it by one product."""
SMOOTHING = 8.0
"""Levels that the Laplace model counts for beside those of the histogram."""
MAX_LEVEL = 2**20
"""Larger levels gain nothing in F32 and would ask for huge histograms."""


@dataclass(frozen=True)
class Factor:
    """A damped Hessian, ready for rounding.

    Attributes:
        order: (groups, columns) int64, the columns from the most to the least sensitive.
        upper: (groups, columns, columns) float32, upper Cholesky factor of the inverse Hessian in
            that order. 1 / upper[j, j]² is how much a squared error of column j costs after the
            later columns have made good what they can.
        sensitivity: mean of these costs.
    """

    order: torch.Tensor
    upper: torch.Tensor
    sensitivity: float


def factor(hessian: torch.Tensor, damping: float) -> Factor | None:
    """Factorise the Hessians (groups, columns, columns); None if they are zero.

    Args:
        hessian: symmetric and positive semidefinite.
        damping: is added to the diagonals as a share of their mean over all groups, so that a
            group that the samples hardly reach is no free lunch.
    """
    matrix = hessian.double()
    mean = float(matrix.diagonal(dim1=1, dim2=2).mean())
    if not (mean > 0 and math.isfinite(mean)):
        return None
    order = matrix.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True, stable=True)
    matrix = matrix.take_along_dim(order[:, :, None], 1).take_along_dim(order[:, None, :], 2)
    upper = _upper_of_inverse(matrix, damping * mean)
    costs = upper.diagonal(dim1=1, dim2=2) ** -2
    return Factor(order, upper.float(), float(costs.mean()))


def _upper_of_inverse(matrix: torch.Tensor, added: float) -> torch.Tensor:
    """The factor U of inverse(matrix + added I) = Uᵀ U; adds more where that has to be."""
    identity = torch.eye(matrix.shape[1]).to(matrix)
    upper: torch.Tensor
    while True:  # sums in float32 are off by a little, and slightly indefinite by that
        lower, failed = torch.linalg.cholesky_ex(matrix + added * identity)
        upper, failed_too = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
        if not (failed.any() or failed_too.any()):
            return upper
        added *= 10


def round_levels(
    weights: torch.Tensor,
    factor: Factor,
    step: float,
    rate_weight: float = 0.0,
    *,
    keep_zeros: bool = False,
) -> torch.Tensor:
    """Round to levels, float32 integers of the shape of *weights*.

    Args:
        weights: (groups, rows, columns).
        factor: of the Hessians of the groups.
        step: the distance between two levels.
        rate_weight: what a bit may cost, in units of the mean cost of an error of one step.
        keep_zeros: weights that are 0 stay 0, and others make good what they were to have become
            (SparseGPT, arXiv 2301.00774).
    """
    levels = _round(weights, factor, step, None, keep_zeros)
    if rate_weight > 0:
        prices = rate_weight * _code_lengths(levels)
        levels = _round(weights, factor, step, prices, keep_zeros)
    return levels


def _round(
    weights: torch.Tensor,
    factor: Factor,
    step: float,
    prices: torch.Tensor | None,
    keep_zeros: bool,
) -> torch.Tensor:
    order = factor.order[:, None, :].expand(weights.shape)
    left = weights.float().gather(2, order)
    levels = torch.empty_like(left)
    zeros = left == 0 if keep_zeros else None
    columns = left.shape[2]
    for start in range(0, columns, BLOCK):
        block = slice(start, min(start + BLOCK, columns))
        upper = factor.upper[:, block, block]
        zero = None if zeros is None else zeros[:, :, block]
        levels[:, :, block], errors = _round_block(
            left[:, :, block], upper, factor, step, prices, zero
        )
        left[:, :, block.stop :] -= errors @ factor.upper[:, block, block.stop :]
    # Not -0: decoders know no sign of a zero level.
    return torch.empty_like(levels).scatter_(2, order, levels + 0.0)


def _round_block(
    left: torch.Tensor,
    upper: torch.Tensor,
    factor: Factor,
    step: float,
    prices: torch.Tensor | None,
    zeros: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Levels and scaled errors (groups, rows, columns) of a few columns; spends *left*."""
    levels, errors = torch.empty_like(left), torch.empty_like(left)
    for column in range(left.shape[2]):
        exact, pivot = left[:, :, column] / step, upper[:, column, column, None]
        level = exact.round().clamp(-MAX_LEVEL, MAX_LEVEL)
        if prices is not None:
            level = _cheapest(exact, level, pivot**-2 / factor.sensitivity, prices)
        if zeros is not None:
            level = level.masked_fill(zeros[:, :, column], 0.0)
        error = (exact - level) * step / pivot
        levels[:, :, column], errors[:, :, column] = level, error
        left[:, :, column + 1 :] -= error[:, :, None] * upper[:, column, None, column + 1 :]
    return levels, errors


def _cheapest(
    exact: torch.Tensor, nearest: torch.Tensor, cost: torch.Tensor, prices: torch.Tensor
) -> torch.Tensor:
    """The level, of the nearest, the next one towards zero and zero, of least cost plus price."""
    choices = torch.stack([nearest, nearest - nearest.sign(), torch.zeros_like(nearest)])
    magnitudes = choices.abs().long().clamp(max=len(prices) - 1)
    totals = cost * (exact - choices) ** 2 + prices[magnitudes]
    return choices.gather(0, totals.argmin(0, keepdim=True))[0]


def _code_lengths(levels: torch.Tensor) -> torch.Tensor:
    """Bits for the levels of magnitude 0, 1, …: their histogram, smoothed by a Laplace model."""
    counts = torch.bincount(levels.abs().long().flatten()).double()
    mean = max(float(levels.abs().double().mean()), 1e-3)
    ratio = (math.sqrt(1 + mean**2) - 1) / mean  # of a two-sided geometric law of that mean
    laplace = ratio ** torch.arange(len(counts) + 1, device=levels.device).double()
    laplace[1:] *= 2
    counts = torch.cat([counts, counts.new_zeros(1)]) + SMOOTHING * laplace / laplace.sum()
    bits = -(counts / counts.sum()).log2()
    bits[1:] += 1  # the sign
    return bits.float()


def entropy_bits(levels: torch.Tensor) -> float:
    """Bits for the levels with the best static code for this tensor, tables apart.

    >>> entropy_bits(torch.tensor([0.0, 1.0, 0.0, 1.0]))
    4.0
    """
    counts = torch.unique(levels, return_counts=True)[1].double()
    return float((counts * (counts.sum() / counts).log2()).sum())


def short_step(step: float) -> float:
    """The largest float with a significand of 12 bits that is not above *step*.

    >>> short_step(0.1)
    0.0999755859375
    """
    mantissa, exponent = math.frexp(step)
    return math.ldexp(math.floor(mantissa * 4096), exponent - 12)
