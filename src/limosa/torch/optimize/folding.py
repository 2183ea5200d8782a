"""Batch normalisation folded: what a network computes stays, numbers that say it twice go.

In evaluation a batch norm is one scale and one shift a channel, told by four numbers, and a bias
before it is a fifth. In a pruned and rounded network these are a large part of the file.
"""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import fx, nn
from torch.nn.utils import fusion

from limosa.torch.graphs.threads import ThreadTracer
from limosa.torch.optimize.guard import Context, copy_of, outputs_of
from limosa.torch.optimize.technique import (
    LAYERS,
    Change,
    Layer,
    Optimized,
    Refusal,
    Technique,
    check_choice,
    named_modules,
    replace_layer,
)

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_TORCHS = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d,
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip
# Of the largest output, for a layer and its norm beside the one that they become.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class BatchNormFolding(Technique):
    """Statistics of batch norms go into scales and shifts, or these into the layers before.

    A layer or a norm of a class of the model's own (one that pads by itself, or has an activation
    in it, as timm's) is taken where the context's example shows that it becomes what it should.
    For evaluation: whoever trains the result further
    has no running statistics to go on from.

    Args:
        form: "norm" keeps the architecture, and the norms keep a scale and a shift: means become
            0, variances 1, and so does a bias before a norm; these code to nothing. "layer"
            makes one layer of a layer and its norm, which is faster, while weights that were
            rounded are so no more.
        only, exclude: patterns of the paths of norms.

    Raises:
        ConfigError: no such form.

    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)).eval()
    >>> done = BatchNormFolding().apply(model, Context(torch.ones(1, 1, 4, 4)))
    >>> done.model[0].bias.tolist(), done.model[1].running_mean.tolist()
    ([0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0])
    >>> BatchNormFolding("layer").apply(model).model[1]
    Identity()
    """

    form: Literal["norm", "layer"] = "norm"
    only: str = ""
    exclude: str = ""

    def __post_init__(self) -> None:
        check_choice("form", self.form, ("norm", "layer"))

    def _split(self, model: nn.Module) -> tuple[list[Layer], list[Refusal]]:
        good, refused = [], []
        shared = _shared(model)
        for path, module in named_modules(model, _NORMS, self.only, self.exclude):
            if module._buffers.get("running_mean") is None:
                refused.append(Refusal(path, "it keeps no statistics"))
            elif self.form == "norm" and module._parameters.get("weight") is None:
                refused.append(Refusal(path, "it has no scale of its own"))
            elif shared & _held(module):
                refused.append(Refusal(path, "its scale or statistics are tied to another layer's"))
            else:
                good.append(Layer(path, module, f"{path}.weight"))
        return good, refused

    def _change(self, model: nn.Module, layers: Sequence[Layer], context: Context) -> Optimized:
        pairs, why = _layers_before(model)
        pairs = _proved(model, pairs, context)
        if self.form == "layer":
            return self._into_layers(model, layers, pairs, why)
        changes = []
        refused = [Refusal("", f"biases before norms stay: {why}")] if why else []
        for layer in layers:
            before = _nonzeros(layer.module)
            _fold_statistics(layer.module, pairs.get(layer.path))
            changes.append(
                Change(layer.path, "mean 0, variance 1", before, _nonzeros(layer.module))
            )
        return Optimized(model, tuple(changes), tuple(refused))

    def _into_layers(
        self, model: nn.Module, layers: Sequence[Layer], pairs: dict[str, nn.Module], why: str
    ) -> Optimized:
        paths = {id(module): path for path, module in model.named_modules()}
        changes, refused = [], []
        for layer in layers:
            before = pairs.get(layer.path)
            if before is None:
                refused.append(Refusal(layer.path, why or "no plain layer feeds it alone"))
                continue
            count = _nonzeros(layer.module)
            model = replace_layer(model, paths[id(before)], _fused(before, layer.module))
            model = replace_layer(model, layer.path, _rest_of(layer.module))
            changes.append(Change(layer.path, f"into {paths[id(before)]}", count, 0))
        return Optimized(model, tuple(changes), tuple(refused))

    def _reference(self, model: nn.Module, done: Optimized) -> nn.Module:
        """The old network: it computes the same."""
        return copy_of(model)


@torch.no_grad()
def _fold_statistics(norm: Any, before: nn.Module | None) -> None:
    """γ (x - μ) / √(σ² + ε) + β with μ = 0, σ² = 1 and the bias before it 0."""
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    mean = norm.running_mean.double()
    bias = None if before is None else before._parameters.get("bias")
    if bias is not None:
        mean = mean - bias.double()
        bias.zero_()
    shift = norm.bias.double() - scale * mean
    norm.running_mean.zero_()
    norm.running_var.fill_(1.0)
    norm.weight.copy_(scale * (1.0 + norm.eps) ** 0.5)
    norm.bias.copy_(shift)


