"""A student for distillation: one that is given, or the same network with less width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from limosa.errors import ConfigError
from limosa.torch.optimize.guard import Context, copy_of, guard, outputs_of
from limosa.torch.optimize.structured import StructuredPruning
from limosa.torch.optimize.technique import Change, Optimized, nonzeros


@dataclass(frozen=True)
class Student:
    """Puts a smaller network in the place of one, for :class:`Distillation` to train.

    Args:
        width: of each inner layer, as a share of the teacher's (extra ``optimize``); what depends
            on which is found by running the context's example.
        model: or the student itself; outputs must have the teacher's form.
        fresh: whether a derived student forgets what the teacher's weights were, and starts anew.
        only, exclude: patterns of the paths of layers that become narrower.

    Raises:
        ConfigError: not exactly one of *width* and *model*, or a width that is no share.

    >>> teacher = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    >>> Student(width=0.25).apply(teacher, Context(torch.ones(1, 8))).model[0].out_features
    4
    """

    width: float | None = None
    model: nn.Module | None = None
    fresh: bool = False
    only: str = ""
    exclude: str = ""

    def __post_init__(self) -> None:
        if (self.width is None) == (self.model is None):
            raise ConfigError("one of width and model", where="Student")
        share = self.width if isinstance(self.width, int | float) else 0
        if self.width is not None and not 0 < share < 1:
            raise ConfigError("no width", found=str(self.width), allowed="above 0, below 1")

    def apply(self, model: nn.Module, context: Context | None = None) -> Optimized:
        """The student; the teacher does not change.

        Raises:
            ConfigError: the student's outputs have another form, or no layer can be narrower.
        """
        used = context or Context()
        if self.width is not None:
            narrow = StructuredPruning(1 - self.width, only=self.only, exclude=self.exclude)
            done = narrow.apply(model, used)
            if self.fresh:
                _reset(done.model)
            return Optimized(done.model, done.changes, done.refused)
        assert self.model is not None
        student = copy_of(self.model)
        guard(student, student, used)
        _same_form(model, student, used)
        before, after = (sum(map(nonzeros, one.parameters())) for one in (model, student))
        return Optimized(student, (Change("", "another network", before, after),))


@torch.no_grad()
def _same_form(teacher: nn.Module, student: nn.Module, context: Context) -> None:
    if context.example is None:
        return
    wanted, found = (
        [tuple(one.shape) for one in outputs_of(model, context)] for model in (teacher, student)
    )
    if wanted != found:
        raise ConfigError(
            "the student's outputs have another form", found=str(found), allowed=str(wanted)
        )


def _reset(model: nn.Module) -> None:
    """Weights as a new network has them; layers that cannot say how stay as they are."""
    for module in model.modules():
        start: Any = getattr(module, "reset_parameters", None)
        if callable(start):
            start()
