"""The last stage: what a sender encodes is what the receiver has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from glob import escape

import numpy as np
import torch
from torch import nn

from limosa.codec.quality import Quality, Step
from limosa.tensors import TensorSpec
from limosa.torch.optimize.guard import Context
from limosa.torch.optimize.kernels import flat_state, set_flat_state
from limosa.torch.optimize.technique import Change, Layer, Optimized, Refusal, Technique, nonzeros
from limosa.torch.tensors import load, save

#: Levels of a tensor that is taken to lie on a grid; more of them are no cheaper than floats.
MAX_LEVELS = 2**11
# Exponents of a grid's values are no further apart, so that they are exact as 64-bit integers.
_MAX_EXPONENTS = 30
_SIGNIFICAND = 24
_GLANCE = 2**16


def grid_of(tensor: torch.Tensor) -> float | None:
    """The step of which all values are whole multiples, of at most 2048 times it; None if none.

    Exact: the greatest common divisor of the values as integers.

    >>> grid_of(torch.tensor([0.75, -0.5, 0.0])), grid_of(torch.tensor([0.1, 0.7]))
    (0.25, None)
    """
    flat = tensor.detach().flatten().abs().double().cpu().numpy()
    if len(np.unique(flat[:_GLANCE])) > MAX_LEVELS + 1:
        return None  # most weights were never rounded, and to sort them all takes its time
    values = np.unique(flat)
    values = values[values > 0]
    if not len(values) or len(values) > MAX_LEVELS or not np.isfinite(values).all():
        return None
    mantissas, exponents = np.frexp(values)
    lowest = int(exponents.min())
    if int(exponents.max()) - lowest > _MAX_EXPONENTS:
        return None
    shifted = np.ldexp(mantissas, exponents - lowest + _SIGNIFICAND)
    whole = shifted.astype(np.int64)
    if not np.array_equal(whole, shifted):  # of more than 24 bits
        return None
    divisor = int(np.gcd.reduce(whole))
    if int(whole[-1]) > MAX_LEVELS * divisor:
        return None
    return float(np.ldexp(float(divisor), lowest - _SIGNIFICAND))


def _is_whole(tensor: torch.Tensor) -> bool:
    """Whether all values are whole numbers: positions, or counts, which mean what they say."""
    return tensor.numel() > 1 and torch.equal(tensor, tensor.round())


def near_lossless(tensors: Mapping[str, torch.Tensor], *, effort: int = 5) -> Step:
    """A quality that keeps what lies on a grid as it is (rounded weights, tables of whole numbers),
    and all else to a relative error of 2^-9.

    Args:
        tensors: what will be saved with it.
        effort: as for :class:`limosa.Step`.

    >>> found = near_lossless({"weight": torch.eye(2) / 4, "bias": torch.tensor([0.1, 0.2])})
    >>> found.by_tensor
    {'weight': 0.25}
    """
    grids = {
        name: grid
        for name, one in tensors.items()
        if one.is_floating_point() and (one.dim() > 1 or _is_whole(one))
        for grid in [grid_of(one)]
        if grid is not None
    }
    found = Step(max(grids.values(), default=1.0), effort, by_tensor=grids, rounded=True)
    # The file's header repeats these patterns, so they name only what no shape tells already.
    kept = {
        name: found.keeps(TensorSpec(name, "F32", tuple(one.shape)))
        for name, one in tensors.items()
    }
    return replace(
        found,
        keep=tuple(escape(n) for n, is_kept in kept.items() if n not in grids and not is_kept),
        lossy=tuple(escape(n) for n, is_kept in kept.items() if n in grids and is_kept),
    )


@dataclass(frozen=True)
class Encoding(Technique):
    """Encodes a model and gives back what the receiver will decode.

    Args:
        quality: of the file; None: :func:`near_lossless`, and an error if the outputs are then
            others by more than a tenth of the largest, as where a table of frequencies is rounded.
        effort: of :func:`near_lossless`.

    >>> from limosa.torch.optimize.rounding import LinearRounding
    >>> model = LinearRounding(4).apply(nn.Linear(64, 64)).model
    >>> done = Encoding().apply(model)
    >>> torch.equal(done.model.weight, model.weight), len(done.data) < 2600
    (True, True)
    """

    quality: Quality | None = None
    effort: int = 5

    remedy = "encode without loss: quality = Lossless()"

    @property
    def tolerance(self) -> float:
        """What near-lossless may change at most; what another quality changes was asked for."""
        return 0.1 if self.quality is None else super().tolerance

    def _reference(self, model: nn.Module, done: Optimized) -> nn.Module:
        """The old network, if it shall be nearly the same."""
        return model if self.quality is None else done.model

    def _split(self, model: nn.Module) -> tuple[list[Layer], list[Refusal]]:
        return [Layer("", model, "")], []

    def _change(self, model: nn.Module, layers: Sequence[Layer], context: Context) -> Optimized:
        before = sum(nonzeros(one) for one in model.parameters())
        state, metadata = flat_state(model)
        data = save(
            state, metadata, quality=self.quality or near_lossless(state, effort=self.effort)
        )
        set_flat_state(model, load(data), metadata)
        after = sum(nonzeros(one) for one in model.parameters())
        return Optimized(model, (Change("", f"{len(data)} bytes", before, after),), data=data)
