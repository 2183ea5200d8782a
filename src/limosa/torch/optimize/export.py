"""Out to where models run: safetensors, torch.export and ONNX, each compared with the model."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils._pytree import tree_flatten

from limosa.errors import ConfigError, MissingExtraError
from limosa.files import Restorer
from limosa.files.atomic import AtomicFile
from limosa.files.safetensors import bundle_from_tensors
from limosa.torch.dtypes import to_tensor
from limosa.torch.optimize.kernels import flat_state
from limosa.torch.optimize.technique import Context
from limosa.torch.tensors import save_file

Array = NDArray[np.float64]
KINDS = ("safetensors", "limosa", "pt2", "onnx")
#: Largest difference of an output, as a share of the largest output.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Exported:
    """A file, and how far what it computes is from the model: of the largest output; None where
    it holds tensors only, which are equal."""

    path: Path
    kind: str
    nbytes: int
    difference: float | None


def export(
    model: nn.Module,
    folder: Path,
    kinds: Sequence[str],
    context: Context,
    *,
    name: str = "model",
    tolerance: float = TOLERANCE,
    data: bytes | None = None,
) -> list[Exported]:
    """Write a model in several forms, and run those that can be run.

    Args:
        model: is not changed.
        folder: for the files, which is made.
        kinds: of :data:`KINDS`.
        context: for the example inputs, which ``pt2`` and ``onnx`` need.
        name: of the files, without an ending.
        tolerance: of the differences.
        data: the ``limosa`` file, where it is there already; None: without loss.

    Raises:
        ConfigError: a kind is unknown, the model cannot be exported so, or the file computes
            something else.
        MissingExtraError: onnx or onnxruntime is not installed.
    """
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        raise ConfigError("no kind of file", found=unknown[0], allowed=", ".join(KINDS))
    folder.mkdir(parents=True, exist_ok=True)
    twin = copy.deepcopy(model).eval()
    done = []
    for kind in kinds:
        path = folder / f"{name}.{kind}"
        difference = None
        if kind == "limosa" and data is not None:
            _write(path, data)
        else:
            difference = _WRITERS[kind](twin, path, context)
        if difference is not None and not difference <= tolerance:
            raise ConfigError(
                "the file computes something else than the model", where=str(path),
                found=f"{difference:.3g} of the largest output", allowed=f"{tolerance:g}",
            )  # fmt: skip
        done.append(Exported(path, kind, path.stat().st_size, difference))
    return done


def _safetensors(model: nn.Module, path: Path, context: Context) -> None:
    state, metadata = flat_state(model)
    tensors = {name: to_tensor(name, one) for name, one in state.items()}
    bundle = bundle_from_tensors(tensors, {"format": "pt", **(metadata or {})})
    with Restorer(bundle.sources, bundle.specs, path, None) as restorer:
        for spec, data in bundle:
            restorer.write(spec, data)
        restorer.finish()


def _limosa(model: nn.Module, path: Path, context: Context) -> None:
    state, metadata = flat_state(model)
    save_file(state, path, metadata)


def _write(path: Path, data: bytes) -> None:
    with AtomicFile(path) as file:
        file.file.write(data)
        file.commit()


@torch.no_grad()
def _pt2(model: nn.Module, path: Path, context: Context) -> float:
    program = _program(model, context)
    torch.export.save(program, path)
    read = torch.export.load(path).module()
    return _difference(_outputs(model(*context.inputs())), _outputs(read(*context.inputs())))


@torch.no_grad()
def _onnx(model: nn.Module, path: Path, context: Context) -> float:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise MissingExtraError.for_extra("onnx", "writing ONNX") from None
    inputs = _example(context)
    names = [f"input{number}" for number in range(len(inputs))]
    try:
        with warnings.catch_warnings():
            # The newer exporter needs packages of its own; what this one writes is run below.
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.onnx.export(model, inputs, str(path), input_names=names, dynamo=False)
    except Exception as error:  # whatever an operator without a counterpart raises
        raise ConfigError(
            "the model cannot be written as ONNX", where=str(path),
            found=f"{type(error).__name__}: {error}"[:300],
        ) from error  # fmt: skip
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = {name: one.detach().cpu().numpy() for name, one in zip(names, inputs, strict=True)}
    found = [np.asarray(one, np.float64) for one in session.run(None, given)]
    return _difference(_outputs(model(*inputs)), found)


def _program(model: nn.Module, context: Context) -> torch.export.ExportedProgram:
    try:
        return torch.export.export(model, _example(context))
    except Exception as error:  # whatever the tracer meets
        raise ConfigError(
            "the model cannot be exported", found=f"{type(error).__name__}: {error}"[:300]
        ) from error


def _example(context: Context) -> tuple[Any, ...]:
    if context.example is None:
        raise ConfigError("this kind of file needs example inputs", where="Context.example")
    return context.inputs()


_WRITERS: dict[str, Callable[[nn.Module, Path, Context], float | None]] = {
    "safetensors": _safetensors,
    "limosa": _limosa,
    "pt2": _pt2,
    "onnx": _onnx,
}


def _outputs(found: Any) -> list[Array]:
    flat, _ = tree_flatten(found)
    return [one.detach().cpu().double().numpy() for one in flat if torch.is_tensor(one)]


def _difference(wanted: list[Array], found: list[Array]) -> float:
    if [one.shape for one in wanted] != [one.shape for one in found]:
        return float("inf")
    worst = 0.0
    for one, two in zip(wanted, found, strict=True):
        if one.size:
            largest = float(np.abs(one).max()) or 1.0
            worst = max(worst, float(np.abs(one - two).max()) / largest)
    return worst
