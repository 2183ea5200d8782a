"""Search: sparsities, bits and ranks of all layers together, for a budget in bytes or a drop.

Each layer is tried once in every way, alone: what it takes is what the real coder makes of it. A
quadratic model of the loss, with the diagonal of Fisher's matrix in place of the curvature, leaves
the ways that may be worth their bytes; what these cost is measured: the loss with that one layer
treated. The layers then share the bytes as a Lagrangian has it (Y. Shoham and A. Gersho, 1988).
What comes out is encoded, decoded and evaluated: that is what is reported.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from limosa.errors import ConfigError
from limosa.torch.optimize.encoding import near_lossless
from limosa.torch.optimize.gradients import mean_gradients
from limosa.torch.optimize.guard import (
    Context,
    check_runs,
    check_value,
    copy_of,
    evaluation,
    guard,
    value_of,
)
from limosa.torch.optimize.low_rank import LowRank
from limosa.torch.optimize.pruning import MagnitudePruning
from limosa.torch.optimize.rounding import LinearRounding
from limosa.torch.optimize.technique import Layer, Refusal, replace_layer, split_layers, why_not
from limosa.torch.optimize.watched import read_by_others
from limosa.torch.tensors import load, save

SPARSITIES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
BITS = (2, 3, 4, 5, 6, 7, 8)
RANKS = (0.1, 0.2, 0.35, 0.5)
_BISECTIONS = 60
_TRIES = 5
# Layers that get finer steps where the coarse ones leave bytes over.
_FINE = 4
_NEAR = 0.02
_TIE = 1e-3


@dataclass(frozen=True)
class Option:
    """A way to treat a layer.

    Attributes:
        sparsity, bits: of its weight, or of both factors.
        rank: of the two layers in its place; None: it stays one.
        nbytes: that the coder makes of it, alone.
        damage: to the loss, with this layer alone treated so.
    """

    sparsity: float
    bits: float
    rank: int | None
    nbytes: int
    damage: float


@dataclass(frozen=True)
class Found:
    """What a search ended with.

    Attributes:
        model: with the weights that the receiver will have.
        choices: of each layer, by path.
        predicted: bytes, as the layers' own add up.
        nbytes: of the file.
        data: the file.
        before, after: the metric of the model and of what the file decodes to.
        refused: layers that no choice was tried for, and why.
    """

    model: nn.Module
    choices: Mapping[str, Option]
    predicted: int
    nbytes: int
    data: bytes
    before: float
    after: float
    refused: tuple[Refusal, ...] = ()


class Search:
    """Finds how to treat each layer.

    Args:
        model: is not changed.
        context: with example inputs, batches and a loss.
        metric: of a model; larger is better.
        only, exclude: patterns of the paths of layers.
        ranks: whether layers may become two.
        looks: so many of the context's batches tell what a way really costs.

    Raises:
        ConfigError: there is no layer to change, or nothing to measure it by.
    """

    def __init__(
        self,
        model: nn.Module,
        context: Context,
        metric: Callable[[nn.Module], float],
        *,
        only: str = "",
        exclude: str = "",
        ranks: bool = True,
        looks: int = 8,
    ) -> None:
        self._ranks = ranks
        self.model = model
        # Layers are put in the places of others, one at a time.
        check_runs(model, context)
        self._model, self._context, self._metric = copy_of(model), context, metric
        model = self._model
        self._layers, self.refused = split_layers(model, only, exclude, why_not)
        if not self._layers:
            raise ConfigError("no layer can be changed", where="Search")
        self._read = read_by_others(model, self._layers, context) if ranks else {}
        self.before = value_of(metric, model)
        check_value(self.before)
        if iter(context.batches) is context.batches:
            raise ConfigError(
                "batches are gone through several times", where="Context.batches",
                found="an iterator", allowed="a list or a DataLoader",
            )  # fmt: skip
        self._fine: dict[tuple[str, float, int], list[Option]] = {}
        self._curvature = curvature = mean_gradients(
            model, self._layers, context, "a search", squared=True
        )
        self._looked_at = list(itertools.islice(context.batches, looks))
        self._base = self._loss(model)
        self._options = {
            layer.path: [
                self._measured(layer, one)
                for one in _front(self._ways(layer, curvature[layer.name]))
            ]
            for layer in self._layers
        }
        names = {layer.name for layer in self._layers}
        rest = {name: one for name, one in model.state_dict().items() if name not in names}
        self.rest = len(_coded(rest))

    def within(self, budget: int) -> Found:
        """The least damage in at most *budget* bytes.

        Raises:
            ConfigError: not even the smallest choices fit.
        """
        floor = self.rest + sum(
            min(one.nbytes for one in options) for options in self._options.values()
        )
        if budget < floor:
            raise ConfigError(
                "a budget below the floor", found=f"{budget} bytes", allowed=f"{floor} or more",
                remedy="let more layers be changed, or take a smaller network",
            )  # fmt: skip
        wanted, best = float(budget), None
        for _ in range(_TRIES):
            found = self.build(self._allocate(max(floor, wanted)))
            if found.nbytes <= budget and (best is None or found.nbytes > best.nbytes):
                best = found
            if budget * (1 - _NEAR) <= found.nbytes <= budget:
                break
            # The whole file differs a little from the sum of its parts.
            aim = budget * (1 - _NEAR / 4)
            wanted = max(floor, wanted * aim / found.nbytes)
        if best is None:
            best = self.build(self._allocate(floor))
        if best.nbytes > budget:
            raise ConfigError(
                "a budget below the floor", found=f"{budget} bytes",
                allowed=f"{best.nbytes} or more", remedy="let more layers be changed",
            )  # fmt: skip
        return best

    def down_to(self, max_drop: float) -> Found:
        """The fewest bytes at which the metric drops by at most *max_drop*.

        Raises:
            ConfigError: *max_drop* is negative, or the finest choices drop by more.
        """
        if not max_drop >= 0:
            raise ConfigError("a drop is 0 or more", found=str(max_drop))
        finest = self.finest()
        if self.before - finest.after > max_drop:
            raise ConfigError(
                "even the finest choices drop by more", found=f"{self.before - finest.after:.4g}",
                allowed=f"{max_drop:g}", remedy="exclude the layers that matter most",
            )  # fmt: skip
        low, high, best = math.log(self.rest + len(self._options)), math.log(finest.nbytes), finest
        for _ in range(12):
            middle = (low + high) / 2
            found = self.build(self._allocate(math.exp(middle)))
            if self.before - found.after <= max_drop:
                high = middle
                best = found if found.nbytes < best.nbytes else best
            else:
                low = middle
        return best

    def finest(self) -> Found:
        """The choices that do the least damage, whatever they take."""
        return self.build({p: min(o, key=lambda x: x.damage) for p, o in self._options.items()})

    @torch.no_grad()
    def _loss(self, model: nn.Module) -> float:
        assert self._context.loss is not None  # the curvature needed it
        with evaluation(model):
            found = [float(self._context.loss(model, batch)) for batch in self._looked_at]
        return sum(found) / len(found)

    def _measured(self, layer: Layer, option: Option) -> Option:
        """The option with its real damage: what the loss gains by it."""
        own = layer.module
        treated = treat(copy.deepcopy(own), option)
        if not layer.path:
            loss = self._loss(treated)
        else:
            replace_layer(self._model, layer.path, treated)
            try:
                loss = self._loss(self._model)
            finally:
                replace_layer(self._model, layer.path, own)
        # One that is no number is the worst of all. Where nothing can be measured, the quadratic
        # model tells which of two is better.
        damage = max(0.0, loss - self._base) if math.isfinite(loss) else math.inf
        return replace(option, damage=damage + _TIE * option.damage)

    def _ways(self, layer: Layer, curvature: torch.Tensor) -> list[Option]:
        alone = copy.deepcopy(layer.module)
        found = [
            self._option(layer, alone, curvature, sparsity, bits, None)
            for sparsity in SPARSITIES
            for bits in BITS
        ]
        may_be_two = self._ranks and layer.path not in self._read
        if may_be_two and not LowRank(rank=1)._why_not(layer, {}):
            full = min(layer.weight.shape[0], layer.weight[0].numel())
            for rank in sorted({max(1, round(share * full)) for share in RANKS}):
                if rank * (layer.weight.shape[0] + layer.weight[0].numel()) < layer.weight.numel():
                    found += [
                        self._option(layer, alone, curvature, 0.0, bits, rank) for bits in BITS[1:]
                    ]
        return found

    def _option(
        self,
        layer: Layer,
        alone: nn.Module,
        curvature: torch.Tensor,
        sparsity: float,
        bits: float,
        rank: int | None,
    ) -> Option:
        choice = Option(sparsity, bits, rank, 0, 0.0)
        treated = treat(alone, choice)
        if rank is None:
            tensors = {layer.name: treated.weight.detach()}  # type: ignore[operator]
            product = tensors[layer.name]
        else:
            assert isinstance(treated, nn.Sequential)
            tensors = {f"{layer.path}.{n}.weight": treated[n].weight.detach() for n in (0, 1)}  # type: ignore[operator]
            first, second = tensors.values()
            product = (second.flatten(1) @ first.flatten(1)).reshape(layer.weight.shape)
        error = (product - layer.weight.detach()).double()
        damage = float((curvature.double() * error.square()).sum()) / 2
        return replace(choice, nbytes=len(_coded(tensors)) - _EMPTY, damage=damage)

    def _allocate(self, budget: float) -> dict[str, Option]:
        """The choices of least damage whose bytes add up to at most *budget*."""
        left = budget - self.rest

        def choose(price: float) -> dict[str, Option]:
            return {
                path: min(options, key=lambda one: (one.damage + price * one.nbytes, one.nbytes))
                for path, options in self._options.items()
            }

        low, high = -60.0, 60.0
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            if sum(one.nbytes for one in choose(math.exp(middle)).values()) > left:
                low = middle
            else:
                high = middle
        chosen = choose(math.exp(high))
        return self._fill(chosen, left - sum(one.nbytes for one in chosen.values()))

    def _fill(self, chosen: dict[str, Option], left: float) -> dict[str, Option]:
        """Spend what the Lagrangian left over: it finds only what lies on the convex hull."""
        while True:
            offers = [
                ((chosen[path].damage - one.damage) / (one.nbytes - chosen[path].nbytes), path, one)
                for path, options in self._options.items()
                for one in options
                if chosen[path].nbytes < one.nbytes <= chosen[path].nbytes + left
                and one.damage < chosen[path].damage
            ]
            if not offers:
                return self._finer(chosen, left)
            _, path, one = max(offers, key=lambda offer: offer[0])
            left -= one.nbytes - chosen[path].nbytes
            chosen = {**chosen, path: one}

    def _finer(self, chosen: dict[str, Option], left: float) -> dict[str, Option]:
        """Spend what is less than the next step of any layer: finer steps for the largest ones."""
        largest = sorted(chosen, key=lambda name: -chosen[name].nbytes)[:_FINE]
        total = sum(one.nbytes for one in chosen.values())
        while left > _NEAR / 4 * total:
            offers = [
                (chosen[path].damage - one.damage, path, one)
                for path in largest
                if chosen[path].rank is None
                for one in self._fine_ways(path, chosen[path])
                if chosen[path].nbytes < one.nbytes <= chosen[path].nbytes + left
                and one.damage < chosen[path].damage
            ]
            if not offers:
                break
            _, path, one = max(offers, key=lambda offer: offer[0])
            left -= one.nbytes - chosen[path].nbytes
            chosen = {**chosen, path: one}
        return chosen

    def _fine_ways(self, path: str, now: Option) -> list[Option]:
        """Ways of a layer between those that all layers were tried in; each is tried once."""
        key = path, now.sparsity, math.floor(now.bits)
        if key not in self._fine:
            layer = next(one for one in self._layers if one.path == path)
            alone, curvature = copy.deepcopy(layer.module), self._curvature[layer.name]
            self._fine[key] = [
                self._measured(layer, one)
                for more in range(1, 21)
                for one in [
                    self._option(layer, alone, curvature, now.sparsity, key[2] + more / 10, None)
                ]
            ]
        return self._fine[key]

    def build(self, choices: Mapping[str, Option]) -> Found:
        """The model of these choices, as its file decodes."""
        twin = copy.deepcopy(self._model)
        for path, choice in choices.items():
            treated = treat(twin.get_submodule(path) if path else twin, choice)
            twin = replace_layer(twin, path, treated)
        data = _coded(twin.state_dict())
        twin.load_state_dict(load(data))
        guard(twin, twin, self._context)
        predicted = self.rest + sum(one.nbytes for one in choices.values())
        return Found(
            twin, dict(choices), predicted, len(data), data, self.before,
            value_of(self._metric, twin),
            tuple(self.refused),
        )  # fmt: skip


def _front(options: Sequence[Option]) -> list[Option]:
    """The options of which no other is both smaller and better."""
    front: list[Option] = []
    for one in sorted(options, key=lambda one: (one.nbytes, one.damage)):
        if not front or one.damage < front[-1].damage:
            front.append(one)
    return front


def treat(module: nn.Module, choice: Option) -> nn.Module:
    """A copy of a layer, treated as an option says."""
    return LinearRounding(choice.bits).apply(shaped(module, choice)).model


def shaped(module: nn.Module, choice: Option) -> nn.Module:
    """A copy of a layer with the rank and the zeros of an option, not rounded; or the layer."""
    model: nn.Module = module
    if choice.rank is not None:
        model = LowRank(rank=choice.rank).apply(model).model
    if choice.sparsity:
        model = MagnitudePruning(choice.sparsity, scope="layer").apply(model).model
    return model


def _coded(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """As the file will be: rounded weights as they are, the rest near-lossless."""
    return save(tensors, quality=near_lossless(tensors))


#: Of a file without tensors; that of several is there once.
_EMPTY = len(_coded({}))
