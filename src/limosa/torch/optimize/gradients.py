"""Backward passes over the batches of a context, for techniques that look at data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from limosa.errors import ConfigError
from limosa.torch.optimize.guard import Context, evaluation, one_number
from limosa.torch.optimize.technique import Layer, is_plain


def backward_passes(
    model: nn.Module, context: Context, what: str, *, add_up: bool = False
) -> Iterator[None]:
    """After each step of the iterator the gradients of another batch are there.

    Args:
        what: needs them, for messages.
        add_up: whether those of earlier batches stay in them.

    Raises:
        ConfigError: the context has no batches, or no loss, or one that is several numbers.
    """
    if context.loss is None:
        raise ConfigError(f"{what} needs batches and a loss", where="Context")
    model.zero_grad(set_to_none=True)
    # A frozen weight matters as much as others: without a gradient it would seem not to.
    frozen = [one for one in model.parameters() if not one.requires_grad and _has_gradient(one)]
    count = 0
    try:
        for one in frozen:
            one.requires_grad_(True)
        for batch in context.batches:
            if not add_up:
                model.zero_grad(set_to_none=True)
            with torch.enable_grad(), evaluation(model):
                loss = one_number(context.loss(model, batch), "Context.loss")
                loss.backward()  # type: ignore[no-untyped-call]
            count += 1
            yield
    finally:
        for one in frozen:
            one.requires_grad_(False)
    if not count:
        raise ConfigError(f"{what} needs batches", where="Context", found="none")


def _has_gradient(parameter: nn.Parameter) -> bool:
    return parameter.is_floating_point() and is_plain(parameter)


def mean_gradients(
    model: nn.Module, layers: Sequence[Layer], context: Context, what: str, *, squared: bool
) -> dict[str, torch.Tensor]:
    """The mean over batches of the gradient of each weight, or of its square (Fisher's diagonal).

    Raises:
        ConfigError: as for :func:`backward_passes`.
    """
    # In F32 whatever the weights are: squares of small gradients are 0 in F16.
    sums = {layer.name: torch.zeros_like(layer.weight, dtype=torch.float32) for layer in layers}
    count = 0
    for _ in backward_passes(model, context, what):
        count += 1
        for layer in layers:
            if layer.weight.grad is not None:
                grad = layer.weight.grad.float()
                sums[layer.name] += grad.square() if squared else grad
    model.zero_grad(set_to_none=True)
    return {name: one / count for name, one in sums.items()}
