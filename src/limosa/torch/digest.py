"""The name of a model by what it holds."""

from __future__ import annotations

from torch import nn

from limosa.tensors import map_digest
from limosa.torch.dtypes import to_tensor


def model_digest(model: nn.Module) -> bytes:
    """The state digest of a model's state dict (docs/format.md 4): 32 bytes.

    Two models of one digest hold the same parameters and buffers under the same names, bit for
    bit; whether their ``forward`` is the same it cannot tell.

    Raises:
        ConfigError: the state dict holds something that is not a dense tensor.

    >>> import torch
    >>> layer = nn.Linear(2, 1)
    >>> _ = layer.load_state_dict({"weight": torch.ones(1, 2), "bias": torch.zeros(1)})
    >>> model_digest(layer).hex()[:8]
    'f6347d12'
    """
    return map_digest({name: to_tensor(name, value) for name, value in model.state_dict().items()})
