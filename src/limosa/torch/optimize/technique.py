"""What all techniques have in common: what they are given, what they report, and the guard."""

from __future__ import annotations

import copy
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import nn
from torch.utils._pytree import tree_flatten

from limosa.errors import ConfigError
from limosa.torch.refine.targets import is_transposed_linear, spots_of

Batch = Any
Loss = Callable[[nn.Module, Batch], torch.Tensor]

_LAYERS = (nn.Linear, nn.modules.conv._ConvNd)
_RECURRENT = (nn.RNNBase, nn.RNNCellBase)
_KINDS = (*_LAYERS, *_RECURRENT)
# Of the largest output, between a model and what a technique says that it computes.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Context:
    """What a technique may use beside the model.

    Attributes:
        example: inputs of one call: a tensor, a tuple or list of arguments, or a dict of them by
            name; None: the guard cannot look.
        batches: for techniques that look at data; passed through once for each use.
        loss: of a model on a batch, with a gradient.
        refusals: "skip" layers that a technique cannot touch, or "stop".
    """

    example: Any = None
    batches: Iterable[Batch] = ()
    loss: Loss | None = None
    refusals: Literal["skip", "stop"] = "skip"


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
        data: the file, of a technique that encodes.
        comparable: whether the old network can be made to compute the same.
    """

    model: nn.Module
    changes: tuple[Change, ...]
    refused: tuple[Refusal, ...] = ()
    receiver_needs: str = ""
    masks: dict[str, torch.Tensor] = field(default_factory=dict)
    gone: dict[str, tuple[int, ...]] = field(default_factory=dict)
    data: bytes | None = field(default=None, repr=False)
    comparable: bool = True

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
        check_runs(model, used)
        twin = copy.deepcopy(model)
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
        found = replace(done, refused=(*refused, *done.refused))
        guard(self._reference(model, found), found.model, used, self.tolerance, self.remedy)
        return found

    remedy = "please report this"

    @property
    def tolerance(self) -> float:
        """How far the result may be from what it should compute, of the largest output."""
        return _TOLERANCE

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
    if not bool(weight.isfinite().all()):
        return "its weight has NaN or an infinity"
    if layer.name in tied:
        return f"its weight is tied to {tied[layer.name]}"
    return ""


@torch.no_grad()
def check_runs(model: nn.Module, context: Context) -> None:
    """Refuse an example that the model as it was given does not take.

    Raises:
        ConfigError: the model raised something.
    """
    try:
        if context.example is not None:
            outputs_of(model, context)
    except Exception as error:
        raise ConfigError(
            "the model does not take the example", where="Context.example",
            found=f"{type(error).__name__}: {error}"[:300],
            allowed="a tensor, a tuple or list of arguments, or a dict of them by name",
        ) from error  # fmt: skip


@torch.no_grad()
def guard(
    reference: nn.Module,
    model: nn.Module,
    context: Context,
    tolerance: float = _TOLERANCE,
    remedy: str = "please report this",
) -> None:
    """Compare two models on example inputs.

    Args:
        reference: what *model* should compute.
        model: the result.
        context: for the example inputs; without any nothing is compared.
        tolerance: of the largest output.
        remedy: for the message.

    Raises:
        ConfigError: they compute different things, one computes NaN, or *model* cannot be run.
    """
    if context.example is None:
        return
    try:
        found = outputs_of(model, context)
    except Exception as error:  # whatever a layer says to inputs that are not its own any more
        raise ConfigError(
            "the result cannot be run", where="guard",
            found=f"{type(error).__name__}: {error}"[:300],
            remedy="exclude layers whose sizes are also written elsewhere in the model",
        ) from error  # fmt: skip
    wanted = outputs_of(reference, context)
    if not wanted:
        raise ConfigError(
            "the model gives no tensor to compare", where="guard",
            allowed="a tensor, or a tuple, list or dict of them",
            remedy="compare without an example",
        )  # fmt: skip
    tolerance = max(tolerance, _coarsest(reference))
    if [one.shape for one in wanted] != [one.shape for one in found]:
        raise ConfigError(
            "the result has another form of output", where="guard",
            found=str([tuple(one.shape) for one in found]),
            allowed=str([tuple(one.shape) for one in wanted]),
        )  # fmt: skip
    for one, two in zip(wanted, found, strict=True):
        one, two = one.double(), two.double()
        largest = float(one[one.isfinite()].abs().max()) if bool(one.isfinite().any()) else 0.0
        # Infinities, as of a mask, are to be the same ones.
        apart = float(torch.where(one == two, 0.0, one - two).abs().max()) if one.numel() else 0.0
        if not apart <= tolerance * max(largest, 1e-12):
            raise ConfigError(
                "the result computes something else than it should", where="guard",
                found=f"an error of {apart:.3g} at outputs of {largest:.3g}",
                allowed=f"{tolerance:g} of these", remedy=remedy,
            )  # fmt: skip


def _coarsest(model: nn.Module) -> float:
    """Some steps of the least precise dtype of a model's parameters, relative to 1."""
    dtypes = {one.dtype for one in model.parameters() if one.is_floating_point()}
    return 8 * max((torch.finfo(dtype).eps for dtype in dtypes), default=0.0)


def outputs_of(model: nn.Module, context: Context) -> list[torch.Tensor]:
    """What a model makes of the example, in evaluation, whatever shape its output has."""
    with evaluation(model):
        flat, _ = tree_flatten(call(model, context.example))
    return [one for one in flat if isinstance(one, torch.Tensor)]


def arguments(inputs: Any) -> tuple[Any, ...]:
    """Those of a call, where they have no names."""
    return tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)


def call(model: nn.Module, inputs: Any) -> Any:
    """What a model makes of a tensor, of a tuple or list of arguments, or of a dict of them.

    >>> call(nn.Bilinear(2, 2, 3), [torch.ones(1, 2), torch.ones(1, 2)]).shape
    torch.Size([1, 3])
    """
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*arguments(inputs))


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """A model as it is after training, so that no norm takes notice of what it is shown."""
    trained = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in trained:
            module.training = True


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
