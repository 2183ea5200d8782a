"""Out to where models run: safetensors, torch.export and ONNX, each compared with the model."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils._pytree import tree_flatten, tree_map, tree_map_only

from limosa.errors import ConfigError, MissingExtraError
from limosa.files import Restorer
from limosa.files.safetensors import bundle_from_tensors
from limosa.torch.dtypes import to_tensor
from limosa.torch.optimize.guard import Context, arguments, call, check_initialised, copy_of, seeded
from limosa.torch.optimize.kernels import flat_state, quiet
from limosa.torch.tensors import save_file

Array = NDArray[np.float64]
#: What runs a file on inputs; and how far it is from the model, and whether any batch will do.
Run = Callable[[Any], Any]
Ran = tuple[float, bool]
KINDS = ("safetensors", "limosa", "pt2", "onnx")
#: Largest difference of an output, as a share of the largest output.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        path, kind, nbytes: of it.
        difference: of what it computes from what the model does, as a share of the largest output;
            None where it holds tensors only, which are equal.
        any_batch: whether it takes batches of any size, and not those of the example's alone.
    """

    path: Path
    kind: str
    nbytes: int
    difference: float | None = None
    any_batch: bool | None = None


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
        context: for the example inputs, which ``pt2`` and ``onnx`` need. Their first dimension is
            that of batches.
        name: of the files, without an ending.
        tolerance: of the differences.
        data: the ``limosa`` file, where it is there already; None: without loss.

    Raises:
        ConfigError: a kind is unknown, the model cannot be exported so, or the file computes
            something else.
        MissingExtraError: onnx, onnxruntime or onnxscript is not installed.
    """
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        raise ConfigError("no kind of file", found=unknown[0], allowed=", ".join(KINDS))
    folder.mkdir(parents=True, exist_ok=True)
    check_initialised(model)
    twin = copy_of(model).eval()
    done = []
    # What cannot be run, or computes something else, never takes the place of an earlier file.
    with TemporaryDirectory(prefix=".writing-", dir=folder) as place:
        for kind in kinds:
            path, beside = folder / f"{name}.{kind}", Path(place) / f"{name}.{kind}"
            ran = None
            if kind == "limosa" and data is not None:
                beside.write_bytes(data)
            else:
                ran = _WRITERS[kind](twin, beside, context, tolerance)
            difference, any_batch = ran or (None, None)
            if difference is not None and not difference <= tolerance:
                raise ConfigError(
                    "the file computes something else than the model", where=str(path),
                    found=f"{difference:.3g} of the largest output", allowed=f"{tolerance:g}",
                )  # fmt: skip
            beside.replace(path)
            done.append(Exported(path, kind, path.stat().st_size, difference, any_batch))
    return done


def _safetensors(model: nn.Module, path: Path, context: Context, tolerance: float) -> None:
    state, metadata = flat_state(model)
    tensors = {name: to_tensor(name, one) for name, one in state.items()}
    bundle = bundle_from_tensors(tensors, {"format": "pt", **(metadata or {})})
    with Restorer(bundle.sources, bundle.specs, path, None) as restorer:
        for spec, data in bundle:
            restorer.write(spec, data)
        restorer.finish()


def _limosa(model: nn.Module, path: Path, context: Context, tolerance: float) -> None:
    state, metadata = flat_state(model)
    save_file(state, path, metadata)


def _pt2(model: nn.Module, path: Path, context: Context, tolerance: float) -> Ran:
    def write(example: Any, any_batch: bool) -> Run:
        args, kwargs, free = _call_of(example)
        try:
            program = torch.export.export(
                model, args, kwargs, dynamic_shapes=free if any_batch else None
            )
            torch.export.save(program, path)
            read = torch.export.load(path).module()
        except Exception as error:  # whatever the tracer meets, or the file does not bear
            raise ConfigError(
                "the model cannot be exported", where=path.name, found=_short(error)
            ) from error
        return lambda inputs: call(read, inputs)

    return _of_any_batch(write, model, context, tolerance)


def _onnx(model: nn.Module, path: Path, context: Context, tolerance: float) -> Ran:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401, by which torch writes ONNX
    except ModuleNotFoundError:
        raise MissingExtraError.for_extra("export", "writing ONNX") from None

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is told as an error, or tried in another way

    def write(example: Any, any_batch: bool) -> Run:
        args, kwargs, free = _call_of(example)
        names = _names(example)
        given = example.values() if isinstance(example, Mapping) else arguments(example)
        plain = names if all(map(torch.is_tensor, given)) else None
        try:
            with warnings.catch_warnings(), quiet("torch.onnx"), redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    model, args, str(path), kwargs=kwargs, input_names=plain, dynamo=True,
                    dynamic_shapes=free if any_batch else None, external_data=False, verbose=False,
                )  # fmt: skip
            session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # an operator without a counterpart, or without a kernel
            raise ConfigError(
                "the model cannot be written as ONNX", where=path.name, found=_short(error)
            ) from error

        def run(inputs: Any) -> Any:
            values = [one.detach().cpu().numpy() for one in _tensors(inputs)]
            known = plain or [one.name for one in session.get_inputs()]
            if len(known) != len(values):
                raise ConfigError(
                    "ONNX takes tensors alone", where=path.name, found=f"{len(known)} inputs",
                    allowed=f"the example's {len(values)} tensors",
                )  # fmt: skip
            found = session.run(None, dict(zip(known, values, strict=True)))
            return [torch.from_numpy(np.asarray(one)) for one in found]

        return run

    return _of_any_batch(write, model, context, tolerance)


def _short(error: Exception) -> str:
    """What torch's exporters say, without colours, advice and the traces below it."""
    cause = error.__cause__ or error
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(cause)).strip()
    return f"{type(cause).__name__}: {text.splitlines()[0] if text else ''}"[:300]


