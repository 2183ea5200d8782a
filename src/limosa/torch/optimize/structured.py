"""Structured pruning: filters, channels and neurons go, and the network is really smaller.

Which layers must shrink together is found by torch-pruning's dependency graph (G. Fang et al.,
"DepGraph: Towards Any Structural Pruning", 2023).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from limosa.errors import ConfigError
from limosa.torch.optimize.gradients import backward_passes
from limosa.torch.optimize.guard import Context
from limosa.torch.optimize.heads import attention_layers, pruning_library, without_inputs
from limosa.torch.optimize.technique import (
    LAYERS,
    Change,
    Layer,
    Optimized,
    Refusal,
    Technique,
    check_choice,
    check_share,
    named_modules,
    nonzeros,
)
from limosa.torch.refine.targets import is_transposed_linear

# Statistics over channels: without some of them they are others, whatever the channels held.
_MIXING = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


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
        check_share("share", self.share)
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
        with _following():
            ends, split = _outputs_of(tp, model, context, attention)
        frozen = [*others, *ends, *split]
        refused += [
            Refusal(layer.path, "its outputs are taken apart: parts of them cannot go alone")
            for layer in layers
            if layer.module in split
        ]
        pruner = self._pruner(tp, model, context, frozen)
        if self.importance == "data":
            for _ in backward_passes(model, context, "importance by data", add_up=True):
                pass  # the pruner reads what they left
        with _following():
            gone, mixed = _prune(pruner, model)
        model.zero_grad(set_to_none=True)
        changes = [
            Change(
                layer.path, f"{shape[0]} outputs to {layer.weight.shape[0]}, {shape[1]} inputs to "
                f"{layer.weight.shape[1]}", count, nonzeros(layer.weight),
            )
            for layer in layers
            for shape, count in [before[layer.path]]
            if layer.weight.shape != shape
        ]  # fmt: skip
        return Optimized(model, tuple(changes), tuple(refused), gone=gone, comparable=not mixed)

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
                global_pruning=self.scope == "global", ignored_layers=list(frozen),
                round_to=self.round_to, root_module_types=list(LAYERS),
            )  # fmt: skip

    def _reference(self, model: nn.Module, done: Optimized) -> nn.Module:
        """The old network, whose later layers do not heed what has gone."""
        if not done.comparable:
            return done.model  # its form and its numbers are looked at
        return without_inputs(model, done.gone)


@contextmanager
def _following() -> Iterator[None]:
    """Whatever a model does when it is run to find its graph is an error of ours."""
    try:
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
    tp: Any, model: nn.Module, context: Context, attention: AbstractSet[nn.Module]
) -> tuple[list[nn.Module], list[nn.Module]]:
    """Layers whose outputs are, or are added to, outputs of the whole network, or go into
    recurrent layers, which stay as they are; and layers of which several outputs depend on each
    other, as where the halves of one are multiplied: each half would take what the other chose.

    Those of *attention* are never pruned, and not looked at: what depends on them is not found in
    finite time where positions are rotated into queries and keys.
    """
    graph = tp.DependencyGraph().build_dependency(model, context.example)
    found: list[nn.Module] = []
    split: list[nn.Module] = []
    for path, module in named_modules(model, LAYERS, "", ""):
        if module not in graph.module2node:
            # What it needs is not known, and it may be used with other inputs.
            raise ConfigError(
                "the example passes a layer by", where=path, allowed="an example that uses all",
                remedy="prune without structure, or take the layer out of the model",
            )  # fmt: skip
        if module in attention:
            continue
        prune = graph.get_pruner_of_module(module).prune_out_channels
        group = graph.get_pruning_group(module, prune, [0])
        ends = [
            dependency
            for dependency, _ in group
            if isinstance(dependency.target.module, nn.RNNBase)
            or (
                not dependency.target.outputs
                and graph.is_out_channel_pruning_fn(dependency.handler)
            )
        ]
        if ends:
            found.append(module)
        elif any(
            dependency.target.module is module
            and len(set(places)) > 1
            and graph.is_out_channel_pruning_fn(dependency.handler)
            for dependency, places in group
        ):
            split.append(module)
    return found, split


def _prune(pruner: Any, model: nn.Module) -> tuple[dict[str, tuple[int, ...]], bool]:
    """Prune all groups; the inputs that layers lost, by the layers' paths, and whether a norm over
    channels lost some."""
    paths = {id(module): path for path, module in model.named_modules()}
    gone: dict[str, list[int]] = {}
    mixed = any(isinstance(module, nn.Softmax) for module in model.modules())
    for group in pruner.step(interactive=True):
        for dependency, places in group:
            target = dependency.target.module
            # A parameter without a layer of torch's belongs to something of the model's own.
            mixed = mixed or isinstance(target, (*_MIXING, nn.Parameter))
            inside = not pruner.DG.is_out_channel_pruning_fn(dependency.handler)
            if (
                inside
                and id(target) in paths
                and isinstance(getattr(target, "weight", 0), nn.Parameter)
            ):
                gone.setdefault(paths[id(target)], []).extend(map(int, places))
        group.prune()
    return {path: tuple(sorted(set(places))) for path, places in gone.items()}, mixed
