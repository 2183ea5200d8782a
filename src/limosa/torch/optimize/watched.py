"""Which layers a model does more with than to call them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from limosa.torch.optimize.guard import Context, outputs_of
from limosa.torch.optimize.technique import Layer, replace_layer


class _Watched(nn.Module):
    """A layer that notes what others than itself ask it for."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.why = ""

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """What the layer computes."""
        if named:  # which one of two in its place would not take
            self.why = self.why or "the model names its arguments"
        return self.layer(*inputs, **named)

    def __getattr__(self, name: str) -> Any:
        if name == "layer":
            return super().__getattr__(name)
        found = getattr(self.layer, name)  # who asks whether it has something may go on without
        self.why = self.why or f"the model reads its {name}"
        return found


def read_by_others(model: nn.Module, layers: Sequence[Layer], context: Context) -> dict[str, str]:
    """Layers that the model does not only call -> what else it asks them for.

    Args:
        model: is run on the context's example; without one, nothing is known.
        layers: of it.

    >>> net = nn.Sequential(nn.Linear(4, 4), nn.TransformerEncoderLayer(4, 2, 8, batch_first=True))
    >>> layers = [Layer(path, net.get_submodule(path), "") for path in ("0", "1.linear1")]
    >>> read_by_others(net.eval(), layers, Context(torch.ones(1, 3, 4)))
    {'1.linear1': 'the model reads its weight'}
    """
    watched = {layer.path: _Watched(layer.module) for layer in layers if layer.path}
    if context.example is None or not watched:
        return {}
    try:
        for path, one in watched.items():
            replace_layer(model, path, one)
        with torch.no_grad():
            outputs_of(model, context)
    except Exception as error:  # of a model that looks what kind its layers are
        why = f"the model does not run with another in its place ({type(error).__name__}: {error})"
        return dict.fromkeys(watched, why[:200])
    finally:
        for path, one in watched.items():
            replace_layer(model, path, one.layer)
    return {path: one.why for path, one in watched.items() if one.why}
