"""Whole heads of attention go, with their rows of queries, keys, values and columns behind them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from limosa.errors import ConfigError, MissingExtraError
from limosa.torch.optimize.gradients import backward_passes
from limosa.torch.optimize.guard import Context, GuardError
from limosa.torch.optimize.references import without_inputs
from limosa.torch.optimize.technique import (
    Change,
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

#: Under which names modules say how many heads they have, and how many of keys and values.
COUNTS = (
    "num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "heads", "n_local_heads",
)  # fmt: skip
_GROUPS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads", "n_local_kv_heads")
#: Or, where results of layers are only divided into heads, how wide one is.
_SIZES = ("head_dim", "attention_head_size", "head_size")
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
_Kinds = tuple[type[nn.Module], ...]


@dataclass(frozen=True)
class Attention:
    """A module of attention whose heads are known.

    Attributes:
        path: of the module.
        module: itself.
        heads: how many it has.
        groups: heads of keys and values: as many, or fewer where several queries share one
            (J. Ainslie et al., 2023). What goes is a group.
        before: the layers that make queries, keys and values, or one that makes all.
        behind: the layer that the heads' results go into, side by side.
    """

    path: str
    module: nn.Module
    heads: int
    groups: int
    before: tuple[nn.Linear, ...]
    behind: nn.Linear

    @property
    def parts(self) -> int:
        """Of queries, keys and values, how many one layer makes."""
        return 3 if len(self.before) == 1 else 1

    def rows(self, layer: nn.Linear, groups: Sequence[int]) -> list[int]:
        """Outputs of a layer before that belong to groups."""
        wide = layer.out_features // self.parts
        columns = _columns(wide, self.groups, groups)
        return [part * wide + one for part in range(self.parts) for one in columns]

    def columns(self, groups: Sequence[int]) -> list[int]:
        """Inputs of the layer behind that belong to groups."""
        return _columns(self.behind.in_features, self.groups, groups)


@dataclass(frozen=True)
class HeadPruning(Technique):
    """Heads of attention go whole; the module's number of heads becomes smaller.

    Modules are known by what they are called: a number of heads (``num_heads``,
    ``num_attention_heads``, …) or the width of one (``head_dim``), linear layers ``qkv``, or ``q``,
    ``k``, ``v`` and the like, and one for the output (``proj``, ``out_proj``, ``output.dense``, …),
    as in timm and transformers. Heads that share keys and values (grouped queries) go together.
    That they lie where they are taken from is proved by the guard, so an example is needed.

    Args:
        share: of the heads of each module that go; one stays at least, or one group.
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

    remedy = "its heads lie elsewhere than is usual: exclude it"

    share: float = 0.5
    importance: Literal["weight", "data"] = "weight"
    only: str = ""
    exclude: str = ""

    def __post_init__(self) -> None:
        check_share("share", self.share)
        check_choice("importance", self.importance, ("weight", "data"))

    def _applied(self, model: nn.Module, used: Context) -> Optimized:
        """All modules at once; where the guard refuses that, those that it takes alone."""
        try:
            return super()._applied(model, used)
        except GuardError as error:
            good = self._split(model)[0]
            if len(good) < 2 or used.refusals == "stop":
                raise
            odd = [one.path for one in good if self._fails(model, one.path, used)]
            if not odd or len(odd) == len(good):
                raise
            rest = replace(self, exclude="|".join([*filter(None, [self.exclude]), *map(_is, odd)]))
            done = super(HeadPruning, rest)._applied(model, used)
            why = f"its heads lie elsewhere than is usual ({error.args[0]})"
            return replace(done, refused=(*done.refused, *(Refusal(one, why) for one in odd)))

    def _fails(self, model: nn.Module, path: str, used: Context) -> bool:
        try:
            super(HeadPruning, replace(self, only=_is(path)))._applied(model, used)
        except GuardError:
            return True
        return False

    def _split(self, model: nn.Module) -> tuple[list[Layer], list[Refusal]]:
        good, refused = [], []
        tied = tied_names(model)
        for path, module in named_modules(model, (nn.Module,), self.only, self.exclude):
            if not _has_heads(module):
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
            had, left = one.heads, max(1, one.groups - round(self.share * one.groups))
            weakest = scores[one.path].argsort(stable=True)
            groups = sorted(weakest[: one.groups - left].tolist())
            if not groups:
                refused.append(Refusal(one.path, f"no head of {had} would go"))
                continue
            before = _weights(one)
            gone[paths[id(one.behind)]] = tuple(one.columns(groups))
            _take_out(pruning, one, groups)
            what = f"{had} heads to {had * left // one.groups}"
            changes.append(Change(one.path, what, before, _weights(one)))
        return Optimized(model, tuple(changes), tuple(refused), gone=gone)

    def _scores(
        self, model: nn.Module, modules: Sequence[Attention], context: Context
    ) -> dict[str, torch.Tensor]:
        """How much each group matters."""
        if self.importance == "weight":
            return {one.path: _norms(one) for one in modules}
        sums = {one.path: torch.zeros(one.groups, dtype=torch.float64) for one in modules}
        for _ in backward_passes(model, context, "importance by data"):
            for one in modules:
                weight = one.behind.weight
                if weight.grad is not None:
                    effect = (weight.detach() * weight.grad).double().sum(0)
                    sums[one.path] += effect.reshape(one.groups, -1).sum(1).abs().cpu()
        model.zero_grad(set_to_none=True)
        return sums

    def _reference(self, model: nn.Module, done: Optimized) -> nn.Module:
        """The old network, whose output layers do not heed the heads that went."""
        return without_inputs(model, done.gone)


