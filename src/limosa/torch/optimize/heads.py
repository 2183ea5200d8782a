"""Whole heads of attention go, with their rows of queries, keys, values and columns behind them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from limosa.errors import ConfigError, MissingExtraError
from limosa.torch.optimize.gradients import backward_passes
from limosa.torch.optimize.technique import (
    Change,
    Context,
    Layer,
    Optimized,
    Refusal,
    Technique,
    check_choice,
    check_share,
    named_modules,
    nonzeros,
    tied_names,
    why_not,
)

#: Under which names modules say how many heads they have.
COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "heads")
#: And how wide all heads are together, if they say it.
_WIDTHS = ("all_head_size", "attn_dim", "inner_dim")
_FUSED = ("qkv", "to_qkv", "Wqkv", "query_key_value", "qkv_proj", "in_proj")
_SPLIT = (
    ("q", "k", "v"), ("q_proj", "k_proj", "v_proj"), ("query", "key", "value"),
    ("to_q", "to_k", "to_v"), ("wq", "wk", "wv"), ("q_lin", "k_lin", "v_lin"),
)  # fmt: skip
_BEHIND = ("proj", "out_proj", "o_proj", "to_out", "to_out.0", "out_lin", "wo", "dense", "out")
# Where a module of attention ends before its projection, its parent has that.
_BESIDE = ("output.dense",)


@dataclass(frozen=True)
class Attention:
    """A module of attention whose heads are known.

    Attributes:
        path: of the module.
        module: itself.
        count: the name of the attribute that says how many heads it has.
        before: the layers that make queries, keys and values, or one that makes all.
        behind: the layer that the heads' results go into, side by side.
    """

    path: str
    module: nn.Module
    count: str
    before: tuple[nn.Linear, ...]
    behind: nn.Linear

    @property
    def heads(self) -> int:
        """How many it has."""
        return int(getattr(self.module, self.count))

    def rows(self, heads: Sequence[int]) -> list[int]:
        """Outputs of each layer before that belong to heads."""
        parts = 3 if len(self.before) == 1 else 1
        wide = self.behind.in_features
        return [part * wide + one for part in range(parts) for one in self.columns(heads)]

    def columns(self, heads: Sequence[int]) -> list[int]:
        """Inputs of the layer behind that belong to heads."""
        size = self.behind.in_features // self.heads
        return [head * size + one for head in heads for one in range(size)]


@dataclass(frozen=True)
class HeadPruning(Technique):
    """Heads of attention go whole; the module's number of heads becomes smaller.

    Modules are known by what they are called: a number of heads (``num_heads``,
    ``num_attention_heads``, …), linear layers ``qkv``, or ``q``, ``k``, ``v`` and the like, and one
    for the output (``proj``, ``out_proj``, ``output.dense``, …), as in timm and transformers. That
    the heads lie where they are taken from is proved by the guard, so an example is needed.

    Args:
        share: of the heads of each module that go; one stays at least.
        importance: "weight" by the norm of a head's weights, "data" by the first term of the
            loss's series when it is left out (P. Michel et al., 2019) on the context's batches.
        only, exclude: patterns of the paths of modules.

    Raises:
        ConfigError: no such share; no example; heads that lie elsewhere than is usual.

    >>> class Attention(nn.Module):
    ...     def __init__(self) -> None:
    ...         super().__init__()
    ...         self.num_heads, self.qkv, self.proj = 4, nn.Linear(8, 24), nn.Linear(8, 8)
    ...     def forward(self, x: torch.Tensor) -> torch.Tensor:
    ...         q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
    ...         found = nn.functional.scaled_dot_product_attention(q, k, v)
    ...         return self.proj(found.transpose(1, 2).flatten(2))
    >>> done = HeadPruning(0.5).apply(Attention().eval(), Context(torch.ones(1, 3, 8)))
    >>> done.model.num_heads, done.model.qkv.out_features, done.model.proj.in_features
    (2, 12, 4)
    """

    share: float = 0.5
    importance: Literal["weight", "data"] = "weight"
    only: str = ""
    exclude: str = ""

    def __post_init__(self) -> None:
        check_share("share", self.share)
        check_choice("importance", self.importance, ("weight", "data"))

    def _split(self, model: nn.Module) -> tuple[list[Layer], list[Refusal]]:
        good, refused = [], []
        tied = tied_names(model)
        for path, module in named_modules(model, (nn.Module,), self.only, self.exclude):
            if not _counts(module):
                continue
            found = attention_of(model, path)
            if isinstance(found, str):
                refused.append(Refusal(path, found))
            elif why := _why_not(found, tied):
                refused.append(Refusal(path, why))
            else:
                good.append(Layer(path, module, f"{path}.weight"))
        return good, refused

    def _change(self, model: nn.Module, layers: Sequence[Layer], context: Context) -> Optimized:
        pruning = pruning_library("head pruning")
        if context.example is None:
            raise ConfigError("head pruning needs example inputs", where="Context.example")
        modules = [_known(model, layer.path) for layer in layers]
        scores = self._scores(model, modules, context)
        paths = {id(module): path for path, module in model.named_modules()}
        changes, refused = [], []
        gone: dict[str, tuple[int, ...]] = {}
        for one in modules:
            had = one.heads
            weakest = scores[one.path].argsort(stable=True)
            heads = sorted(weakest[: min(had - 1, round(self.share * had))].tolist())
            if not heads:
                refused.append(Refusal(one.path, f"no head of {had} would go"))
                continue
            before = _weights(one)
            gone[paths[id(one.behind)]] = tuple(one.columns(heads))
            _take_out(pruning, one, heads)
            changes.append(
                Change(one.path, f"{had} heads to {had - len(heads)}", before, _weights(one))
            )
        return Optimized(model, tuple(changes), tuple(refused), gone=gone)

    def _scores(
        self, model: nn.Module, modules: Sequence[Attention], context: Context
    ) -> dict[str, torch.Tensor]:
        """How much each head matters."""
        if self.importance == "weight":
            return {one.path: _norms(one) for one in modules}
        sums = {one.path: torch.zeros(one.heads, dtype=torch.float64) for one in modules}
        for _ in backward_passes(model, context, "importance by data"):
            for one in modules:
                weight = one.behind.weight
                if weight.grad is not None:
                    effect = (weight.detach() * weight.grad).double().sum(0)
                    sums[one.path] += effect.reshape(one.heads, -1).sum(1).abs().cpu()
        model.zero_grad(set_to_none=True)
        return sums

    def _reference(self, model: nn.Module, done: Optimized) -> nn.Module:
        """The old network, whose output layers do not heed the heads that went."""
        return without_inputs(model, done.gone)


def _why_not(one: Attention, tied: dict[str, str]) -> str:
    shared = [name for name in tied if name.startswith(f"{one.path}." if one.path else "")]
    if shared:
        return f"{shared[0]} is tied to {tied[shared[0]]}"
    for layer in (*one.before, one.behind):
        why = why_not(Layer(one.path, layer, "weight"), {})
        if why:
            return why
    return ""


def attention_of(model: nn.Module, path: str) -> Attention | str:
    """The parts of a module of attention, or why its heads cannot be taken out."""
    module = model.get_submodule(path) if path else model
    (count,) = _counts(module)[:1] or ("",)
    if isinstance(module, nn.MultiheadAttention):
        return "its queries, keys and values are no layers of their own"
    before = _before(module)
    behind = _behind(model, path)
    if not before or behind is None:
        return "its layers have other names"
    heads, wide = int(getattr(module, count)), behind.in_features
    outputs = 3 * wide if len(before) == 1 else wide
    if any(layer.out_features != outputs for layer in before):
        return "its queries, keys and values differ in width"
    if wide % heads:
        return f"{wide} columns do not divide into {heads} heads"
    return Attention(path, module, count, before, behind)


def attention_layers(model: nn.Module) -> list[nn.Linear]:
    """Layers that make queries, keys and values: their outputs may go by whole heads only."""
    return [layer for module in model.modules() if _counts(module) for layer in _before(module)]


def _counts(module: nn.Module) -> list[str]:
    """Attributes that say how many heads there are; configurations of whole models do not."""
    if not (_before(module) or isinstance(module, nn.MultiheadAttention)):
        return []
    return [name for name in COUNTS if isinstance(getattr(module, name, None), int)]


def _before(module: nn.Module) -> tuple[nn.Linear, ...]:
    children = dict(module.named_children())
    for name in _FUSED:
        one = children.get(name)
        if isinstance(one, nn.Linear):
            return (one,)
    for names in _SPLIT:
        found = [children.get(name) for name in names]
        layers = tuple(one for one in found if isinstance(one, nn.Linear))
        if len(layers) == len(names):
            return layers
    return ()


def _behind(model: nn.Module, path: str) -> nn.Linear | None:
    parent = path.rpartition(".")[0]
    names = [f"{path}.{name}" if path else name for name in _BEHIND]
    names += [f"{parent}.{name}" if parent else name for name in _BESIDE]
    for name in names:
        try:
            found = model.get_submodule(name)
        except AttributeError:
            continue
        if isinstance(found, nn.Linear):
            return found
    return None


def _known(model: nn.Module, path: str) -> Attention:
    found = attention_of(model, path)
    assert isinstance(found, Attention)
    return found


@torch.no_grad()
def _norms(one: Attention) -> torch.Tensor:
    squares = one.behind.weight.double().square().sum(0)
    for layer in one.before:
        rows = layer.weight.double().square().sum(1)
        squares = squares + rows.reshape(-1, one.behind.in_features).sum(0)
    return squares.reshape(one.heads, -1).sum(1).cpu()


def _weights(one: Attention) -> int:
    return sum(nonzeros(layer.weight) for layer in (*one.before, one.behind))


def _take_out(pruning: Any, one: Attention, heads: Sequence[int]) -> None:
    rows, columns = one.rows(heads), one.columns(heads)
    had, wide = one.heads, one.behind.in_features
    for layer in one.before:
        pruning.prune_linear_out_channels(layer, rows)
    pruning.prune_linear_in_channels(one.behind, columns)
    setattr(one.module, one.count, had - len(heads))
    for name in _WIDTHS:
        if getattr(one.module, name, None) == wide:
            setattr(one.module, name, one.behind.in_features)


@torch.no_grad()
def without_inputs(model: nn.Module, gone: Mapping[str, Sequence[int]]) -> nn.Module:
    """A copy whose layers, by path, do not heed some of their inputs."""
    twin = copy.deepcopy(model)
    for path, inputs in gone.items():
        weight: Any = twin.get_submodule(path).weight
        weight[:, list(inputs)] = 0.0
    return twin


def pruning_library(what: str) -> Any:
    """torch-pruning, which *what* needs.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import torch_pruning
    except ModuleNotFoundError:
        raise MissingExtraError.for_extra("optimize", what) from None
    return torch_pruning
