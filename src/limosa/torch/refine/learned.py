"""Arrays that are learned, and quantized while they are: what an update carries."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from limosa.codec.refinement.records import Levels, step_code, step_of
from limosa.codec.refinement.write import quantize_levels


class Learned(nn.Module):
    """An array of zeros that training moves away from zero.

    Args:
        shape: of the array.
        unit: the step that costs about as much quality as that of every other array; the
            session's step is in these units.
        device: where it lives.

    Attributes:
        latent: the parameter, float32.
        share: the session's step, in units; 0 while nothing is quantized in the forward pass.
    """

    now: torch.Tensor

    def __init__(self, shape: tuple[int, ...], unit: float, device: torch.device) -> None:
        super().__init__()
        self.latent = nn.Parameter(torch.zeros(shape, dtype=torch.float32, device=device))
        self.unit = unit
        self.share = 0.0
        # A tensor, so that a compiled forward pass need not be compiled again when it moves.
        self.register_buffer("now", torch.ones((), device=device), persistent=False)

    def quantize(self, share: float) -> None:
        """Quantize in the forward pass from now on, with the step of today's values."""
        self.share = share
        # Not in place: a backward pass may still need the old one.
        self.now = torch.full_like(self.now, self.step(share))

    def step(self, share: float) -> float:
        """The step for a session's step, as the bitstream holds it."""
        return step_of(step_code(share * self.unit))

    def forward(self) -> torch.Tensor:
        """The array, rounded to whole steps with a straight-through gradient."""
        if not self.share:
            return self.latent
        scaled = self.latent / self.now
        return (scaled + (scaled.round() - scaled).detach()) * self.now

    def bits(self) -> torch.Tensor:
        """About how many bits the levels take: log2(1 + |x|), concave, so that zeros pay."""
        return torch.log2(1.0 + (self.latent / self.now).abs()).sum()

    def levels(self, share: float) -> Levels:
        """The levels that travel."""
        values = self.latent.detach().to("cpu", torch.float32).numpy().astype(np.float64)
        return quantize_levels(values, self.step(share))


class LearnedRight(Learned):
    """A right factor: its step follows from the left one, by which its errors are multiplied."""

    def __init__(self, shape: tuple[int, ...], unit: float, most: float, left: Learned) -> None:
        super().__init__(shape, unit, left.latent.device)
        self.most = most
        # Not a submodule: it is its parametrization's.
        self._left = (left,)

    def step(self, share: float) -> float:
        """At most *most*, where the left factor is still near 0."""
        left = self._left[0].latent.detach()
        norm = float(left.square().sum().sqrt()) / max(1, left.shape[-1]) ** 0.5
        return step_of(step_code(min(share * self.unit / max(norm, 1e-30), self.most)))
