"""Integer kernels: linear layers that compute with int8, by torchao, where that is faster.

What comes out is no plain tensor any more: the receiver needs torchao. The bytes on the wire are
those of the integers and their scales.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import torch
from torch import nn

from limosa.errors import ConfigError, MissingExtraError
from limosa.torch.optimize.guard import Context
from limosa.torch.optimize.technique import (
    Change,
    Layer,
    Optimized,
    Technique,
    check_choice,
    is_plain,
    nonzeros,
)


@dataclass(frozen=True)
class IntegerKernels(Technique):
    """Weights of linear layers become int8 with a scale for each output, in torchao's tensors.

    torchao has a kernel on CPUs and GPUs for these; small layers gain nothing from it, so measure.

    Args:
        activations: "int8" rounds inputs as well, by row as they come, and multiplies integers;
            "float" multiplies floats with weights that are restored as they are used, which saves
            memory alone.
        least: layers with fewer inputs or outputs stay as they are.
        only, exclude: patterns of the paths of layers.

    Raises:
        MissingExtraError: torchao is not installed.
        ConfigError: it is not made for the torch that is.

    >>> model = nn.Sequential(nn.Linear(64, 64)).eval()
    >>> done = IntegerKernels().apply(model, Context(torch.ones(1, 64)))
    >>> done.receiver_needs, flat_state(done.model)[0]["0._weight_qdata"].dtype
    ('torchao', torch.int8)
    """

    activations: Literal["int8", "float"] = "int8"
    least: int = 16
    only: str = ""
    exclude: str = ""

    def __post_init__(self) -> None:
        check_choice("activations", self.activations, ("int8", "float"))

    @property
    def tolerance(self) -> float:
        """Rounded inputs change outputs by some percent at most."""
        return 0.1 if self.activations == "int8" else super().tolerance

    def _why_not(self, layer: Layer, tied: dict[str, str]) -> str:
        if not isinstance(layer.module, nn.Linear):
            return f"no integer kernel for a {type(layer.module).__name__}"
        why = super()._why_not(layer, tied)
        if not why and min(layer.weight.shape) < self.least:
            return f"smaller than {self.least}"
        return why

    def _change(self, model: nn.Module, layers: Sequence[Layer], context: Context) -> Optimized:
        quantization = _imported("torchao.quantization", "integer kernels")
        config = (
            quantization.Int8DynamicActivationInt8WeightConfig(version=2)
            if self.activations == "int8"
            else quantization.Int8WeightOnlyConfig(version=2)
        )
        chosen = {layer.path for layer in layers}
        before = {layer.path: nonzeros(layer.weight) for layer in layers}
        for layer in layers:
            layer.weight.requires_grad_(False)
        quantization.quantize_(model, config, lambda module, path: path in chosen)
        changes = [
            Change(
                layer.path, f"int8, {self.activations} activations", before[layer.path],
                nonzeros(layer.weight),
            )
            for layer in layers
        ]  # fmt: skip
        for layer in layers:  # a text for people that pickle cannot take
            vars(layer.module).pop("extra_repr", None)
        return Optimized(model, tuple(changes), receiver_needs="torchao")

    def _reference(self, model: nn.Module, done: Optimized) -> nn.Module:
        """The old network with the rounded weights as floats."""
        twin = copy.deepcopy(model)
        with torch.no_grad():
            for change in done.changes:
                old: Any = twin.get_submodule(change.layer).weight
                new: Any = done.model.get_submodule(change.layer).weight
                old.copy_(new.dequantize())
        return twin


def flat_state(
    model: nn.Module,
) -> tuple[dict[str, torch.Tensor], dict[str, str] | None]:
    """The state dict in plain tensors, and the metadata that make it what it was again.

    torchao's tensors become integers and scales under the names that torchao, and libraries that
    load its safetensors files, give them. Metadata are None where there is none of these.
    """
    state = {name: one for name, one in model.state_dict().items() if torch.is_tensor(one)}
    if all(map(is_plain, state.values())):
        return state, None
    tensors, metadata = _support().flatten_tensor_state_dict(state)
    return dict(tensors), dict(metadata)


def set_flat_state(
    model: nn.Module, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None
) -> None:
    """Give a model the state that :func:`flat_state` had taken from it, or from one of its form."""
    if metadata is None:
        model.load_state_dict(tensors)
        return
    state, left = _support().unflatten_tensor_state_dict(dict(tensors), dict(metadata))
    devices = {name: one.device for name, one in model.state_dict().items()}
    model.load_state_dict(
        {name: one.to(devices.get(name)) for name, one in {**state, **left}.items()}, assign=True
    )


def _support() -> Any:
    return _imported("torchao.prototype.safetensors.safetensors_support", "tensors of torchao")


def _imported(name: str, what: str) -> Any:
    """A module of torchao.

    Raises:
        MissingExtraError: torchao is not installed.
        ConfigError: it is one for another torch: it requires none, so that pip takes any.
    """
    try:
        with quiet("torchao", "torch.utils._pytree"):
            return import_module(name)
    except ModuleNotFoundError:
        raise MissingExtraError.for_extra("optimize", what) from None
    except Exception as error:  # whatever a torch of another age lacks
        raise ConfigError(
            f"{what} need a torchao that goes with torch", where="torchao",
            found=f"{type(error).__name__}: {error}"[:300],
            remedy=f"install the release of torchao made for torch {torch.__version__}",
        ) from error  # fmt: skip


@contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Loggers that tell of what is not there: kernels for other machines, operators of others."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
