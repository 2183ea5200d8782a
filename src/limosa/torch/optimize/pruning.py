"""Unstructured pruning: weights that matter least become 0, which the bitstream has nearly free."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn
from torch.nn.utils import prune

from limosa.errors import ConfigError
from limosa.torch.optimize.gradients import mean_gradients
from limosa.torch.optimize.guard import Context
from limosa.torch.optimize.technique import (
    Change,
    Layer,
    Optimized,
    Technique,
    check_choice,
    check_share,
    nonzeros,
)
from limosa.torch.refine.targets import is_transposed_linear

_PATTERN = re.compile(r"(\d+):(\d+)")


@dataclass(frozen=True)
class MagnitudePruning(Technique):
    """Weights of the least magnitude become 0.

    Args:
        sparsity: share of weights that shall be 0.
        scope: "global" compares the weights of all layers, "layer" those of each.
        pattern: "N:M" keeps N of every M weights that follow each other in a row (of the inputs
            of an output), whatever *sparsity* says; "" for any.
        floor: with scope "global" each layer keeps this share of its weights at least, where
            *sparsity* leaves that many, so that none is cut through.
        only, exclude: patterns of the paths of layers.

    Raises:
        ConfigError: no such sparsity or pattern.

    >>> model = nn.Linear(8, 4)
    >>> done = MagnitudePruning(0.75).apply(model)
    >>> int(torch.count_nonzero(done.model.weight))
    8
    """

    sparsity: float = 0.9
    scope: Literal["global", "layer"] = "global"
    pattern: str = ""
    floor: float = 0.0
    only: str = ""
    exclude: str = ""

    def __post_init__(self) -> None:
        check_share("sparsity", self.sparsity)
        check_share("floor", self.floor)
        check_choice("scope", self.scope, ("global", "layer"))
        if self.pattern:
            self._parts()

    def _parts(self) -> tuple[int, int]:
        found = _PATTERN.fullmatch(self.pattern)
        keep, of = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 0 < keep < of:
            raise ConfigError("no pattern", found=self.pattern, allowed="N:M with N < M, as 2:4")
        return keep, of

    def _why_not(self, layer: Layer, tied: dict[str, str]) -> str:
        module = layer.module
        if self.pattern and (is_transposed_linear(module) or getattr(module, "transposed", False)):
            return f"the rows of a {type(module).__name__} are no inputs of an output"
        return super()._why_not(layer, tied)

    def scores(
        self, model: nn.Module, layers: Sequence[Layer], context: Context
    ) -> dict[str, torch.Tensor]:
        """How much each weight matters: its magnitude."""
        return {layer.name: layer.weight.detach().abs() for layer in layers}

    def _change(self, model: nn.Module, layers: Sequence[Layer], context: Context) -> Optimized:
        before = {layer.name: nonzeros(layer.weight) for layer in layers}
        scores = self.scores(model, layers, context)
        masks = self._masks(scores)
        for layer in layers:
            held = layer.module._parameters
            order = list(held)
            prune.custom_from_mask(  # type: ignore[no-untyped-call]
                layer.module, "weight", masks[layer.name]
            )
            prune.remove(layer.module, "weight")  # type: ignore[no-untyped-call]
            for name in order:  # as optimizers know them
                held[name] = held.pop(name)
            with torch.no_grad():
                layer.weight.add_(0.0)  # +0 of -0, which would be another value to the coder
        changes = []
        for layer in layers:
            after, size = nonzeros(layer.weight), layer.weight.numel()
            what = f"{1 - after / max(size, 1):.1%} zeros"
            changes.append(Change(layer.path, what, before[layer.name], after))
        return Optimized(model, tuple(changes), masks=masks)

    def _masks(self, scores: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if self.pattern:
            keep, of = self._parts()
            return {name: _grouped(score, keep, of) for name, score in scores.items()}
        if self.scope == "layer":
            return {name: _largest(score, 1 - self.sparsity) for name, score in scores.items()}
        floor = min(self.floor, 1 - self.sparsity)
        flat = torch.cat([_secured(score, floor).flatten().cpu() for score in scores.values()])
        kept = _largest(flat, 1 - self.sparsity)
        pieces = torch.split(kept, [score.numel() for score in scores.values()])
        return {
            name: piece.reshape(score.shape).to(score.device)
            for (name, score), piece in zip(scores.items(), pieces, strict=True)
        }


def _secured(score: torch.Tensor, share: float) -> torch.Tensor:
    """Scores of which the largest *share* are above all others of all layers."""
    found = score.float()
    return found if not share else found.masked_fill(_largest(score, share) > 0, torch.inf)


def _largest(score: torch.Tensor, share: float) -> torch.Tensor:
    """1 where the largest *share* of scores is; of equal ones those that come first."""
    count = round(share * score.numel())
    mask = torch.zeros(score.numel(), device=score.device)
    order = torch.sort(score.flatten().float(), descending=True, stable=True).indices
    mask[order[:count]] = 1.0
    return mask.reshape(score.shape)


def _grouped(score: torch.Tensor, keep: int, of: int) -> torch.Tensor:
    """1 at *keep* of every *of* that follow each other in a row; a rest is kept whole."""
    rows = score.reshape(score.shape[0], -1).float()
    whole = rows.shape[1] // of * of
    mask = torch.ones_like(rows)
    groups = rows[:, :whole].reshape(-1, of)
    order = torch.sort(groups, dim=1, descending=True, stable=True).indices
    chosen = torch.zeros_like(groups).scatter_(1, order[:, :keep], 1.0)
    mask[:, :whole] = chosen.reshape(rows.shape[0], whole)
    return mask.reshape(score.shape)


@dataclass(frozen=True)
class SaliencyPruning(MagnitudePruning):
    """Weights go whose loss would change the loss least, as batches of the context show.

    Args:
        order: 1 takes abs(w g), the first term of Taylor's series (P. Molchanov et al., 2017);
            2 takes w² E[g²] / 2, with the diagonal of Fisher's matrix in place of the curvature
            (Y. LeCun et al., Optimal Brain Damage, 1990; L. Theis et al., 2018).
        sparsity, scope, pattern, floor, only, exclude: as for :class:`MagnitudePruning`; saliencies
            of layers differ by orders of magnitude, so that a floor is needed.

    Raises:
        ConfigError: the context has no batches, or no loss.
    """

    floor: float = 0.02
    order: Literal[1, 2] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("order", self.order, (1, 2))

    def scores(
        self, model: nn.Module, layers: Sequence[Layer], context: Context
    ) -> dict[str, torch.Tensor]:
        """How much the loss changes without each weight."""
        means = mean_gradients(model, layers, context, "saliency", squared=self.order == 2)
        with torch.no_grad():
            return {layer.name: self._score(layer, means[layer.name]) for layer in layers}

    def _score(self, layer: Layer, mean: torch.Tensor) -> torch.Tensor:
        weight = layer.weight.detach().float()
        return (weight * mean).abs() if self.order == 1 else weight.square() * mean / 2


@dataclass(frozen=True)
class GradualPruning:
    """Prune a little, train a little: sparsity follows a cubic curve.

    M. Zhu and S. Gupta, "To prune, or not to prune", 2017, equation 1.

    Args:
        technique: of the end, with its sparsity.
        steps: how often to prune.
        start: sparsity of the beginning.

    Raises:
        ConfigError: no steps, or a start beyond the end.
    """

    technique: MagnitudePruning
    steps: int = 8
    start: float = 0.0

    def __post_init__(self) -> None:
        check_share("start", self.start)
        if (
            not isinstance(self.steps, int)
            or self.steps < 1
            or self.start > self.technique.sparsity
        ):
            raise ConfigError(
                "no schedule", found=f"{self.steps} steps from {self.start}",
                allowed=f"1 or more, from at most {self.technique.sparsity}",
            )  # fmt: skip

    def sparsities(self) -> Iterable[float]:
        """The sparsity of each step.

        >>> [round(s, 3) for s in GradualPruning(MagnitudePruning(0.8), steps=2).sparsities()]
        [0.7, 0.8]
        """
        end = self.technique.sparsity
        for step in range(1, self.steps + 1):
            yield end + (self.start - end) * (1 - step / self.steps) ** 3

    def apply(
        self,
        model: nn.Module,
        context: Context | None = None,
        *,
        train: Callable[[Optimized], Optimized | None] = lambda done: None,
    ) -> Optimized:
        """Prune in steps.

        Args:
            model: is not changed.
            context: as for each technique.
            train: is called after each step; it trains ``done.model`` and calls
                ``done.keep_zeros()`` after each step of its optimizer; or it gives back one whose
                model was trained.

        Raises:
            ConfigError: as for :meth:`Technique.apply`.
        """
        done = None
        for sparsity in self.sparsities():
            before = model if done is None else done.model
            done = replace(self.technique, sparsity=sparsity).apply(before, context)
            done = train(done) or done
            done.keep_zeros()
        assert done is not None
        return done