def _call_of(example: Any) -> tuple[tuple[Any, ...], dict[str, Any] | None, Any]:
    """Arguments without and with names, and in their form: that all batches may have any size."""
    if isinstance(example, Mapping):
        example = dict(example)  # of a class of its own, such as a tokenizer's, nothing is free
    auto = torch.export.Dim.AUTO
    free = tree_map(lambda one: {0: auto} if torch.is_tensor(one) else None, example)
    if isinstance(example, Mapping):
        return (), dict(example), free
    return arguments(example), None, arguments(free)


def _of_any_batch(
    write: Callable[[Any, bool], Run], model: nn.Module, context: Context, tolerance: float
) -> Ran:
    """Written for batches of any size where that computes the same, else for the example's."""
    if context.example is None:
        raise ConfigError("this kind of file needs example inputs", where="Context.example")
    with suppress(Exception):  # whatever other batches meet: then it is the example's alone
        example = context.example
        example = dict(example) if isinstance(example, Mapping) else example
        twice = tree_map_only(torch.Tensor, lambda one: torch.cat([one, one]), example)
        run = write(twice, True)
        found = [_difference(model, run, one) for one in (twice, context.example)]
        if all(one <= tolerance for one in found):  # not of their largest, which a NaN is not
            return max(found), True
    return _difference(model, write(context.example, False), context.example), False


def _names(example: Any) -> list[str]:
    if isinstance(example, Mapping):
        return list(example)
    return [f"input{number}" for number in range(len(arguments(example)))]


_WRITERS: dict[str, Callable[[nn.Module, Path, Context, float], Ran | None]] = {
    "safetensors": _safetensors,
    "limosa": _limosa,
    "pt2": _pt2,
    "onnx": _onnx,
}


@torch.no_grad()
def _difference(model: nn.Module, run: Run, inputs: Any) -> float:
    """Of what a file computes from what the model does, as a share of the largest output."""
    with seeded():
        wanted = _outputs(call(model, inputs))
    with seeded():
        found = _outputs(run(inputs))
    if [one.shape for one in wanted] != [one.shape for one in found]:
        return float("inf")
    worst = 0.0
    for one, two in zip(wanted, found, strict=True):
        if one.size:
            # The same infinity, as of a mask, is no difference; a NaN is one that stays one.
            with np.errstate(invalid="ignore"):
                apart = np.where(one == two, 0.0, np.abs(one - two)).max()
            largest = np.abs(one[np.isfinite(one)]).max(initial=0.0) or 1.0
            worst = float(np.maximum(worst, apart / largest))
    return worst


def _outputs(found: Any) -> list[Array]:
    real = [torch.view_as_real(one) if one.is_complex() else one for one in _tensors(found)]
    return [one.detach().cpu().double().numpy() for one in real]


def _tensors(tree: Any) -> list[torch.Tensor]:
    flat, _ = tree_flatten(dict(tree) if isinstance(tree, Mapping) else tree)
    return [one for one in flat if torch.is_tensor(one)]