def _is(path: str) -> str:
    """A pattern of this path alone."""
    return f"^{re.escape(path)}$"


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
    if isinstance(module, nn.MultiheadAttention):
        return "its queries, keys and values are no layers of their own"
    before = _before(module)
    behind = _behind(model, path)
    if not before or behind is None:
        return "its layers have other names"
    wide = behind.in_features
    heads = _said(module, COUNTS) or wide // _said(module, _SIZES)
    if not heads or wide % heads:
        return f"{wide} columns do not divide into {heads} heads"
    shared = before[1].out_features if len(before) == 3 else wide
    groups = shared * heads // wide if shared * heads % wide == 0 else 0
    outputs = [wide, shared, shared] if len(before) == 3 else [3 * wide]
    if [layer.out_features for layer in before] != outputs or not groups or heads % groups:
        return "its queries, keys and values differ in width"
    return Attention(path, module, heads, groups, before, behind)


def attention_layers(model: nn.Module) -> list[nn.Module]:
    """Layers that make queries, keys and values: their outputs may go by whole heads only."""
    kinds = (nn.Linear, nn.Conv2d)
    return [
        layer
        for module in model.modules()
        if _has_heads(module, kinds)
        for layer in _before(module, kinds)
    ]


def _has_heads(module: nn.Module, kinds: _Kinds = (nn.Linear,)) -> bool:
    """Whether a module is one of attention; configurations of whole models are none."""
    known = bool(_before(module, kinds)) or isinstance(module, nn.MultiheadAttention)
    return known and bool(_said(module, COUNTS) or _said(module, _SIZES))


def _said(module: nn.Module, names: Sequence[str]) -> int:
    """The first number that a module has under one of some names; 0 for none."""
    found = (getattr(module, name, None) for name in names)
    return next((one for one in found if isinstance(one, int)), 0)


def _before(module: nn.Module, kinds: _Kinds = (nn.Linear,)) -> tuple[Any, ...]:
    """The layers of some kinds that make queries, keys and values."""
    children = dict(module.named_children())
    for name in _FUSED:
        one = children.get(name)
        if isinstance(one, kinds):
            return (one,)
    for names in _SPLIT:
        found = [children.get(name) for name in names]
        layers = tuple(one for one in found if isinstance(one, kinds))
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
    found = one.behind.weight.double().square().sum(0).reshape(one.groups, -1).sum(1)
    for layer in one.before:
        rows = layer.weight.double().square().sum(1)
        found += rows.reshape(one.parts, one.groups, -1).sum((0, 2))
    return found.cpu()


def _weights(one: Attention) -> int:
    return sum(nonzeros(layer.weight) for layer in (*one.before, one.behind))


def _take_out(pruning: Any, one: Attention, groups: Sequence[int]) -> None:
    columns, wide, left = one.columns(groups), one.behind.in_features, one.groups - len(groups)
    for layer in one.before:
        pruning.prune_linear_out_channels(layer, one.rows(layer, groups))
    pruning.prune_linear_in_channels(one.behind, columns)
    said = dict.fromkeys(COUNTS, (one.heads, one.heads * left // one.groups))
    said |= dict.fromkeys(_GROUPS, (one.groups, left))
    said |= dict.fromkeys(_WIDTHS, (wide, one.behind.in_features))
    for name, (before, after) in said.items():
        if getattr(one.module, name, None) == before:
            setattr(one.module, name, after)


def _columns(wide: int, groups: int, chosen: Sequence[int]) -> list[int]:
    size = wide // groups
    return [group * size + one for group in chosen for one in range(size)]


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
