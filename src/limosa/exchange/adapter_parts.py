"""What adapters without factors of their own for the edge add to the tensors of their base."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from limosa.codec.base import Base
from limosa.codec.refinement.rebuild import as_doubles
from limosa.codec.refinement.records import REFINED_DTYPES
from limosa.errors import ConfigError, CorruptError
from limosa.files.adapter import Adapter
from limosa.tensors import Tensor, TensorSpec

Matrix = NDArray[np.float64]
#: In names of tensors that the methods of this package read, beside whole tensors of the base.
OWN_NAMES = re.compile(r"(lora|vera|shira|ia3)_")


def learned_values(tensor: Tensor, where: str) -> Matrix:
    """A learned tensor in double precision.

    Raises:
        CorruptError: it is empty, of another kind of numbers, or not finite.
    """
    if tensor.dtype not in REFINED_DTYPES or not tensor.data.size:
        raise CorruptError("no factor", where=f"tensor {where!r}", found=f"{tensor.shape}")
    values = as_doubles(tensor.spec(where), tensor.data)
    if not np.isfinite(values).all():
        raise CorruptError("a factor that is not finite", where=f"tensor {where!r}")
    return values.reshape(tensor.shape)


def refined_spec(name: str, specs: Mapping[str, TensorSpec]) -> TensorSpec:
    """The spec of a tensor of the base that an adapter changes.

    Raises:
        ConfigError: the base has no such tensor of floating-point numbers.
    """
    if name not in specs or specs[name].dtype not in REFINED_DTYPES:
        raise ConfigError(
            "an adapter of another base", where=f"tensor {name!r}", found="not in the base",
            remedy="pass the model that the adapter was trained on",
        )  # fmt: skip
    return specs[name]


def base_values(base: Base, spec: TensorSpec) -> Matrix:
    """The tensor of the base, in double precision and its shape."""
    data = base.data(spec.name, spec)
    assert data is not None, spec
    return as_doubles(spec, data).reshape(spec.shape)


def added_parts(adapter: Adapter, base: Base) -> Iterator[tuple[str, Matrix]]:
    """Names of tensors, and what the adapter adds to each, in the shape of the base.

    Raises:
        ConfigError: the adapter is of another base.
        CorruptError: its tensors do not fit each other.
    """
    first, added = ADDED[adapter.kind]
    for name in adapter.tensors:
        if name.endswith(f".{first}"):
            yield from added(adapter, base, name.removesuffix(f".{first}"))


Part = Iterator[tuple[str, Matrix]]


def _masked(adapter: Adapter, base: Base, module: str) -> Part:
    """SHiRA: values at indices."""
    spec = refined_spec(f"{module}.weight", base.specs)
    values = learned_values(adapter.tensors[f"{module}.shira_weight"], module).reshape(-1)
    indices = _part(adapter, f"{module}.shira_indices", "its indices, or those of peft's draw")
    if indices.dtype != "I32" or indices.shape != (2, values.size) or len(spec.shape) != 2:
        raise CorruptError("indices that do not fit", where=f"layer {module!r}")
    rows, columns = indices.data.view("<i4").reshape(2, -1)
    if rows.min() < 0 or columns.min() < 0:
        raise CorruptError("an index below 0", where=f"layer {module!r}")
    if rows.max() >= spec.shape[0] or columns.max() >= spec.shape[1]:
        raise _other_base(spec, f"an index of {rows.max()}, {columns.max()}")
    added = np.zeros(spec.shape)
    added[rows, columns] = values
    yield spec.name, added


def _scaled(adapter: Adapter, base: Base, module: str) -> Part:
    """IA3: inputs or outputs multiplied, (l - 1) * W; with the outputs, the bias as well."""
    scales = adapter.tensors[f"{module}.ia3_l"]
    spec = refined_spec(f"{module}.weight", base.specs)
    values = learned_values(scales, module)
    sides = [side for side in range(len(scales.shape)) if scales.shape[side] != 1]
    inward = _is_feedforward(adapter, module)
    # A convolution has (1, channels, 1, 1) for both; Linear has (outputs, 1) or (1, inputs).
    axis = (1 if inward else 0) ^ bool(adapter.config.get("fan_in_fan_out"))
    if len(sides) > 1 or len(spec.shape) < 2 or spec.shape[axis] != values.size:
        raise _other_base(spec, f"scales of {scales.shape}")
    along = [1] * len(spec.shape)
    along[axis] = -1
    yield spec.name, base_values(base, spec) * (values.reshape(along) - 1.0)
    bias = base.specs.get(f"{module}.bias")
    if bias is not None and not inward:
        yield bias.name, base_values(base, bias) * (values.reshape(-1) - 1.0)


def _is_feedforward(adapter: Adapter, module: str) -> bool:
    """As peft matches: a list has ends of names, a text is a regular expression."""
    named = adapter.config.get("feedforward_modules") or []
    if isinstance(named, str):
        raise ConfigError(
            "feedforward_modules as a regular expression", where="adapter_config.json",
            found=named[:80], allowed="a list of names", remedy="merge it with peft",
        )  # fmt: skip
    return any(module == name or module.endswith(f".{name}") for name in named)


def _projected(adapter: Adapter, base: Base, module: str) -> Part:
    """VeRA: (b * B) (d * A), with the rows and columns of both that the layer has."""
    spec = refined_spec(f"{module}.weight", base.specs)
    b = learned_values(adapter.tensors[f"{module}.vera_lambda_b"], module).reshape(-1, 1)
    d = learned_values(_part(adapter, f"{module}.vera_lambda_d"), module).reshape(-1, 1)
    left = _projection(adapter, "vera_B")
    right = _projection(adapter, "vera_A")
    turned = bool(adapter.config.get("fan_in_fan_out"))
    shape = spec.shape[::-1] if turned else spec.shape
    fits = len(shape) == 2 and shape[0] == len(b) <= len(left) and shape[1] <= right.shape[1]
    if not fits or not left.shape[1] == len(d) == len(right):
        raise _other_base(spec, f"{left.shape} and {right.shape}")
    added = (b * left[: shape[0]]) @ (d * right[:, : shape[1]])
    yield spec.name, added.T if turned else added


def _projection(adapter: Adapter, last: str) -> Matrix:
    """One of the matrices that all layers share; older releases of peft say base_model first."""
    for name, tensor in adapter.tensors.items():
        if name.rpartition(".")[2] == last and len(tensor.shape) == 2:
            return learned_values(tensor, name)
    raise ConfigError(
        "an adapter without its projections", where=f"tensor {last!r}",
        remedy="save it with save_projection=True, or merge it with peft",
    )  # fmt: skip


def _part(adapter: Adapter, name: str, remedy: str | None = None) -> Tensor:
    if name not in adapter.tensors:
        raise CorruptError("a part is missing", where=f"tensor {name!r}", remedy=remedy)
    return adapter.tensors[name]


def _other_base(spec: TensorSpec, found: str) -> ConfigError:
    return ConfigError(
        "an adapter of another base", where=f"tensor {spec.name!r}", found=found,
        allowed=str(spec.shape),
    )  # fmt: skip


#: By kind, the last part of a learned tensor's name, and what makes its parts.
ADDED: dict[str, tuple[str, Callable[[Adapter, Base, str], Part]]] = {
    "SHIRA": ("shira_weight", _masked),
    "IA3": ("ia3_l", _scaled),
    "VERA": ("vera_lambda_b", _projected),
}
