"""Quantization that knows its context: the codec's calibrated rounding as a stage."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from glob import escape
from typing import Any, Literal

import torch
from torch import nn

from limosa.errors import ConfigError
from limosa.torch.calibrate import calibrate
from limosa.torch.calibration.samples import length_of
from limosa.torch.calibration.views import views_of
from limosa.torch.optimize.guard import Context, check_runs
from limosa.torch.optimize.technique import (
    Change,
    Layer,
    Optimized,
    Refusal,
    Technique,
    check_choice,
    nonzeros,
)


def first_of(batch: Any) -> Any:
    """The inputs of a batch of inputs and labels."""
    return batch[0]


@dataclass(frozen=True)
class CalibratedRounding(Technique):
    """Weights become multiples of steps that the outputs on the context's batches choose.

    :func:`limosa.torch.calibrate` as a technique: sensitive tensors get small steps, and each
    weight makes good what those before it lost. Weights that are 0 stay 0. For the end of a
    recipe: after it nothing is trained.

    Args:
        bits: entropy of a weight that is not 0 already, on average, or
        divergence: in nats, of the outputs; exactly one of both.
        output: "classes" or "values", what the model gives.
        samples: how many to look at; None for all. No more than these are taken of the batches.
        tune: rounds in which biases and norms make good what rounding did.
        seed: of the random draws.
        inputs_of: a batch's inputs; the first part unless told otherwise.
        only, exclude: patterns of the paths of layers.

    Raises:
        ConfigError: the context has no batches, or the settings contradict each other.

    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    >>> inputs, labels = torch.randn(64, 16), torch.zeros(64, dtype=torch.int64)
    >>> done = CalibratedRounding(bits=3).apply(model, Context(inputs, [(inputs, labels)]))
    >>> len(done.model[0].weight.unique()) < 32
    True
    """

    bits: float | None = None
    divergence: float | None = None
    output: Literal["classes", "values"] = "classes"
    samples: int | None = None
    tune: int = 0
    seed: int = 0
    inputs_of: Callable[[Any], Any] = field(default=first_of, repr=False)
    only: str = ""
    exclude: str = ""

    def __post_init__(self) -> None:
        if (self.bits is None) == (self.divergence is None):
            raise ConfigError("one of bits and divergence", where="CalibratedRounding")
        if not (self.bits or self.divergence or 0) > 0:
            raise ConfigError("not above 0", where="bits or divergence", found=str(self.bits))
        check_choice("output", self.output, ("classes", "values"))

    def _change(self, model: nn.Module, layers: Sequence[Layer], context: Context) -> Optimized:
        inputs = self._inputs(context.batches)
        if not inputs:
            raise ConfigError("calibrated rounding needs batches", where="Context", found="none")
        check_runs(model, Context(inputs[0]), "Context.batches")
        chosen = {layer.name for layer in layers}
        others = tuple(escape(name) for name in views_of(model) if name not in chosen)
        found = calibrate(
            model, inputs, bits=self._bits(layers), divergence=self.divergence, output=self.output,
            samples=self.samples, keep=others, tune=self.tune, keep_zeros=True, seed=self.seed,
        )  # fmt: skip
        before = {layer.path: nonzeros(layer.weight) for layer in layers}
        model.load_state_dict(found.tensors, strict=False)
        changes, refused = [], []
        for layer in layers:
            if layer.name not in found.steps:
                refused.append(Refusal(layer.path, "the batches show no use of it"))
                continue
            what = f"a step of {found.steps[layer.name]:.3g}"
            changes.append(Change(layer.path, what, before[layer.path], nonzeros(layer.weight)))
        return Optimized(model, tuple(changes), tuple(refused))

    def _inputs(self, batches: Iterable[Any]) -> list[Any]:
        """Held, for a loader that shuffles gives other samples each time it is gone through."""
        held: list[Any] = []
        count = 0
        for batch in batches:
            try:
                held.append(self.inputs_of(batch))
            except (LookupError, TypeError) as error:
                raise ConfigError(
                    "the inputs of a batch cannot be told", where="Context.batches",
                    found=f"{type(batch).__name__}: {error}", remedy="say which: inputs_of=",
                ) from None  # fmt: skip
            count += length_of(held[-1])
            if self.samples is not None and count >= self.samples:
                break
        return held

    def _bits(self, layers: Sequence[Layer]) -> float | None:
        """Per weight, zeros that stay counted: their share costs as a mask does, apart."""
        if self.bits is None:
            return None
        total = sum(layer.weight.numel() for layer in layers)
        live = sum(nonzeros(layer.weight) for layer in layers) / max(total, 1)
        share = torch.tensor([live, 1 - live], dtype=torch.float64)
        mask = float(torch.special.entr(share).sum()) / math.log(2)
        return max(self.bits * live + mask, 1e-3)
