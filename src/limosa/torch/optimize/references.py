"""The old network, made to compute what one should that lost channels: what the guard compares."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from limosa.torch.optimize.guard import copy_of

#: Statistics over channels: without some of them they are others, whatever the channels held.
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@torch.no_grad()
def without_inputs(model: nn.Module, gone: Mapping[str, Sequence[int]]) -> nn.Module:
    """A copy whose layers, by path, do not heed some of their inputs."""
    twin = copy_of(model)
    for path, inputs in gone.items():
        layer = twin.get_submodule(path)
        weight: Any = layer.weight
        if getattr(layer, "transposed", False):  # inputs are in front
            weight[list(inputs)] = 0.0
            continue
        columns, rows = weight.shape[1], weight.shape[0] // getattr(layer, "groups", 1)
        for one in inputs:  # of a grouped convolution each group has its own, side by side
            group, column = divmod(one, columns)
            weight[group * rows : (group + 1) * rows, column] = 0.0
    return twin


def with_norms_over(model: nn.Module, kept: Mapping[str, Sequence[int]]) -> nn.Module:
    """The model with norms, by path, that see some of their channels and make 0 of the others.

    >>> net = nn.Sequential(nn.LayerNorm(3))
    >>> with_norms_over(net, {"0": [0, 2]})(torch.tensor([[1.0, 9.0, 3.0]])).round()
    tensor([[-1.,  0.,  1.]], grad_fn=<RoundBackward0>)
    """
    for path, channels in kept.items():
        parent, _, name = path.rpartition(".")
        norm = model.get_submodule(path)
        setattr(model.get_submodule(parent), name, _NormOverSome(norm, channels))
    return model


class _NormOverSome(nn.Module):
    """A norm over some of the channels."""

    def __init__(self, norm: nn.Module, channels: Sequence[int]) -> None:
        super().__init__()
        self.channels = torch.tensor(channels)
        self.all = channels_of(norm)
        narrow: Any = copy.deepcopy(norm)
        for name, one in norm.named_parameters(recurse=False):
            if one.numel() == self.all:
                setattr(narrow, name, nn.Parameter(one.detach()[self.channels.to(one.device)]))
        if isinstance(norm, nn.GroupNorm):
            narrow.num_channels = len(channels)
        elif isinstance(norm, NORMS):
            narrow.normalized_shape = (len(channels),)
        self.norm = narrow
        self.first = isinstance(norm, nn.GroupNorm) or "2d" in type(norm).__name__.lower()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The norm of the channels that are left, which are the last dimension or the second."""
        dim = 1 if self.first or x.shape[-1] != self.all else -1
        places = self.channels.to(x.device)
        found = self.norm(x.index_select(dim, places))
        return torch.zeros_like(x, dtype=found.dtype).index_copy(dim, places, found)


def channels_of(module: nn.Module) -> int:
    """How many inputs a layer, or channels a norm, has; 0 where that is not known.

    Of a class of the model's own it is the size of what it has for each channel.

    >>> channels_of(nn.Conv2d(3, 8, 1)), channels_of(nn.RMSNorm(5)), channels_of(nn.PReLU(7))
    (3, 5, 7)
    """
    for name in ("in_channels", "in_features", "num_channels", "num_features"):
        found = getattr(module, name, None)
        if isinstance(found, int):
            return found
    shape: tuple[int, ...] = getattr(module, "normalized_shape", ())
    if shape:
        return int(shape[0]) if len(shape) == 1 else 0
    own = [one.numel() for one in module.parameters(recurse=False) if one.dim() == 1]
    return own[0] if own else 0
