"""A model along its rate-distortion curve, and the point on it that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from limosa.errors import ConfigError
from limosa.torch.calibration.checkpoint import Checkpoint
from limosa.torch.calibration.layers import Layers, Rounded
from limosa.torch.calibration.search import largest_within, reach_bits

# Roundings that are encoded and compared by their files.
_CANDIDATES = 3

Metric = Callable[[nn.Module], float]


@dataclass(frozen=True)
class Goal:
    """How coarse: one of three is not None; see :func:`limosa.torch.calibrate.calibrate`."""

    bits: float | None
    divergence: float | None
    max_drop: float | None

    def check(self, metric: Metric | None) -> None:
        """Refuse goals that contradict each other, and a drop without a metric."""
        given = [name for name, value in vars(self).items() if value is not None]
        if len(given) != 1:
            raise ConfigError(
                "say in one way how coarse",
                where="calibrate",
                found=" and ".join(given) or "none",
                allowed="exactly one of bits, divergence and max_drop",
            )
        if self.max_drop is not None and metric is None:
            raise ConfigError(
                "max_drop needs a metric",
                where="calibrate",
                remedy="give metric=, a function of a model whose result is better when larger",
            )


class Curve:
    """Rounds a model at any divergence.

    Args:
        model: a copy to spend, in the mode that it is to be used in.
        layers: its weights.
        rate_weight: as of :func:`limosa.torch.calibration.rounding.round_levels`.
        metric: of a model, larger is better.
        kept: remembers what was measured.
        report: called with the number of roundings so far.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Layers,
        rate_weight: float,
        metric: Metric | None,
        kept: Checkpoint,
        report: Callable[[int], None],
    ) -> None:
        self._model, self._layers, self._rate_weight = model, layers, rate_weight
        self._metric, self._kept, self._report = metric, kept, report
        self._original = {n: t.detach().clone() for n, t in model.state_dict().items()}
        # A tied tensor has several names in the state dict, and one among the layers.
        first: dict[int, str] = {}
        everything = model.named_parameters(remove_duplicate=False)
        self._sources = {name: first.setdefault(id(p), name) for name, p in everything}
        self._count = 0

    def rounded(self, divergence: float) -> dict[str, Rounded]:
        """The rounded tensors at a divergence."""
        self._count += 1
        self._report(self._count)
        return self._layers.rounded(divergence, self._rate_weight)

    def bits_per_weight(self, rounded: Mapping[str, Rounded]) -> float:
        """Entropy of a level, the mean over all."""
        return sum(tensor.bits for tensor in rounded.values()) / max(self._layers.count, 1)

    def names(self, source: str) -> list[str]:
        """All names in the state dict of the parameter that is first called *source*."""
        return [name for name, first in self._sources.items() if first == source]

    def state(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The state dict with *tensors* in place of the parameters first called so."""
        state = dict(self._original)
        for name in state:
            found = tensors.get(self._sources.get(name, ""))
            state[name] = state[name] if found is None else found
        return state

    def measure(self, state: Mapping[str, torch.Tensor]) -> float | None:
        """The metric of the model with a state dict; None without a metric."""
        if self._metric is None:
            return None
        self._model.load_state_dict(state)
        with torch.no_grad():
            return float(self._metric(self._model.eval()))

    def find(self, goal: Goal) -> float:
        """The divergence that reaches the goal.

        Raises:
            ConfigError: not even the finest rounding keeps the metric.
        """
        if goal.bits is not None:
            return reach_bits(lambda nats: self.bits_per_weight(self.rounded(nats)), goal.bits)
        if goal.divergence is not None:
            return goal.divergence
        assert goal.max_drop is not None
        least = self.least(goal.max_drop)
        found = largest_within(lambda nats: self._tried(nats) >= least)
        if found is None:
            raise ConfigError(
                "no rounding keeps the metric",
                where="max_drop",
                found=str(goal.max_drop),
                allowed=f"{least} of the metric is to be left",
                remedy="allow a larger drop, or take a metric over more data",
            )
        return found

    def least(self, max_drop: float) -> float:
        """What the metric has to be where it may fall by *max_drop*."""
        return self._tried(0.0) - max_drop

    def accepted(self, max_drop: float, largest: float) -> list[float]:
        """The divergences that were tried and keep the metric, the coarsest few, coarse to fine."""
        least = self.least(max_drop)
        kept = (d for d, value in self._kept.tried.items() if value >= least)
        return sorted((d for d in kept if 0 < d <= largest), reverse=True)[:_CANDIDATES]

    def _tried(self, divergence: float) -> float:
        """The metric at a divergence; at 0 that of the original."""
        if divergence not in self._kept.tried:
            rounded = self.rounded(divergence) if divergence else {}
            value = self.measure(self.state({n: found.tensor for n, found in rounded.items()}))
            assert value is not None
            self._kept.tried[divergence] = value
            self._kept.write(now=True)
        return self._kept.tried[divergence]
