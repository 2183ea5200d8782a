"""Training between the stages of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrize

from limosa.errors import ConfigError
from limosa.torch.optimize.distill import Batch, Criterion, Distillation, fit, label_loss
from limosa.torch.optimize.guard import copy_of
from limosa.torch.optimize.technique import Optimized, check_choice
from limosa.torch.refine.targets import norms_of

#: Told a stage's name, how many epochs are done, and of how many.
Progress = Callable[[str, int, int], None]
Epoch = Callable[[int, float], None]


@dataclass(frozen=True)
class Training:
    """Training after a stage.

    Attributes:
        epochs, rate: as for :func:`limosa.torch.optimize.fit`.
        teacher: "first" learns from the model before all stages as well, "" from labels alone.
        temperature, hard, soft, features, layers: as for
            :class:`limosa.torch.optimize.Distillation`.
        statistics: of batch norms: "train" them as well, or "freeze" them, as is better where the
            data are few or come in small batches. (Norms that are frozen already stay so.)
    """

    epochs: int = 1
    rate: float = 1e-3
    teacher: str = ""
    temperature: float = 4.0
    hard: float = 0.3
    soft: float = 0.7
    features: float = 0.0
    layers: Mapping[str, str] = field(default_factory=dict)
    statistics: Literal["train", "freeze"] = "train"

    def __post_init__(self) -> None:
        if self.teacher not in ("", "first"):
            raise ConfigError("no teacher", found=self.teacher, allowed="first, or none")
        check_choice("statistics", self.statistics, ("train", "freeze"))
        if self.layers and not self.teacher:
            raise ConfigError("features of layers need a teacher", found="none", allowed="first")
        if not isinstance(self.epochs, int) or self.epochs < 1 or not self.rate > 0:
            raise ConfigError(
                "no training", found=f"{self.epochs} epochs at a rate of {self.rate}",
                allowed="1 or more, above 0",
            )  # fmt: skip

    def run(
        self,
        model: nn.Module,
        first: nn.Module,
        masks: Mapping[str, torch.Tensor],
        batches: Iterable[Batch],
        progress: Epoch = lambda epoch, loss: None,
        criterion: Criterion = functional.cross_entropy,
    ) -> nn.Module:
        """A trained copy of *model*.

        Args:
            model: is not changed; its weights may be rounded straight through.
            first: the teacher, if there is one.
            masks: parameters by name -> where they stay 0.
            batches: of inputs and labels.
            progress: is called after each epoch.
            criterion: of outputs and labels.

        Raises:
            ConfigError: as for :func:`limosa.torch.optimize.fit`.
        """
        twin = copy_of(model)
        modes = [module.training for module in twin.modules()]
        _train_mode(twin, self.statistics == "freeze")
        zeros = Optimized(twin, (), masks=_masks_of(twin, masks))
        with Distillation(
            first, twin, temperature=self.temperature, hard=self.hard, soft=self.soft,
            features=self.features, layers=self.layers, criterion=criterion,
        ) as distillation:  # fmt: skip
            taught: Any = (
                distillation if self.teacher else partial(label_loss, twin, criterion=criterion)
            )
            if self.layers and self.teacher:
                distillation(*next(iter(batches)))  # makes the maps, which are trained as well
            fit(
                taught, distillation.parameters(), batches, epochs=self.epochs, rate=self.rate,
                after_step=zeros.keep_zeros, progress=progress,
            )  # fmt: skip
        for module, mode in zip(twin.modules(), modes, strict=True):
            module.training = mode
        return twin


def _train_mode(model: nn.Module, freeze: bool) -> None:
    """Into training, but for norms that were frozen in a model that is trained, or for all."""
    frozen = [
        module for module in norms_of(model) if freeze or (model.training and not module.training)
    ]
    model.train()
    for module in frozen:
        module.eval()


def still_there(masks: Mapping[str, torch.Tensor], model: nn.Module) -> dict[str, torch.Tensor]:
    """Masks of parameters that a later stage left in their form."""
    shapes = {name: one.shape for name, one in model.named_parameters()}
    return {name: mask for name, mask in masks.items() if shapes.get(name) == mask.shape}


def _masks_of(model: nn.Module, masks: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The masks under the names that parameters have while they are rounded straight through."""
    named = {}
    for name, mask in masks.items():
        path, _, last = name.rpartition(".")
        try:
            module = model.get_submodule(path) if path else model
        except AttributeError:
            continue  # a later stage put other layers in its place
        if parametrize.is_parametrized(module, last):
            name = f"{path}.parametrizations.{last}.original".lstrip(".")
        named[name] = mask
    return still_there(named, model)
