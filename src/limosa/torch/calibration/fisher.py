"""Hessians of the output's divergence for the columns of each tensor, from samples.

Rounding after GPTQ takes H = X Xᵀ from a layer's inputs X: all errors of the layer's outputs
count the same, and each position of a convolution by itself. Here a sample gives one gradient D
(rows, columns) of a score to each tensor, and H = E[Dᵀ D]: the Fisher information, folded over
the rows. It knows how far the output moves, that errors of many positions cancel or add up, and
which layers are sensitive, in one unit (nats) for all of them, so one step can be given to all
in shares. It needs no hooks and no knowledge of the layers: whatever has a weight has a gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import nn

from limosa.errors import ConfigError
from limosa.torch.calibration.samples import Data
from limosa.torch.calibration.views import MatrixView


@dataclass
class FisherSums:
    """Sums over samples.

    Attributes:
        sums: for each name (groups, columns, columns) float32, the sum of Dᵀ D.
        count: samples so far.
    """

    sums: dict[str, torch.Tensor] = field(default_factory=dict)
    count: int = 0

    def hessian(self, name: str, view: MatrixView) -> torch.Tensor:
        """The mean Hessian of one row, (groups, columns, columns), in nats per squared weight."""
        return self.sums[name] / (self.count * view.size[1])


def collect(
    model: nn.Module,
    data: Data,
    views: dict[str, MatrixView],
    found: FisherSums,
    *,
    seed: int,
    done: Callable[[int], None],
) -> None:
    """Add the samples behind the first ``found.count`` ones to *found*.

    The model is not written to: it runs with tensors that share its memory.

    Args:
        model: in the mode that it is to be used in.
        data: the samples.
        views: the tensors to look at.
        found: is added to; empty, or what an interrupted run had.
        seed: for the draws; with the number of a sample it determines them.
        done: called after each sample with the number of samples so far.

    Raises:
        ConfigError: there is no sample, or no gradient.
    """
    tensors = _leaves(model, views)
    for sample in islice(data.pieces(1), found.count, None):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + found.count)
        with torch.enable_grad():
            value = data.score(data.output(model, tensors, sample), generator)
            if not value.requires_grad:
                raise ConfigError(
                    "no gradient reaches the parameters from what the model returns",
                    where=type(model).__name__,
                    remedy="take torch.no_grad and .detach out of its forward",
                )
            leaves = [tensors[name] for name in views]
            gradients = torch.autograd.grad(value, leaves, allow_unused=True)
        for (name, view), gradient in zip(views.items(), gradients, strict=True):
            _add(found.sums, name, view, gradient)
        found.count += 1
        done(found.count)
    if not found.count:
        raise ConfigError(
            "no samples to calibrate with", where="calibration batches", allowed="one or more"
        )


def _leaves(model: nn.Module, views: dict[str, MatrixView]) -> dict[str, torch.Tensor]:
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    # New leaves over the same memory: no gradient ever reaches the caller's parameters.
    return {name: t.detach().requires_grad_(name in views) for name, t in state.items()}


def _add(
    sums: dict[str, torch.Tensor], name: str, view: MatrixView, gradient: torch.Tensor | None
) -> None:
    groups, _, columns = view.size
    if name not in sums:
        device = None if gradient is None else gradient.device
        sums[name] = torch.zeros(groups, columns, columns, device=device)
    if gradient is None:
        return
    matrices = view.cut(gradient.detach()).float()
    if groups == 1:  # rows of zeros, most of an embedding's, need no products
        matrices = matrices[:, matrices[0].any(1)]
    sums[name] = sums[name].to(matrices.device)
    sums[name].baddbmm_(matrices.transpose(1, 2), matrices)
