"""A search between trainings: a network grows used to what it loses, and can lose more of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import nn

from limosa.errors import ConfigError
from limosa.torch.optimize.guard import Context
from limosa.torch.optimize.rounding import LinearRounding, straight_through, without_rounding
from limosa.torch.optimize.search import Found, Option, Search, shaped
from limosa.torch.optimize.technique import replace_layer

#: Trains a copy of a model: parameters by name -> where they stay 0.
Train = Callable[[nn.Module, dict[str, torch.Tensor]], nn.Module]

_Asked = TypeVar("_Asked", int, float)
# Of the bytes of weights, from one training to the next, where no budget says how far to go.
_SHRINK, _LEAST_SHRINK = 0.7, 0.9
_MOST_AIMS = 12
# Batches that are looked at on the way: what is chosen there is chosen anew.
_LOOKS = 3


@dataclass(frozen=True)
class TrainedSearch:
    """:class:`Search`, and training towards what it chooses, in steps.

    In each step the sparsities, bits and ranks for a size between are chosen, the layers treated
    so, and the network trained: zeros stay zeros, and weights are rounded straight through. The
    next step measures all layers anew. What comes out is chosen, encoded, decoded and evaluated as
    by :class:`Search`; where training does harm, it is what is found without.

    Args:
        model, context, metric, only, exclude, ranks: as for :class:`Search`.
        train: of a model, which it leaves as it is, and masks; such as
            ``lambda model, masks: training.run(model, first, masks, batches)``.
        steps: trainings on the way to a budget, or most of them for one size on the way to a drop.

    Raises:
        ConfigError: fewer steps than one; as for :class:`Search`, with its methods.

    >>> from torch.nn import functional
    >>> from limosa.torch.optimize.training import Training
    >>> _ = torch.manual_seed(0)
    >>> inputs, labels = torch.randn(64, 40), torch.randint(4, (64,))
    >>> model, batches = nn.Sequential(nn.Linear(40, 4)), [(inputs, labels)]
    >>> def loss(model, batch):
    ...     return functional.cross_entropy(model(batch[0]), batch[1])
    >>> def accuracy(model):
    ...     return float((model(inputs).argmax(1) == labels).float().mean())
    >>> def train(net, masks):
    ...     return Training(epochs=8, rate=0.01).run(net, model, masks, batches)
    >>> context = Context(inputs[:1], batches, loss)
    >>> search = TrainedSearch(model, context, accuracy, train)
    >>> search.within(280).after > Search(model, context, accuracy).within(280).after
    True
    """

    model: nn.Module
    context: Context
    metric: Callable[[nn.Module], float]
    train: Train
    steps: int = 4
    only: str = ""
    exclude: str = ""
    ranks: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError("no steps", found=str(self.steps), allowed="1 or more")

    def within(self, budget: int) -> Found:
        """The best metric in at most *budget* bytes.

        Raises:
            ConfigError: not even the smallest choices fit, or the training fails.
        """
        search = self._search(self.model, looks=_LOOKS)
        best = search.within(budget)  # says that nothing fits before anything is trained
        start = max(budget, search.finest().nbytes) - search.rest
        for step in range(1, self.steps + 1):
            # What is no weight on a grid stays as it is. The last two steps are of one size: what
            # is chosen after a large one is not what was trained.
            share = min(1.0, step / max(1, self.steps - 1))
            aim = search.rest + start * ((budget - search.rest) / start) ** share
            now = _found(search.within, max(budget, int(aim)))
            if now is None:
                break
            looks = {} if step == self.steps else {"looks": _LOOKS}
            trained = self._trained(search.model, now)
            search = self._search(trained, best.before, **looks)
            if step >= self.steps - 1:
                for found in (search.build(_same(now)), _found(search.within, budget)):
                    if found is not None and found.nbytes <= budget and found.after > best.after:
                        best = found
        return best

    def down_to(self, max_drop: float) -> Found:
        """The fewest bytes at which the metric drops by at most *max_drop*.

        Raises:
            ConfigError: *max_drop* is negative, the finest choices drop by more without training,
                or the training fails.
        """
        search = self._search(self.model)
        best, shrink = search.down_to(max_drop), _SHRINK
        for _ in range(_MOST_AIMS):
            aim = search.rest + (best.nbytes - search.rest) * shrink
            reached = self._reached(search, int(aim), best, max_drop)
            if reached is not None:
                search, best = reached
            elif shrink > _LEAST_SHRINK:
                break
            else:  # from where it was still good, by less
                shrink = math.sqrt(shrink)
        return best

    def _reached(
        self, search: Search, aim: int, best: Found, max_drop: float
    ) -> tuple[Search, Found] | None:
        """Trained for a size, in as many steps as that takes, until fewer bytes will do."""
        for _ in range(self.steps):
            now = _found(search.within, aim)
            if now is None:
                return None
            search = self._search(self._trained(search.model, now), best.before)
            found = _found(search.down_to, max_drop)
            if found is not None and found.nbytes < best.nbytes:
                return search, found
        return None

    def _search(self, model: nn.Module, before: float | None = None, **settings: int) -> Search:
        made = Search(
            model, self.context, self.metric, only=self.only, exclude=self.exclude,
            ranks=self.ranks, **settings,
        )  # fmt: skip
        if before is not None:
            made.before = before  # of the model that all began with
        return made

    def _trained(self, model: nn.Module, found: Found) -> nn.Module:
        """The model with its layers as they were chosen, and weights that are not rounded yet."""
        twin = copy.deepcopy(model)
        for path, choice in found.choices.items():
            own = twin.get_submodule(path) if path else twin
            twin = replace_layer(twin, path, shaped(own, choice))
        masks = {name: one != 0 for name, one in twin.named_parameters() if bool((one == 0).any())}
        for path, choice in _same(found).items():
            layer = twin.get_submodule(path) if path else twin
            straight_through(layer, LinearRounding(choice.bits))
        return without_rounding(self.train(twin, masks))


def _same(found: Found) -> dict[str, Option]:
    """The choices for the model that was trained by them: of two layers where one was split."""
    choices: dict[str, Option] = {}
    for path, choice in found.choices.items():
        plain = replace(choice, rank=None)
        if choice.rank is None:
            choices[path] = plain
            continue
        # The bytes are of both.
        choices[f"{path}.0".lstrip(".")] = plain
        choices[f"{path}.1".lstrip(".")] = replace(plain, nbytes=0, damage=0.0)
    return choices


def _found(find: Callable[[_Asked], Found], asked: _Asked) -> Found | None:
    """None where a search says that it cannot be done: after a training, that is its end."""
    try:
        return find(asked)
    except ConfigError:
        return None
