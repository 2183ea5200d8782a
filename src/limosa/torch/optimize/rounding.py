"""Quantization before encoding: weights on a grid, or on a few values, that code well.

The codec quantizes too (:class:`limosa.Target`, :func:`limosa.torch.calibrate`), and better where
nothing is trained afterwards. These are for a model that is fine-tuned on its grid, or that stays
on it whatever sends it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from limosa.errors import ConfigError
from limosa.torch.optimize.guard import Context, copy_of
from limosa.torch.optimize.technique import Change, Layer, Optimized, Technique, nonzeros

_ROUNDS = 30
# So many elements are looked at to find the values of a codebook.
_SAMPLE = 2**18


class _Rounding(Technique):
    """What both have in common: rounding now, or straight through while a model is trained."""

    @abstractmethod
    def round(self, weight: torch.Tensor) -> torch.Tensor:
        """The nearest that the grid has; zeros stay zeros."""

    @abstractmethod
    def _what(self) -> str:
        """For the report."""

    @torch.no_grad()
    def _change(self, model: nn.Module, layers: Sequence[Layer], context: Context) -> Optimized:
        changes = []
        for layer in layers:
            before = nonzeros(layer.weight)
            layer.weight.copy_(self.round(layer.weight))
            changes.append(Change(layer.path, self._what(), before, nonzeros(layer.weight)))
        return Optimized(model, tuple(changes))

    def prepare(self, model: nn.Module) -> nn.Module:
        """A copy whose weights are rounded in every forward pass while gradients pass straight
        through (Y. Bengio et al., 2013); train it, then call :meth:`finish`.

        Raises:
            ConfigError: no layer can be changed.
        """
        twin = copy_of(model)
        layers, refused = self._split(twin)
        if not layers:
            raise ConfigError("no layer can be changed", found=str(refused[:3]))
        for layer in layers:
            straight_through(layer.module, self)
        return twin

    def finish(self, model: nn.Module) -> nn.Module:
        """The trained model with plain, rounded weights."""
        for module in _rounded(model):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
            with torch.no_grad():  # the sum that passes gradients on may be off by its last bit
                weight: Any = module.weight
                weight.copy_(self.round(weight))
        return model


def straight_through(layer: nn.Module, technique: _Rounding) -> None:
    """Round a layer's weight in every forward pass, as :meth:`_Rounding.prepare` does."""
    parametrize.register_parametrization(layer, "weight", _Straight(technique))


def without_rounding(model: nn.Module) -> nn.Module:
    """The model with the weights that were trained behind the rounding, which is taken off."""
    for module in _rounded(model):
        parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
    return model


def _rounded(model: nn.Module) -> list[nn.Module]:
    """Layers whose weight is rounded in every forward pass."""
    return [
        module
        for module in model.modules()
        if parametrize.is_parametrized(module, "weight")
        and any(isinstance(one, _Straight) for one in _parametrizations(module))
    ]


def _parametrizations(module: Any) -> list[nn.Module]:
    return list(module.parametrizations.weight)


class _Straight(nn.Module):
    """Rounds forward, passes gradients as if it did not."""

    def __init__(self, technique: _Rounding) -> None:
        super().__init__()
        self._technique = technique

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The rounded weight."""
        with torch.no_grad():
            rounded = self._technique.round(weight)
        return weight + (rounded - weight).detach()


@dataclass(frozen=True)
class LinearRounding(_Rounding):
    """Weights become whole multiples of a step, one for each output, or one for all.

    Args:
        bits: levels are -(2^(bits-1) - 1) to that, rounded where *bits* is a fraction; the largest
            weight decides the step.
        by_row: a step for each output: errors are smaller, but the values of a layer are then so
            many that they code worse.
        only, exclude: patterns of the paths of layers.

    Raises:
        ConfigError: not 2 to 16 bits.

    >>> done = LinearRounding(bits=4).apply(nn.Linear(100, 1))
    >>> len(done.model.weight.unique()) <= 15
    True
    """

    bits: float = 8
    by_row: bool = False
    only: str = ""
    exclude: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.bits, int | float) or not 2 <= self.bits <= 16:
            raise ConfigError("no number of bits", found=str(self.bits), allowed="2 to 16")

    def round(self, weight: torch.Tensor) -> torch.Tensor:
        """The nearest multiples."""
        rows = weight.detach().double().reshape(weight.shape[0], -1)
        largest = rows.abs().amax(1, keepdim=True) if self.by_row else rows.abs().amax()
        step = _short(largest / max(1, round(2 ** (self.bits - 1) - 1)))
        # The sum makes +0 of -0, which would be another value to the coder.
        levels = (rows / step).round() + 0.0
        return (levels * step).reshape(weight.shape).to(weight.dtype)

    def _what(self) -> str:
        return f"{self.bits:g} bits, a step {'a row' if self.by_row else 'a layer'}"


@dataclass(frozen=True)
class CodebookRounding(_Rounding):
    """Weights become one of a few values, found by Lloyd's algorithm (S. Lloyd, 1982).

    Args:
        values: how many each layer has; 0 is one of them where the layer has zeros.
        only, exclude: patterns of the paths of layers.

    Raises:
        ConfigError: not 2 to 65536 values.

    >>> done = CodebookRounding(values=4).apply(nn.Linear(100, 1))
    >>> len(done.model.weight.unique())
    4
    """

    values: int = 16
    only: str = ""
    exclude: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.values, int) or not 2 <= self.values <= 65536:
            raise ConfigError("no number of values", found=str(self.values), allowed="2 to 65536")

    def round(self, weight: torch.Tensor) -> torch.Tensor:
        """The nearest values."""
        flat = weight.detach().double().flatten()
        zero = flat == 0
        rest = flat[~zero]
        if not len(rest):
            unchanged: torch.Tensor = weight.detach().clone()
            return unchanged
        count = self.values - int(bool(zero.any()))
        book = _lloyd(rest[:: max(1, len(rest) // _SAMPLE)], max(1, count))
        nearest = book[_place(rest, book)]
        out = torch.zeros_like(flat)
        out[~zero] = nearest
        return out.reshape(weight.shape).to(weight.dtype)

    def _what(self) -> str:
        return f"{self.values} values"


def _short(steps: torch.Tensor) -> torch.Tensor:
    """Steps of 12 significant bits, so that levels times a step are exact in F32, and the coder
    finds them again; 1 for a step of 0."""
    mantissa, exponent = torch.frexp(torch.where(steps > 0, steps, torch.ones_like(steps)))
    return torch.ldexp((mantissa * 4096).floor(), exponent - 12)


def _lloyd(values: torch.Tensor, count: int) -> torch.Tensor:
    """At most *count* values to which *values* are near, in order."""
    quantiles = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    ordered = values.sort().values
    places = (quantiles * len(ordered)).long().clamp(max=len(ordered) - 1)
    book: torch.Tensor = torch.unique(ordered[places])
    for _ in range(_ROUNDS):
        place = _place(values, book)
        sums = torch.zeros_like(book).index_add_(0, place, values)
        counts = torch.bincount(place, minlength=len(book))
        new = torch.where(counts > 0, sums / counts.clamp(min=1), book)
        if torch.equal(new, book):
            break
        book = new
    return book


def _place(values: torch.Tensor, book: torch.Tensor) -> torch.Tensor:
    """Which value of a sorted book is nearest to each."""
    if len(book) == 1:
        return torch.zeros(len(values), dtype=torch.long, device=values.device)
    found: torch.Tensor = torch.searchsorted((book[1:] + book[:-1]) / 2, values)
    return found
