"""Distillation: a small student learns what a large teacher says.

Training loops belong to the user; :class:`Distillation` is a loss that any loop can take, and
:func:`fit` a loop of few lines for who has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from limosa.errors import ConfigError
from limosa.torch.calibration.samples import scores
from limosa.torch.optimize.guard import call, evaluation, one_number

Batch = tuple[Any, Any]
#: The loss of outputs beside labels: one number, with a gradient. Of outputs that have an
#: attribute ``logits``, as those of transformers, it is given these.
Criterion = Callable[[Any, Any], torch.Tensor]


class Distillation:
    """The loss of a student beside its teacher.

    Three parts, each with its weight: the criterion with the labels (hard); the divergence of the
    teacher's outputs from the student's at a temperature, times its square (soft; G. Hinton et
    al., 2015); the squared distance of features of layers in between (A. Romero et al., 2015),
    through a learned linear map where their sizes differ.

    Args:
        teacher: stays as it is.
        student: is trained.
        temperature: of the soft targets.
        hard, soft, features: weights of the parts.
        layers: layer of the student -> layer of the teacher, by path.
        criterion: of outputs and labels.

    Raises:
        ConfigError: a weight is negative, no weight is positive, or there is no such layer.

    >>> teacher, student = nn.Linear(4, 3), nn.Linear(4, 3)
    >>> with Distillation(teacher, student) as distillation:
    ...     loss = distillation(torch.ones(2, 4), torch.tensor([0, 2]))
    >>> loss.requires_grad
    True
    """

    def __init__(
        self,
        teacher: nn.Module,
        student: nn.Module,
        *,
        temperature: float = 4.0,
        hard: float = 0.3,
        soft: float = 0.7,
        features: float = 0.0,
        layers: Mapping[str, str] | None = None,
        criterion: Criterion = functional.cross_entropy,
    ) -> None:
        weights = (hard, soft, features)
        if min(weights) < 0 or not any(weights) or not temperature > 0:
            raise ConfigError(
                "no loss", found=f"hard {hard}, soft {soft}, features {features}, {temperature=}",
                allowed="weights of 0 or more, one above, and a temperature above 0",
            )  # fmt: skip
        if bool(layers) != bool(features):
            raise ConfigError("features need layers, and layers a weight of features")
        self.teacher, self.student = teacher, student
        self.temperature, self.hard, self.soft, self.features = temperature, hard, soft, features
        self.layers, self.criterion = dict(layers or {}), criterion
        #: Linear maps from the student's features to the teacher's: to be trained as well.
        self.maps = nn.ModuleDict()
        self._seen: dict[str, Any] = {}
        with ExitStack() as hooks:  # taken off again where a later layer is not there
            for ours, theirs in self.layers.items():
                hooks.callback(self._watch(student, ours, "student").remove)
                hooks.callback(self._watch(teacher, theirs, "teacher").remove)
            self._hooks = hooks.pop_all()

    def parameters(self) -> list[nn.Parameter]:
        """Of the student, and of the maps that exist: those appear with the first batch."""
        return [*self.student.parameters(), *self.maps.parameters()]

    def __call__(self, inputs: Any, labels: torch.Tensor) -> torch.Tensor:
        """The loss on a batch.

        Args:
            inputs: one tensor, a tuple or list of arguments, or a dict of them by name.
            labels: what the criterion takes: classes, of int64, for cross entropy.

        Raises:
            ConfigError: soft targets of a model that gives more than one tensor; a criterion that
                gives more than one number.
        """
        with torch.no_grad(), evaluation(self.teacher):
            wanted = scores(call(self.teacher, inputs))
        found = scores(call(self.student, inputs))
        parts = []
        if self.hard:
            parts.append(self.hard * one_number(self.criterion(found, labels), "criterion"))
        if self.soft:
            parts.append(self.soft * self._soft_loss(found, wanted))
        for ours, theirs in self.layers.items():
            parts.append(self.features * self._feature_loss(ours, theirs))
        return torch.stack(parts).sum()

    def _soft_loss(self, found: Any, wanted: Any) -> torch.Tensor:
        if not isinstance(found, torch.Tensor):
            raise ConfigError(
                "soft targets need scores of classes", found=f"outputs as {type(found).__name__}",
                allowed="one tensor", remedy="soft=0, with features or hard targets",
            )  # fmt: skip
        if found.shape != wanted.shape:
            raise ConfigError(
                "soft targets of other classes", found=str(tuple(found.shape)),
                allowed=str(tuple(wanted.shape)), remedy="soft=0, with features or hard targets",
            )  # fmt: skip
        return soft_loss(found, wanted, self.temperature)

    def _feature_loss(self, ours: str, theirs: str) -> torch.Tensor:
        found, wanted = self._features("student", ours), self._features("teacher", theirs)
        key = ours.replace(".", "/")
        if found.shape != wanted.shape:
            if key not in self.maps:
                self.maps[key] = _map(found, wanted, ours)
            found = self.maps[key](found)
        return functional.mse_loss(found, wanted)

    def _features(self, whose: str, path: str) -> torch.Tensor:
        found = self._seen.get(f"{whose} {path}")
        if isinstance(found, torch.Tensor):
            return found
        raise ConfigError(
            "no features to compare", where=f"layer {path} of the {whose}",
            found="no call" if found is None else type(found).__name__, allowed="one tensor",
        )  # fmt: skip

    def _watch(self, model: nn.Module, path: str, whose: str) -> RemovableHandle:
        try:
            module = model.get_submodule(path)
        except AttributeError:
            raise ConfigError(f"the {whose} has no such layer", found=repr(path)) from None

        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            self._seen[f"{whose} {path}"] = output

        return module.register_forward_hook(hook)

    def close(self) -> None:
        """Leave both models without hooks."""
        self._hooks.close()
        self._seen.clear()

    def __enter__(self) -> Distillation:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def label_loss(
    model: nn.Module, inputs: Any, labels: Any, criterion: Criterion = functional.cross_entropy
) -> torch.Tensor:
    """The criterion of what a model makes of inputs, beside labels.

    Raises:
        ConfigError: it gives more than one number.

    >>> float(label_loss(nn.Identity(), torch.ones(2), torch.zeros(2), functional.mse_loss))
    1.0
    """
    return one_number(criterion(scores(call(model, inputs)), labels), "criterion")


def soft_loss(found: torch.Tensor, wanted: torch.Tensor, temperature: float) -> torch.Tensor:
    """The divergence of softened outputs, times the temperature's square.

    >>> one = torch.tensor([[1.0, 2.0]])
    >>> float(soft_loss(one, one, 2.0))
    0.0
    """
    log_found = functional.log_softmax(found / temperature, dim=-1)
    log_wanted = functional.log_softmax(wanted / temperature, dim=-1)
    divergence = functional.kl_div(log_found, log_wanted, reduction="batchmean", log_target=True)
    return divergence * temperature**2


def _map(found: torch.Tensor, wanted: torch.Tensor, where: str) -> nn.Module:
    """A linear map between features of other widths and the same places."""
    like: dict[str, Any] = {"device": found.device, "dtype": found.dtype}
    if found.dim() == 4 and wanted.dim() == 4 and found.shape[2:] == wanted.shape[2:]:
        return nn.Conv2d(found.shape[1], wanted.shape[1], 1, **like)
    if found.dim() == wanted.dim() and found.shape[:-1] == wanted.shape[:-1]:
        return nn.Linear(found.shape[-1], wanted.shape[-1], **like)
    raise ConfigError(
        "features of different places", where=f"layer {where}", found=str(tuple(found.shape)),
        allowed=str(tuple(wanted.shape)), remedy="choose layers at the same resolution",
    )  # fmt: skip


def fit(
    loss: Callable[..., torch.Tensor],
    parameters: Iterable[nn.Parameter],
    batches: Iterable[Batch],
    *,
    epochs: int = 1,
    rate: float = 1e-3,
    after_step: Callable[[], None] = lambda: None,
    progress: Callable[[int, float], None] = lambda epoch, loss: None,
) -> list[float]:
    """Train with AdamW and a cosine schedule; the mean loss of each epoch.

    Args:
        loss: of inputs and labels.
        parameters: to train.
        batches: is gone through once an epoch: a DataLoader or a list.
        epochs: how often.
        rate: of learning, at the beginning.
        after_step: is called after each step, as :meth:`Optimized.keep_zeros` wants to be.
        progress: is called after each epoch.

    Raises:
        ConfigError: nothing is to be trained; the loss became NaN or infinite, or is not one
            number; there are no batches.
    """
    trained = [one for one in parameters if one.requires_grad]
    if not trained:
        raise ConfigError(
            "nothing to train", found="no parameter takes a gradient",
            remedy="unfreeze some: requires_grad_(True)",
        )  # fmt: skip
    optimizer = torch.optim.AdamW(trained, lr=rate)
    losses: list[float] = []
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 + math.cos(math.pi * epoch / epochs)) / 2
        total, count = 0.0, 0
        for inputs, labels in batches:
            optimizer.zero_grad()
            found = one_number(loss(inputs, labels), "loss")
            if not bool(found.isfinite()):
                raise ConfigError(
                    "the loss is no number any more", where=f"epoch {epoch + 1}",
                    found=str(float(found.detach())), remedy="lower the rate",
                )  # fmt: skip
            found.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            after_step()
            total, count = total + float(found.detach()), count + 1
        if not count:
            raise ConfigError("no batches to train on")
        losses.append(total / count)
        progress(epoch + 1, losses[-1])
    return losses
