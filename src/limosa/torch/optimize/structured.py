"""Structured pruning: filters, channels and neurons go, and the network is really smaller.

Which layers must shrink together is found by torch-pruning's dependency graph (G. Fang et al.,
"DepGraph: Towards Any Structural Pruning", 2023).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from limosa.errors import ConfigError
from limosa.torch.optimize.gradients import backward_passes
from limosa.torch.optimize.guard import Context
from limosa.torch.optimize.heads import attention_layers, pruning_library
from limosa.torch.optimize.references import NORMS, channels_of, with_norms_over, without_inputs
from limosa.torch.optimize.technique import (
    LAYERS,
    Change,
    Layer,
    Optimized,
    Refusal,
    Technique,
    check_choice,
    named_modules,
    nonzeros,
)
from limosa.torch.refine.targets import is_transposed_linear


@dataclass(frozen=True)
class StructuredPruning(Technique):
    """Whole outputs of layers go, with all that depends on them.

    What the network gives as output keeps its size. The context's example is needed, since the
    graph is found by running it.

    Args:
        share: of the outputs of each layer that go; of all, where *scope* is "global".
        scope: "layer" or "global".
        importance: "weight" by the norm of all weights that go together, "data" by Taylor's first
            term of the loss on the context's batches (P. Molchanov et al., 2019).
        round_to: outputs are left in multiples of this.
        only, exclude: patterns of the paths of layers.

    Raises:
        ConfigError: no such share.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    >>> done = StructuredPruning(0.5).apply(model, Context(torch.ones(1, 8)))
    >>> done.model[0].out_features, done.model[2].in_features, done.model[2].out_features
    (8, 8, 4)
    """

    remedy = "exclude layers whose channels a function of the model's own mixes"

    share: float = 0.5
    scope: Literal["layer", "global"] = "layer"
    importance: Literal["weight", "data"] = "weight"
    round_to: int | None = None
    only: str = ""
    exclude: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.share, int | float) or not 0 <= self.share < 1:
            raise ConfigError("no share", where="share", found=repr(self.share), allowed="below 1")
        if self.round_to is not None and (not isinstance(self.round_to, int) or self.round_to < 1):
            raise ConfigError("no multiples", where="round_to", found=repr(self.round_to))
        check_choice("scope", self.scope, ("layer", "global"))
        check_choice("importance", self.importance, ("weight", "data"))

    def _why_not(self, layer: Layer, tied: dict[str, str]) -> str:
        if is_transposed_linear(layer.module):
            return f"torch-pruning does not know a {type(layer.module).__name__}"
        return super()._why_not(layer, tied)

    def _change(self, model: nn.Module, layers: Sequence[Layer], context: Context) -> Optimized:
        tp = pruning_library("structured pruning")
        if context.example is None:
            raise ConfigError("structured pruning needs example inputs", where="Context.example")
        before = {layer.path: (layer.weight.shape, nonzeros(layer.weight)) for layer in layers}
        # Heads are read out of these by their width: they go whole (HeadPruning), or not.
        attention = set(attention_layers(model))
        refused = [
            Refusal(layer.path, "makes queries, keys or values: HeadPruning takes whole heads")
            for layer in layers
            if layer.module in attention
        ]
        chosen = {layer.module for layer in layers} - attention
        others = [
            module
            for module in model.modules()
            if isinstance(module, LAYERS) and module not in chosen
        ]
        modes = [(module, module.training) for module in model.modules()]
        frozen = [one for one in model.parameters() if not one.requires_grad]
        for one in frozen:  # the graph is found by gradients
            one.requires_grad_(one.is_floating_point())
        with _following():
            ends, split, odd = _outputs_of(tp, model, context, {*attention, *others})
        refused += [
            Refusal(layer.path, why)
            for layer in layers
            for why in [_why_whole(layer.module, ends, split, odd)]
            if why
        ]
        still = [*others, *ends, *split, *odd]
        pruner = self._pruner(tp, model, context, still)
        if self.importance == "data":
            for _ in backward_passes(model, context, "importance by data", add_up=True):
                pass  # the pruner reads what they left
        with _following():
            gone, kept = _prune(pruner, model)
        model.zero_grad(set_to_none=True)
        for module, training in modes:
            module.training = training
        changes = [
            Change(
                layer.path, f"{shape[0]} outputs to {layer.weight.shape[0]}, {shape[1]} inputs to "
                f"{layer.weight.shape[1]}", count, nonzeros(layer.weight),
            )
            for layer in layers
            for shape, count in [before[layer.path]]
            if layer.weight.shape != shape
        ]  # fmt: skip
        return Optimized(model, tuple(changes), tuple(refused), gone=gone, kept=kept)

    def _pruner(
        self, tp: Any, model: nn.Module, context: Context, frozen: Sequence[nn.Module]
    ) -> Any:
        by_data = self.importance == "data"
        importance = (
            tp.importance.GroupTaylorImportance()
            if by_data
            else tp.importance.GroupMagnitudeImportance(p=2)
        )
        with _following():
            return tp.pruner.BasePruner(
                model, context.example, importance=importance, pruning_ratio=self.share,
                output_transform=_tensors,
                global_pruning=self.scope == "global", ignored_layers=list(frozen),
                round_to=self.round_to, root_module_types=list(LAYERS),
            )  # fmt: skip

    def _reference(self, model: nn.Module, done: Optimized) -> nn.Module:
        """The old network, whose later layers and norms do not heed what has gone."""
        return with_norms_over(without_inputs(model, done.gone), done.kept)


def _tensors(output: Any) -> list[Any]:
    """Of what a model returns, what torch-pruning can follow back."""
    return [one for one in tree_leaves(output) if isinstance(one, torch.Tensor)]


def _why_whole(
    module: nn.Module,
    ends: Sequence[nn.Module],
    split: Sequence[nn.Module],
    odd: Mapping[nn.Module, str],
) -> str:
    """Why a layer keeps all outputs; "" where it need not."""
    if module in ends:
        return "its outputs are the network's, or go into a recurrent layer"
    if module in split:
        return "its outputs are taken apart: parts of them cannot go alone"
    return odd.get(module, "")


@contextmanager
def _following() -> Iterator[None]:
    """Whatever a model does when it is run to find its graph is an error of ours."""
    try:
        with warnings.catch_warnings():  # of parameters of the model's own, which the guard proves
            warnings.filterwarnings("ignore", "Unwrapped parameters")
            yield
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            "the model's graph cannot be found", where="structured pruning",
            found=f"{type(error).__name__}: {error}"[:300],
            remedy="exclude what cannot be traced, or prune without structure",
        ) from error  # fmt: skip


def _outputs_of(
    tp: Any, model: nn.Module, context: Context, whole: AbstractSet[nn.Module]
) -> tuple[list[nn.Module], list[nn.Module], dict[nn.Module, str]]:
    """Layers whose outputs are, or are added to, outputs of the whole network, or go into
    recurrent layers, which stay as they are; layers of which several outputs depend on each
    other, as where the halves of one are multiplied: each half would take what the other chose;
    and layers whose outputs torch-pruning cannot follow, with what it says.

    Those of *whole* are never pruned, and not looked at: what depends on them may not be found in
    finite time, as where positions are rotated into queries and keys.
    """
    graph = tp.DependencyGraph().build_dependency(model, context.example, output_transform=_tensors)
    ends: list[nn.Module] = []
    split: list[nn.Module] = []
    odd: dict[nn.Module, str] = {}
    for path, module in named_modules(model, LAYERS, "", ""):
        if module not in graph.module2node:
            # What it needs is not known, and it may be used with other inputs.
            raise ConfigError(
                "the example passes a layer by", where=path, allowed="an example that uses all",
                remedy="prune without structure, or take the layer out of the model",
            )  # fmt: skip
        if module in whole:
            continue
        prune = graph.get_pruner_of_module(module).prune_out_channels
        try:
            group = graph.get_pruning_group(module, prune, [0])
            _check_places(graph, module, prune)
        except Exception as error:  # whatever an operation of the model's own does to channels
            odd[module] = f"its outputs cannot be followed ({type(error).__name__}: {error})"[:200]
            continue
        if any(_ends(graph, dependency) for dependency, _ in group):
            ends.append(module)
        elif any(
            dependency.target.module is module
            and len(set(places)) > 1
            and graph.is_out_channel_pruning_fn(dependency.handler)
            for dependency, places in group
        ):
            split.append(module)
    return ends, split, odd


def _check_places(graph: Any, module: nn.Module, prune: Any) -> None:
    """Refuse a layer whose outputs are taken for more than those have that they go into."""
    every = list(range(graph.get_out_channels(module)))
    for dependency, places in graph.get_pruning_group(module, prune, every):
        target = dependency.target.module
        is_out = graph.is_out_channel_pruning_fn(dependency.handler)
        wide = graph.get_out_channels(target) if is_out else graph.get_in_channels(target)
        if isinstance(target, nn.Module) and wide and len(places) and max(places) >= wide:
            raise IndexError(f"output {max(places)} of {wide}")


def _ends(graph: Any, dependency: Any) -> bool:
    target = dependency.target
    is_last = not target.outputs and graph.is_out_channel_pruning_fn(dependency.handler)
    return isinstance(target.module, nn.RNNBase) or is_last


def _owners(model: nn.Module) -> dict[int, nn.Module]:
    """Modules of the model's own that have something for each channel, by what they have: norms
    and scales, which see the channels that are left as they would see all."""
    return {
        id(one): module
        for module in model.modules()
        if not list(module.children())
        and (isinstance(module, nn.RMSNorm) or not type(module).__module__.startswith("torch."))
        for one in module.parameters(recurse=False)
        if one.dim() == 1
    }


_Places = dict[str, tuple[int, ...]]


def _prune(pruner: Any, model: nn.Module) -> tuple[_Places, _Places]:
    """Prune all groups; the inputs that layers lost, and the channels that norms have left, by
    path, all as they were numbered before."""
    paths = {id(module): path for path, module in model.named_modules()}
    left: dict[str, list[int]] = {}
    gone: dict[str, list[int]] = {}
    norms = set()
    for group in pruner.step(interactive=True):
        now: dict[str, set[int]] = {}
        owners = _owners(model)
        for dependency, places in group:
            target = dependency.target.module
            owner = owners.get(id(target)) if isinstance(target, nn.Parameter) else None
            target = target if owner is None else owner
            path = paths.get(id(target))
            is_norm = owner is not None or isinstance(target, NORMS)
            is_norm = is_norm and channels_of(target) > 0
            inside = not pruner.DG.is_out_channel_pruning_fn(dependency.handler)
            is_layer = inside and isinstance(getattr(target, "weight", 0), nn.Parameter)
            if path is None or not (is_norm or is_layer):
                continue
            if is_norm:
                norms.add(path)
            left.setdefault(path, list(range(channels_of(target))))
            now.setdefault(path, set()).update(map(int, places))
        for path, some in now.items():
            # What groups before took is not counted any more.
            gone.setdefault(path, []).extend(left[path][place] for place in some)
            left[path] = [one for place, one in enumerate(left[path]) if place not in some]
        group.prune()
    for module in model.modules():
        if isinstance(module, nn.RMSNorm) and module.weight is not None:
            # torch-pruning knows its weight alone.
            module.normalized_shape = tuple(module.weight.shape)
    inputs = {path: tuple(sorted(places)) for path, places in gone.items() if path not in norms}
    return inputs, {path: tuple(left[path]) for path in norms}
