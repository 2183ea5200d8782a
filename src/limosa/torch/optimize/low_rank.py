"""Low rank: a layer becomes two thinner ones, smaller and faster both."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from limosa.errors import ConfigError
from limosa.torch.optimize.guard import Context, outputs_of
from limosa.torch.optimize.technique import (
    Change,
    Layer,
    Optimized,
    Refusal,
    Technique,
    check_choice,
    check_share,
    nonzeros,
    replace_layer,
)
from limosa.torch.optimize.watched import read_by_others
from limosa.torch.refine.targets import is_transposed_linear


@dataclass(frozen=True)
class LowRank(Technique):
    """Linear layers and convolutions are replaced by two, by singular value decomposition.

    A layer whose weight others read too, as torch's encoder does, stays; the context's example
    tells which do. Without one that is not known, and such a model cannot be run afterwards.

    Args:
        rank: of every layer; where it saves nothing, the layer stays.
        energy: or the least rank that keeps this share of a layer's squared singular values.
        budget: or this share of what the layers cost, spent where the squares are largest for
            what they cost, over all layers together.
        nbytes: or so many bytes of all layers' factors, as they are in memory, spent likewise.
        cost: of a budget, "parameters", or "flops" of a call with the context's example, for speed.
        form: of a convolution: "channel", k x k to r channels and then 1 x 1 (X. Zhang et al.,
            2015), or "spatial", k x 1 and then 1 x k (M. Jaderberg et al., 2014), which runs in
            less time at the same rank where channels are few.
        round_to: ranks are multiples of this. Kernels compute channels in groups of 8 or 16: the
            ranks in between take as long as the next multiple.
        only, exclude: patterns of the paths of layers.

    Raises:
        ConfigError: not exactly one of *rank*, *energy*, *budget* and *nbytes* is given, or one
            is out of range; a rank above a layer's full one, or no multiple of *round_to*.

    >>> model = nn.Sequential(nn.Linear(64, 64))
    >>> done = LowRank(rank=4).apply(model, Context(torch.ones(1, 64)))
    >>> [tuple(p.shape) for p in done.model.parameters()]
    [(4, 64), (64, 4), (64,)]
    """

    rank: int | None = None
    energy: float | None = None
    budget: float | None = None
    nbytes: int | None = None
    cost: Literal["parameters", "flops"] = "parameters"
    form: Literal["channel", "spatial"] = "channel"
    round_to: int = 1
    only: str = ""
    exclude: str = ""

    def __post_init__(self) -> None:
        given = [
            one for one in (self.rank, self.energy, self.budget, self.nbytes) if one is not None
        ]
        check_choice("cost", self.cost, ("parameters", "flops"))
        check_choice("form", self.form, ("channel", "spatial"))
        if len(given) != 1 or (
            self.rank is not None and (not isinstance(self.rank, int) or self.rank < 1)
        ):
            raise ConfigError(
                "one of rank, energy, budget and nbytes", found=f"{len(given)} given",
                allowed="a rank of 1 or more, a share, or bytes",
            )  # fmt: skip
        if self.nbytes is not None and (self.nbytes < 1 or self.cost == "flops"):
            raise ConfigError(
                "no bytes to spend", found=f"{self.nbytes}, cost {self.cost}",
                allowed="1 or more, of parameters",
            )  # fmt: skip
        if self.round_to < 1 or (self.rank or 0) % self.round_to:
            raise ConfigError(
                "no multiples", where="round_to", found=f"{self.round_to}, rank {self.rank}",
                allowed="1 or more, and a rank that is a multiple",
            )  # fmt: skip
        for name in ("energy", "budget"):
            value = getattr(self, name)
            if value is not None:
                check_share(name, value)

    def _why_not(self, layer: Layer, tied: dict[str, str]) -> str:
        module = layer.module
        if isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear):
            return "the attention around it reads its weight"
        if is_transposed_linear(module):
            return f"a {type(module).__name__}"
        if module._forward_hooks or module._forward_pre_hooks:
            return "it has hooks, which two in its place would not run"
        plain = {nn.Linear.forward, nn.Conv2d.forward}
        if isinstance(module, nn.Linear | nn.Conv2d) and type(module).forward not in plain:
            return f"a {type(module).__name__} computes something of its own"
        if isinstance(module, nn.modules.conv._ConvNd):
            if module.groups != 1:
                return "a grouped convolution"
            if not isinstance(module, nn.Conv2d):
                return f"a {type(module).__name__}"
            if module.padding_mode != "zeros" or isinstance(module.padding, str):
                return f"padding {module.padding_mode} {module.padding}"
        return super()._why_not(layer, tied)

    def _change(self, model: nn.Module, layers: Sequence[Layer], context: Context) -> Optimized:
        read = read_by_others(model, layers, context)
        refused = [Refusal(path, why) for path, why in read.items()]
        layers = [layer for layer in layers if layer.path not in read]
        if not layers:
            return Optimized(model, (), tuple(refused))
        parts = {layer.path: _decompose(layer, self.form) for layer in layers}
        calls = _calls(model, layers, context) if self.cost == "flops" else {}
        ranks = self._ranks(layers, parts, calls)
        changes = []
        for layer in layers:
            rank, (u, s, vh) = ranks[layer.path], parts[layer.path]
            before, cost = layer.weight.numel(), rank * (u.shape[0] + vh.shape[1])
            if rank < 1 or cost >= before:
                refused.append(Refusal(layer.path, f"rank {rank} of {len(s)} saves nothing"))
                continue
            pair = _pair(layer.module, u[:, :rank], s[:rank], vh[:rank], self.form)
            model = replace_layer(model, layer.path, pair)
            after = sum(nonzeros(_weight(one)) for one in pair)
            changes.append(Change(layer.path, f"rank {rank} of {len(s)}", before, after))
        return Optimized(model, tuple(changes), tuple(refused))

    def _ranks(
        self, layers: Sequence[Layer], parts: dict[str, _Parts], calls: dict[str, int]
    ) -> dict[str, int]:
        if self.rank is not None:
            for layer in layers:
                full = len(parts[layer.path][1])
                if self.rank > full:
                    raise ConfigError(
                        "a rank above the full one", where=layer.path, found=str(self.rank),
                        allowed=f"1 to {full}", remedy="exclude the layer, or take less",
                    )  # fmt: skip
            return {layer.path: self.rank for layer in layers}
        if self.energy is not None:
            return {
                path: -(-_rank_of_energy(s, self.energy) // self.round_to) * self.round_to
                for path, (_, s, _) in parts.items()
            }
        share = self.budget
        if self.nbytes is not None:
            share = self.nbytes / sum(layer.weight.nbytes for layer in layers)
        assert share is not None
        return _ranks_of_budget(layers, parts, calls, share, self.round_to)

    def _reference(self, model: nn.Module, done: Optimized) -> nn.Module:
        """The old layers, with the products of the new ones as weights."""
        twin = copy.deepcopy(model)
        changed = {change.layer for change in done.changes}
        for path, module in twin.named_modules():
            if path in changed:
                pair = done.model.get_submodule(path) if path else done.model
                with torch.no_grad():
                    _weight(module).copy_(_product(module, pair, self.form))
        return twin


_Parts = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _matrix(module: nn.Module, form: str) -> torch.Tensor:
    """The weight as the matrix that is decomposed, in double precision."""
    weight = _weight(module).double()
    if isinstance(module, nn.Linear):
        return weight
    if form == "channel":
        return weight.flatten(1)
    # Rows: output and column of the kernel; columns: input and row of the kernel.
    out, inside, high, wide = weight.shape
    return weight.permute(0, 3, 1, 2).reshape(out * wide, inside * high)


def _decompose(layer: Layer, form: str) -> _Parts:
    u, s, vh = torch.linalg.svd(_matrix(layer.module, form), full_matrices=False)
    return u, s, vh


def _rank_of_energy(s: torch.Tensor, energy: float) -> int:
    total = s.square().cumsum(0)
    if not len(s) or float(total[-1]) == 0.0:
        return 1
    return int(torch.searchsorted(total, energy * total[-1])) + 1


def _ranks_of_budget(
    layers: Sequence[Layer],
    parts: dict[str, _Parts],
    calls: dict[str, int],
    budget: float,
    round_to: int,
) -> dict[str, int]:
    """Greedy: of all groups of *round_to* singular values those whose squares are largest for what
    they cost; each weight costs as often as it is used."""
    uses = {layer.path: calls.get(layer.path, 1) for layer in layers}
    whole = {layer.path: uses[layer.path] * layer.weight.numel() for layer in layers}
    total = sum(whole.values())
    left = budget * total
    offers = []
    ranks = dict.fromkeys(parts, round_to)
    for path, (u, s, vh) in parts.items():
        cost = uses[path] * (u.shape[0] + vh.shape[1]) * round_to
        scale = float(s.square().sum()) or 1.0
        # Each layer's error counts relative to its own size: it passes through norms and ReLUs.
        squares = s.square().tolist()
        left -= min(cost, whole[path])  # the least that a layer costs
        offers += [
            (sum(squares[at : at + round_to]) / scale / cost, cost, path)
            for at in range(round_to, len(squares), round_to)
        ]
    if left < 0:
        raise ConfigError(
            "a budget below the floor", where="LowRank", found=f"{budget:.3g} of the cost",
            allowed=f"{budget - left / max(1, total):.3g} or more, a rank of {round_to} each",
        )  # fmt: skip
    for _, cost, path in sorted(offers, key=lambda offer: -offer[0]):
        if cost <= left:
            ranks[path] += round_to
            left -= cost
    return ranks


@torch.no_grad()
def _calls(model: nn.Module, layers: Sequence[Layer], context: Context) -> dict[str, int]:
    """How many positions each layer computes for the example: how often a weight is used."""
    if context.example is None:
        raise ConfigError("a cost in FLOPs needs example inputs", where="Context.example")
    found: dict[str, int] = {}

    def note(path: str, outputs: int) -> Callable[[nn.Module, Any, torch.Tensor], None]:
        def hook(module: nn.Module, given: Any, output: torch.Tensor) -> None:
            found[path] = found.get(path, 0) + output.numel() // outputs

        return hook

    handles = [
        layer.module.register_forward_hook(note(layer.path, layer.weight.shape[0]))
        for layer in layers
    ]
    try:
        outputs_of(model, context)
    finally:
        for handle in handles:
            handle.remove()
    # A layer that the example passes by may be used all the same: it is no free lunch.
    return {layer.path: max(1, found.get(layer.path, 0)) for layer in layers}


def _pair(
    module: nn.Module, u: torch.Tensor, s: torch.Tensor, vh: torch.Tensor, form: str
) -> nn.Sequential:
    """Two layers that compute what *module* would with the weight u s vh."""
    rank, root = len(s), s.sqrt()
    left, right = u * root, root[:, None] * vh
    like: dict[str, Any] = {"device": module.weight.device, "dtype": module.weight.dtype}
    bias = module.bias
    if isinstance(module, nn.Linear):
        first: nn.Module = nn.Linear(module.in_features, rank, bias=False, **like)
        second: nn.Module = nn.Linear(rank, module.out_features, bias=bias is not None, **like)
    else:
        assert isinstance(module, nn.Conv2d)
        first, second = _convolutions(module, rank, form, like)
        if form == "spatial":
            wide = module.kernel_size[1]
            left = left.reshape(module.out_channels, wide, rank).permute(0, 2, 1)
    with torch.no_grad():
        _weight(first).copy_(right.reshape(_weight(first).shape))
        _weight(second).copy_(left.reshape(_weight(second).shape))
        if bias is not None:
            _bias(second).copy_(_bias(module))
            second.get_parameter("bias").requires_grad_(module.get_parameter("bias").requires_grad)
    for one in (first, second):
        one.get_parameter("weight").requires_grad_(module.get_parameter("weight").requires_grad)
    pair = nn.Sequential(first, second)
    return pair.train(module.training)


def _convolutions(
    module: nn.Conv2d, rank: int, form: str, like: dict[str, Any]
) -> tuple[nn.Module, nn.Module]:
    bias = module.bias is not None
    padding: Any = module.padding  # two numbers: texts are refused
    kernel: Any = module.kernel_size
    stride: Any = module.stride
    dilation: Any = module.dilation
    if form == "channel":
        first = nn.Conv2d(
            module.in_channels, rank, kernel, stride, padding, dilation, bias=False, **like,
        )  # fmt: skip
        return first, nn.Conv2d(rank, module.out_channels, 1, bias=bias, **like)
    first = nn.Conv2d(
        module.in_channels,
        rank,
        (kernel[0], 1),
        (stride[0], 1),
        (padding[0], 0),
        (dilation[0], 1),
        bias=False,
        **like,
    )
    second = nn.Conv2d(
        rank,
        module.out_channels,
        (1, kernel[1]),
        (1, stride[1]),
        (0, padding[1]),
        (1, dilation[1]),
        bias=bias,
        **like,
    )
    return first, second


def _product(module: nn.Module, pair: nn.Module, form: str) -> torch.Tensor:
    """The weight of the one layer that a pair stands for."""
    assert isinstance(pair, nn.Sequential)
    first, second = _weight(pair[0]).double(), _weight(pair[1]).double()
    shape = _weight(module).shape
    if isinstance(module, nn.Linear) or form == "channel":
        return (second.flatten(1) @ first.flatten(1)).reshape(shape)
    out, rank, _, wide = second.shape
    left = second.reshape(out, rank, wide).permute(0, 2, 1).reshape(out * wide, rank)
    made = left @ first.reshape(rank, -1)
    return made.reshape(out, wide, first.shape[1], first.shape[2]).permute(0, 2, 3, 1)


def _weight(module: nn.Module) -> torch.Tensor:
    found = module.weight
    assert isinstance(found, torch.Tensor)
    return found.detach()


def _bias(module: nn.Module) -> torch.Tensor:
    found = module.bias
    assert isinstance(found, torch.Tensor)
    return found.detach()
