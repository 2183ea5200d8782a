"""What a model takes: parameters, zeros, operations, and bytes on the wire."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from limosa.codec.quality import Quality
from limosa.torch.optimize.guard import Context, check_initialised, outputs_of, value_of
from limosa.torch.optimize.kernels import flat_state
from limosa.torch.optimize.technique import nonzeros
from limosa.torch.tensors import save


@dataclass(frozen=True)
class Measures:
    """Of a model.

    Attributes:
        parameters: elements of its parameters, tied ones once.
        nonzeros: of these, those that are not 0.
        flops: of one call with the example inputs, two for a multiplication and an addition; None
            without an example.
        raw_nbytes: of parameters and buffers as they are in memory and in a safetensors file.
        nbytes: of the file that limosa makes of them.
        metric: as the caller measures it.
    """

    parameters: int
    nonzeros: int
    flops: int | None
    raw_nbytes: int
    nbytes: int
    metric: float | None = None


def measure(
    model: nn.Module,
    context: Context | None = None,
    *,
    quality: Quality | None = None,
    metric: Callable[[nn.Module], float] | None = None,
) -> Measures:
    """Measure a model, by really encoding it.

    Args:
        model: is not changed.
        context: for the example inputs.
        quality: with which it is encoded; without loss unless given.
        metric: whatever counts, such as accuracy: a number, or a tensor of one.

    Raises:
        ConfigError: the metric gives no number; a parameter has no shape yet.

    >>> found = measure(nn.Linear(4, 2), Context(torch.zeros(1, 4)))
    >>> found.parameters, found.flops
    (10, 16)
    """
    check_initialised(model)
    parameters = {id(one): one for one in model.parameters()}.values()
    state, metadata = flat_state(model)
    return Measures(
        parameters=sum(one.numel() for one in parameters),
        nonzeros=sum(map(nonzeros, parameters)),
        flops=None if context is None or context.example is None else _flops(model, context),
        raw_nbytes=sum(one.numel() * one.element_size() for one in state.values()),
        nbytes=len(save(state, metadata, quality=quality)),
        metric=None if metric is None else value_of(metric, model),
    )


@torch.no_grad()
def _flops(model: nn.Module, context: Context) -> int:
    with FlopCounterMode(display=False) as counter:
        outputs_of(model, context)
    return int(counter.get_total_flops())