def _fused(before: nn.Module, norm: Any) -> nn.Module:
    training = before.training
    layer: Any = copy.deepcopy(before).eval()
    after: Any = copy.deepcopy(norm).eval()
    if isinstance(layer, nn.Linear):
        return fusion.fuse_linear_bn_eval(layer, after).train(training)
    made: nn.Module = fusion.fuse_conv_bn_eval(layer, after, transpose=layer.transposed)
    return made.train(training)


def _rest_of(norm: nn.Module) -> nn.Module:
    """What is left of a norm that went into a layer: what it has in it, as an activation."""
    inside = copy.deepcopy(dict(norm.named_children()))
    rest = nn.Sequential(OrderedDict(inside)) if inside else nn.Identity()
    return rest.train(norm.training)


class _Tracer(ThreadTracer):
    """Layers and norms of a class of the model's own stay whole, as torch's do."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is recorded as a call."""
        return isinstance(m, (*LAYERS, *_NORMS)) or super().is_leaf_module(m, module_qualified_name)


def _proved(
    model: nn.Module, pairs: dict[str, nn.Module], context: Context
) -> dict[str, nn.Module]:
    """The pairs without those whose layer or norm does more with its weight than torch's would."""
    plain = {kind.forward for kind in (*_TORCHS, *_NORMS)}
    odd = {
        path: one
        for path, one in pairs.items()
        if {type(one).forward, type(model.get_submodule(path)).forward} - plain
    }
    seen: dict[int, tuple[Any, Any]] = {}

    def keep(module: nn.Module, inputs: Any, named: Any) -> None:
        seen[id(module)] = inputs, named

    hooks = [one.register_forward_pre_hook(keep, with_kwargs=True) for one in odd.values()]
    try:
        if hooks and context.example is not None:
            outputs_of(model, context)
    finally:
        for hook in hooks:
            hook.remove()
    wrong = {
        path
        for path, one in odd.items()
        if id(one) not in seen or not _becomes_one(one, model.get_submodule(path), *seen[id(one)])
    }
    return {path: one for path, one in pairs.items() if path not in wrong}


@torch.no_grad()
def _becomes_one(before: nn.Module, norm: nn.Module, inputs: Any, named: Any) -> bool:
    wanted = copy.deepcopy(norm).eval()(copy.deepcopy(before).eval()(*inputs, **named))
    found = _rest_of(norm).eval()(_fused(before, norm).eval()(*inputs, **named))
    apart = (found - wanted).abs().max()
    return bool(apart <= _TOLERANCE * wanted.abs().max())


def _layers_before(model: nn.Module) -> tuple[dict[str, nn.Module], str]:
    """Norms by path -> the layer of which they, and nothing else, see the output; or why that
    cannot be known."""
    try:
        graph = _Tracer().trace(copy_of(model))  # whose attributes may become symbols
    except Exception as error:  # whatever symbolic values meet in a model's code
        return {}, f"torch.fx cannot trace the model ({type(error).__name__}: {error})"[:200]
    return dict(_pairs(model, graph)), ""


def _pairs(model: nn.Module, graph: fx.Graph) -> Iterator[tuple[str, nn.Module]]:
    modules = dict(model.named_modules())
    calls = Counter(id(modules[str(n.target)]) for n in graph.nodes if n.op == "call_module")
    shared = _shared(model)
    # Layers whose weights are used elsewhere too, and shall not become others.
    read = {str(n.target).rpartition(".")[0] for n in graph.nodes if n.op == "get_attr"}
    for node in graph.nodes:
        if node.op != "call_module" or not isinstance(modules[str(node.target)], _NORMS):
            continue
        fed = node.args[0] if node.args else None
        if not isinstance(fed, fx.Node) or fed.op != "call_module" or len(fed.users) != 1:
            continue
        before, norm = modules[str(fed.target)], modules[str(node.target)]
        if {str(fed.target), str(node.target)} & read:
            continue
        once = calls[id(before)] == 1 and calls[id(norm)] == 1 and not shared & _held(before)
        if once and _fits(before, norm):
            yield str(node.target), before


def _fits(before: nn.Module, norm: nn.Module) -> bool:
    """Whether the norm's channels are the layer's outputs, with weights that are plain."""
    if isinstance(before, nn.Linear):
        outputs: object = before.out_features
    elif isinstance(before, nn.modules.conv._ConvNd):
        outputs = before.out_channels
    else:
        return False
    plain = isinstance(before._parameters.get("weight"), nn.Parameter)
    return plain and outputs == norm.num_features


def _held(module: nn.Module) -> set[int]:
    held = (*module._parameters.values(), *module._buffers.values())
    return {id(one) for one in held if one is not None}


def _shared(model: nn.Module) -> set[int]:
    """Tensors that belong to several modules: whoever changes them changes all of these."""
    owners = Counter(one for module in model.modules() for one in _held(module))
    return {one for one, count in owners.items() if count > 1}


def _nonzeros(module: nn.Module) -> int:
    held = (*module.parameters(), *module.buffers())
    return sum(int(torch.count_nonzero(one)) for one in held if one.is_floating_point())
