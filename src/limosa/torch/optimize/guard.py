"""The example: what a model makes of it, and the guard that compares two of them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_flatten, tree_leaves

from limosa.errors import ConfigError

Batch = Any
Loss = Callable[[nn.Module, Batch], torch.Tensor]

#: Of the largest output, between a model and what a technique says that it computes.
TOLERANCE = 1e-3


class GuardError(ConfigError):
    """The guard refused a result."""


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


def one_number(loss: Any, where: str) -> torch.Tensor:
    """A loss as a scalar, from which gradients can go back.

    Raises:
        ConfigError: it is no tensor, or several numbers.

    >>> one_number(torch.ones(1), "criterion")
    tensor(1.)
    """
    if isinstance(loss, torch.Tensor) and loss.numel() == 1:
        return loss.reshape(())
    found = f"shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__
    raise ConfigError(
        "a loss is one number", where=where, found=found, allowed="a tensor of one number",
        remedy="take the mean over the batch",
    )  # fmt: skip


def check_metric(metric: object, where: str = "metric") -> None:
    """Refuse what is no metric.

    Raises:
        ConfigError: it is no function.
    """
    if not callable(metric):
        raise ConfigError(
            "no metric", where=where, found=type(metric).__name__,
            allowed="a function of a model that gives a number",
        )  # fmt: skip


def value_of(metric: Callable[[nn.Module], Any], model: nn.Module) -> float:
    """What a metric says of a model.

    Raises:
        ConfigError: it is no function, or gives something else than a number.

    >>> value_of(lambda model: torch.tensor(0.5), nn.Identity())
    0.5
    """
    check_metric(metric)
    found = metric(model)
    try:
        return float(found)
    except (TypeError, ValueError, RuntimeError):
        raise ConfigError(
            "a metric gives one number", where=getattr(metric, "__name__", "metric"),
            found=repr(found)[:100],
        ) from None  # fmt: skip


def check_value(value: float) -> None:
    """Refuse a metric with which nothing can be compared.

    Raises:
        ConfigError: it is not finite.
    """
    if not math.isfinite(value):
        raise ConfigError(
            "the metric of the model as it is says nothing", where="metric", found=str(value),
            allowed="a finite number, larger where a model is better",
        )  # fmt: skip


def copy_of(model: nn.Module) -> nn.Module:
    """A deep copy; tensors that the model kept of a call are cut off from their past.

    Raises:
        ConfigError: it holds what cannot be copied.

    >>> model = nn.Linear(2, 2)
    >>> model.seen = model(torch.ones(1, 2))
    >>> copy_of(model).seen.requires_grad
    False
    """
    kept = [one for module in model.modules() for one in tree_leaves(vars(module))]
    # Copies that are made already: torch copies no tensor that has a past.
    done = {
        id(one): one.detach().clone()
        for one in kept
        if isinstance(one, torch.Tensor) and one.grad_fn is not None
    }
    try:
        return copy.deepcopy(model, done)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(
            "the model cannot be copied", where=type(model).__name__, found=str(error)[:200],
            remedy="take off what it keeps of a call",
        ) from error  # fmt: skip


def check_initialised(model: nn.Module) -> None:
    """Refuse a model that has parameters without a shape.

    Raises:
        ConfigError: it has some.
    """
    held = (*model.named_parameters(), *model.named_buffers())
    for name, one in held:
        if is_lazy(one):
            raise ConfigError(
                "a parameter has no shape yet", where=name, remedy="call the model once before"
            )


@torch.no_grad()
def check_runs(model: nn.Module, context: Context, where: str = "Context.example") -> None:
    """Refuse an example that the model as it was given does not take.

    Raises:
        ConfigError: the model raised something, or has parameters without a shape.
    """
    check_initialised(model)
    try:
        if context.example is not None:
            outputs_of(model, context)
    except Exception as error:
        raise ConfigError(
            "the model does not take the example", where=where,
            found=f"{type(error).__name__}: {error}"[:300],
            allowed="a tensor, a tuple or list of arguments, or a dict of them by name",
        ) from error  # fmt: skip


@torch.no_grad()
def guard(
    reference: nn.Module,
    model: nn.Module,
    context: Context,
    tolerance: float = TOLERANCE,
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
        GuardError: they compute different things, one computes NaN, or *model* cannot be run.
    """
    if context.example is None:
        return
    try:
        found = outputs_of(model, context)
    except Exception as error:  # whatever a layer says to inputs that are not its own any more
        raise GuardError(
            "the result cannot be run", where="guard",
            found=f"{type(error).__name__}: {error}"[:300],
            remedy="exclude layers whose sizes are also written elsewhere in the model",
        ) from error  # fmt: skip
    try:
        wanted = outputs_of(reference, context)
    except Exception as error:
        raise GuardError(
            "the result cannot be compared with what it should compute", where="guard",
            found=f"{type(error).__name__}: {error}"[:300], remedy=remedy,
        ) from error  # fmt: skip
    if not wanted:
        raise GuardError(
            "the model gives no tensor to compare", where="guard",
            allowed="a tensor, or a tuple, list or dict of them",
            remedy="compare without an example",
        )  # fmt: skip
    tolerance = max(tolerance, _coarsest(reference))
    if [one.shape for one in wanted] != [one.shape for one in found]:
        raise GuardError(
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
            raise GuardError(
                "the result computes something else than it should", where="guard",
                found=f"an error of {apart:.3g} at outputs of {largest:.3g}",
                allowed=f"{tolerance:g} of these", remedy=remedy,
            )  # fmt: skip


def _coarsest(model: nn.Module) -> float:
    """Some steps of the least precise dtype of a model's parameters, relative to 1."""
    dtypes = {one.dtype for one in model.parameters() if one.is_floating_point()}
    return 8 * max((torch.finfo(dtype).eps for dtype in dtypes), default=0.0)


def outputs_of(model: nn.Module, context: Context) -> list[torch.Tensor]:
    """What a model makes of the example, in evaluation, whatever shape its output has.

    It draws the same random numbers each time, and its buffers are afterwards as they were.
    Complex outputs come as pairs of real ones.
    """
    with evaluation(model), _buffers_kept(model), seeded():
        flat, _ = tree_flatten(call(model, context.example))
    outputs = [one for one in flat if isinstance(one, torch.Tensor)]
    return [torch.view_as_real(one) if one.is_complex() else one for one in outputs]


@contextmanager
def seeded(seed: int | None = 0) -> Iterator[None]:
    """With random numbers from a seed, or from where the caller's are; those stay there."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        if seed is not None:
            torch.manual_seed(seed)
        yield


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Buffers that a call moves, as those of networks that see a stream, are put back."""
    kept = [
        (module, name, one, one.clone())
        for module in model.modules()
        for name, one in module._buffers.items()
        if one is not None
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, name, one, before in kept:
                if not one.is_inference():
                    one.copy_(before)
                module._buffers[name] = one


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
