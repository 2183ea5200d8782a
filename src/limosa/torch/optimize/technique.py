"""What all techniques have in common: the layers that they take, and what they report."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from limosa.errors import ConfigError
from limosa.torch.optimize.guard import TOLERANCE, Context, check_runs, copy_of, guard, seeded
from limosa.torch.refine.targets import is_transposed_linear, spots_of

#: What techniques change, beside the Conv1D of transformers.
LAYERS = (nn.Linear, nn.modules.conv._ConvNd)
_RECURRENT = (nn.RNNBase, nn.RNNCellBase)
_KINDS = (*LAYERS, *_RECURRENT)


@dataclass(frozen=True)
class Change:
    """What was done to a layer: *before* and *after* count parameters that are not 0."""

    layer: str
    what: str
    before: int
    after: int


@dataclass(frozen=True)
class Refusal:
    """A layer that was left as it was, and why."""

    layer: str
    why: str


@dataclass(frozen=True)
class Optimized:
    """What came of a technique.

    Attributes:
        model: a new one; the model that was given is as it was.
        changes, refused: by layer.
        receiver_needs: what the receiver must have beyond an ordinary runtime; "" for nothing.
        masks: parameters by name -> where they must stay 0 while the model is trained further.
        gone: layers by path -> the inputs that they have no more.
        kept: norms over channels, by path -> the channels that they still have.
        data: the file, of a technique that encodes.
    """

    model: nn.Module
    changes: tuple[Change, ...]
    refused: tuple[Refusal, ...] = ()
    receiver_needs: str = ""
    masks: dict[str, torch.Tensor] = field(default_factory=dict)
    gone: dict[str, tuple[int, ...]] = field(default_factory=dict)
    kept: dict[str, tuple[int, ...]] = field(default_factory=dict)
    data: bytes | None = field(default=None, repr=False)

    @torch.no_grad()
    def keep_zeros(self) -> None:
        """Set to 0 again what fine-tuning moved: call it after each step of the optimizer."""
        parameters = dict(self.model.named_parameters())
        for name, mask in self.masks.items():
            # The sum makes +0 of -0, which would be another value to the coder.
            parameters[name].mul_(mask.to(parameters[name].device)).add_(0.0)


@dataclass(frozen=True)
class Layer:
    """A layer that a technique may change; its weight is *name*."""

    path: str
    module: nn.Module
    name: str

    @property
    def weight(self) -> nn.Parameter:
        """Its weight."""
        found = self.module.weight
        assert isinstance(found, nn.Parameter)
        return found


class Technique(ABC):
    """One way to make a model smaller.

    Attributes:
        only: pattern (``re.search``) of the paths of layers that it may touch; "" for all.
        exclude: pattern of those that it may not; "" for none.
    """

    only: str = ""
    exclude: str = ""

    def apply(self, model: nn.Module, context: Context | None = None) -> Optimized:
        """A smaller model. The one that is given does not change.

        Raises:
            ConfigError: there is nothing to change, a layer is refused and *context* says stop,
                the example is none of the model's, or the guard finds that the result computes
                something else than it should.
        """
        used = context or Context()
        # Whatever mode the caller is in, and with random numbers that are not the caller's.
        with torch.inference_mode(False), torch.enable_grad(), seeded(None):
            return self._applied(model, used)

    def _applied(self, model: nn.Module, used: Context) -> Optimized:
        check_runs(model, used)
        twin = copy_of(model)
        layers, refused = self._split(twin)
        if refused and used.refusals == "stop":
            raise ConfigError(
                "a layer cannot be changed", where=refused[0].layer, found=refused[0].why,
                remedy="exclude it, or let refused layers be skipped",
            )  # fmt: skip
        if not layers:
            raise ConfigError(
                "no layer can be changed", where=type(self).__name__,
                found="; ".join(f"{one.layer}: {one.why}" for one in refused[:5]) or "no layers",
            )  # fmt: skip
        done = self._change(twin, layers, used)
        _freeze(model, done.model)
        found = replace(done, refused=(*refused, *done.refused))
        guard(self._reference(model, found), found.model, used, self.tolerance, self.remedy)
        return found

    remedy = "please report this"

    @property
    def tolerance(self) -> float:
        """How far the result may be from what it should compute, of the largest output."""
        return TOLERANCE

    def _split(self, model: nn.Module) -> tuple[list[Layer], list[Refusal]]:
        """The layers that may be changed, and why others may not."""
        return split_layers(model, self.only, self.exclude, self._why_not)

    def _why_not(self, layer: Layer, tied: dict[str, str]) -> str:
        """Why a layer cannot be changed; "" if it can."""
        return why_not(layer, tied)

    @abstractmethod
    def _change(self, model: nn.Module, layers: Sequence[Layer], context: Context) -> Optimized:
        """Change *model*, a copy, in *layers*."""

    def _reference(self, model: nn.Module, done: Optimized) -> nn.Module:
        """What the result should compute, in the old architecture."""
        return done.model


def _freeze(before: nn.Module, after: nn.Module) -> None:
    """Parameters that were frozen are so again, where they were made anew."""
    frozen = {name for name, one in before.named_parameters() if not one.requires_grad}
    for name, one in after.named_parameters():
        if name in frozen:
            one.requires_grad_(False)


def tied_names(model: nn.Module) -> dict[str, str]:
    """Parameters that several names stand for -> the first of these."""
    return {
        name: spot.owners[0][2]
        for spot in spots_of(model)
        if len(spot.owners) > 1
        for _, _, name in spot.owners
    }


def split_layers(
    model: nn.Module,
    only: str,
    exclude: str,
    why_not: Callable[[Layer, dict[str, str]], str],
) -> tuple[list[Layer], list[Refusal]]:
    """The layers that may be changed, and why others may not."""
    tied = tied_names(model)
    good, refused = [], []
    for path, module in named_modules(model, _KINDS, only, exclude):
        layer = Layer(path, module, f"{path}.weight" if path else "weight")
        why = why_not(layer, tied)
        if why:
            refused.append(Refusal(path, why))
        else:
            good.append(layer)
    return good, refused


def named_modules(
    model: nn.Module, kinds: tuple[type[nn.Module], ...], only: str, exclude: str
) -> Iterator[tuple[str, nn.Module]]:
    """Modules of some kinds whose paths the patterns allow.

    Raises:
        ConfigError: a pattern that is none.
    """
    for pattern in (only, exclude):
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise ConfigError("no pattern", found=repr(pattern), allowed=str(error)) from None
    for path, module in model.named_modules():
        known = isinstance(module, kinds) or (kinds == _KINDS and is_transposed_linear(module))
        if not known or (only and not re.search(only, path)):
            continue
        if not (exclude and re.search(exclude, path)):
            yield path, module


def replace_layer(model: nn.Module, path: str, new: nn.Module) -> nn.Module:
    """Put a layer in the place of another; the model itself where that is the whole of it."""
    if not path:
        return new
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, new)
    return model


def why_not(layer: Layer, tied: dict[str, str]) -> str:
    """Why a layer cannot be changed; "" if it can."""
    if isinstance(layer.module, _RECURRENT):
        return "a recurrent layer"
    weight = getattr(layer.module, "weight", None)
    if not isinstance(weight, nn.Parameter) or not is_plain(weight):
        return "its weight is no parameter: quantized or re-parameterised already"
    if not weight.is_floating_point():
        return f"its weight is {weight.dtype}"
    if not weight.numel():
        return "it has no weights"
    if not bool(weight.isfinite().all()):
        return "its weight has NaN or an infinity"
    if layer.name in tied:
        return f"its weight is tied to {tied[layer.name]}"
    return ""


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds its numbers itself, as those of torchao do not."""
    return not hasattr(type(tensor), "__tensor_flatten__")


def nonzeros(weight: torch.Tensor) -> int:
    """Elements that are not 0."""
    held: Any = weight.detach()
    return int(torch.count_nonzero(held if is_plain(held) else held.dequantize()))


def check_choice(where: str, value: object, allowed: Sequence[object]) -> None:
    """Refuse what is none of a few.

    Raises:
        ConfigError: *value* is not *allowed*.
    """
    if value not in allowed:
        raise ConfigError(
            "no such choice", where=where, found=repr(value), allowed=", ".join(map(str, allowed))
        )


def check_share(where: str, value: float) -> None:
    """Refuse what is no share.

    Raises:
        ConfigError: *value* is not from 0 to 1.
    """
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ConfigError("no share", where=where, found=str(value), allowed="0 to 1")
