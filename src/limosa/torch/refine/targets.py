"""Which tensors of a model are refined, and how: selectors as in peft."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import nn

from limosa.errors import ConfigError

Selector = str | Sequence[str]
ALL_LINEAR_CONV = "all-linear-conv"

_CONVOLUTIONS = nn.modules.conv._ConvNd
_NORMS = nn.modules.batchnorm._BatchNorm
# Gates of a recurrent layer stand below each other, as do the three projections of attention.
_GATES = {nn.LSTM: 4, nn.LSTMCell: 4, nn.GRU: 3, nn.GRUCell: 3}
_QKV = 3


@dataclass(eq=False)
class Spot:
    """One parameter, under each of its names.

    Attributes:
        owners: (module, attribute, name in the state dict), more than one if the weight is tied.
        parts: matrices that the tensor is a stack of.
    """

    parameter: nn.Parameter
    owners: list[tuple[nn.Module, str, str]] = field(default_factory=list)
    parts: int = 1

    @property
    def name(self) -> str:
        """The first of its names."""
        return self.owners[0][2]

    @property
    def module(self) -> nn.Module:
        """The first module that has it."""
        return self.owners[0][0]


def spots_of(model: nn.Module) -> list[Spot]:
    """The parameters of a model, tied ones once, in order."""
    spots: dict[int, Spot] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for attribute, parameter in module.named_parameters(recurse=False):
            spot = spots.setdefault(id(parameter), Spot(parameter))
            owner = (module, attribute, f"{path}.{attribute}" if path else attribute)
            if owner[2] not in {name for _, _, name in spot.owners}:
                spot.owners.append(owner)
            spot.parts = max(spot.parts, _parts(module, owner[2], parameter))
    return list(spots.values())


def _parts(module: nn.Module, name: str, parameter: torch.Tensor) -> int:
    """Of how many matrices a weight is a stack."""
    if parameter.dim() < 2:
        return 1
    attribute = name.rpartition(".")[2]
    for kind, gates in _GATES.items():
        if isinstance(module, kind) and attribute.startswith("weight_"):
            return gates
    if isinstance(module, nn.MultiheadAttention) and attribute == "in_proj_weight":
        return _QKV
    rows, columns = parameter.shape[0], parameter.numel() // max(parameter.shape[0], 1)
    fused = re.search(r"(qkv|in_proj|c_attn|query_key_value)", name)
    return _QKV if fused and rows == _QKV * columns else 1


def is_transposed_linear(module: nn.Module) -> bool:
    """Whether a layer is the Conv1D of transformers (GPT-2): linear, with inputs as rows."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")


class Selection:
    """Decides for each parameter: a target, left to move freely, or frozen.

    Args:
        targets: ``"all-linear-conv"``; or a regular expression that a whole name (of a module)
            must match; or a list of names or their suffixes, as in peft.
        exclude: the same, for what stays frozen.
        ranks: regular expression of a name -> rank, in place of the method's own.

    Raises:
        ConfigError: an expression is no regular expression.
    """

    def __init__(
        self, targets: Selector, exclude: Selector = (), ranks: Mapping[str, int] | None = None
    ) -> None:
        self._targets, self._exclude = targets, exclude
        self._ranks = dict(ranks or {})
        self._used: set[str] = set()
        for pattern in [targets, exclude, *self._ranks]:
            if isinstance(pattern, str) and pattern != ALL_LINEAR_CONV:
                _compile(pattern)

    def is_target(self, spot: Spot) -> bool:
        """Whether the method takes this parameter."""
        if spot.parameter.dim() < 2 or not spot.parameter.is_floating_point():
            return False
        if self._targets == ALL_LINEAR_CONV:
            linear = isinstance(spot.module, nn.Linear) or is_transposed_linear(spot.module)
            return linear or isinstance(spot.module, _CONVOLUTIONS) or spot.parts > 1
        found = any(_matches(self._targets, name) for name in _names(spot))
        if found:
            self._used.add(spot.name)
        return found

    def is_excluded(self, spot: Spot) -> bool:
        """Whether this parameter stays as it is."""
        return bool(self._exclude) and any(_matches(self._exclude, n) for n in _names(spot))

    def rank(self, spot: Spot) -> int | None:
        """The rank that was asked for this parameter."""
        for pattern, rank in self._ranks.items():
            if any(re.fullmatch(rf"(.*\.)?({pattern})", name) for name in _names(spot)):
                return rank
        return None

    def check_used(self) -> None:
        """Raise :class:`ConfigError` if no parameter was a target of a list or an expression."""
        if self._targets != ALL_LINEAR_CONV and not self._used:
            raise ConfigError(
                "no layer matches the targets",
                found=repr(self._targets),
                allowed=f"{ALL_LINEAR_CONV!r}, suffixes of names, or a regular expression",
            )


def folded_biases(model: nn.Module) -> set[str]:
    """Names of the biases of convolutions and linear layers that a batch norm follows.

    They are not needed: the norm's own bias does what they do. "Follows" is by the order of
    registration, with as many channels.
    """
    found = set()
    for (path, module), (_, after) in neighbours(model):
        if isinstance(after, _NORMS) and getattr(module, "bias", None) is not None:
            found.add(f"{path}.bias" if path else "bias")
    return found


def neighbours(
    model: nn.Module,
) -> list[tuple[tuple[str, nn.Module], tuple[str, nn.Module]]]:
    """Pairs of a convolution or linear layer and the layer of as many channels that follows it."""
    leaves = [(p, m) for p, m in model.named_modules() if not list(m.children())]
    pairs = []
    for one, two in pairwise(leaves):
        channels = getattr(one[1], "out_channels", getattr(one[1], "out_features", None))
        if (
            isinstance(one[1], nn.Linear | _CONVOLUTIONS)
            and getattr(two[1], "num_features", None) == channels
        ):
            pairs.append((one, two))
    return pairs


def norms_of(model: nn.Module) -> list[nn.Module]:
    """The batch norms of a model that keep statistics."""
    return [m for m in model.modules() if isinstance(m, _NORMS) and m.track_running_stats]


def _names(spot: Spot) -> list[str]:
    """Each name of the parameter, and that of its module."""
    found = []
    for _, _, name in spot.owners:
        found += [name, name.rpartition(".")[0]]
    return found


def _matches(selector: Selector, name: str) -> bool:
    if isinstance(selector, str):
        return _compile(selector).fullmatch(name) is not None
    return any(name == suffix or name.endswith(f".{suffix}") for suffix in selector)


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError("bad regular expression", found=pattern, allowed=str(error)) from None
