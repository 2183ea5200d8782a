"""torch dtypes and the dtypes of the bitstream."""

from __future__ import annotations

import numpy as np

from limosa.errors import ConfigError, MissingExtraError
from limosa.tensors import Bytes, Tensor, TensorSpec

try:
    import torch
except ModuleNotFoundError:
    raise MissingExtraError.for_extra("torch", "limosa.torch") from None

_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F4": "float4_e2m1fn_x2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
}
# Older releases of torch lack the narrow ones.
TORCH_DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, attribute)
    for name, attribute in _NAMES.items()
    if hasattr(torch, attribute)
}
_DTYPE_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}


def to_tensor(name: str, tensor: torch.Tensor) -> Tensor:
    """The bytes of a torch tensor; shares its memory if it is contiguous and on the CPU.

    Raises:
        ConfigError: it is not a dense tensor of a dtype that has a counterpart.
    """
    dtype = _DTYPE_NAMES.get(tensor.dtype) if isinstance(tensor, torch.Tensor) else None
    if dtype is None or tensor.layout is not torch.strided:
        raise ConfigError(
            "cannot encode this",
            where=f"tensor {name!r}",
            found=f"{tensor.layout} {tensor.dtype}" if dtype is None else f"{tensor.layout}",
            allowed="dense tensors of " + ", ".join(TORCH_DTYPES),
        )
    dense = tensor.detach().to("cpu").resolve_conj().resolve_neg().contiguous()
    shape = tuple(tensor.shape)
    if dtype == "F4":
        shape = (*shape[:-1], shape[-1] * 2)
    return Tensor(dtype, shape, bytes_of(dense))


def bytes_of(tensor: torch.Tensor) -> Bytes:
    """The memory of a contiguous tensor on the CPU."""
    if tensor.numel() == 0:
        return np.empty(0, np.uint8)
    found: Bytes = tensor.reshape(-1).view(torch.uint8).numpy()
    return found


def allocate(spec: TensorSpec) -> torch.Tensor:
    """An uninitialised tensor.

    Raises:
        ConfigError: this release of torch has no such dtype.
    """
    dtype = TORCH_DTYPES.get(spec.dtype)
    if dtype is None:
        raise ConfigError(
            "torch has no such dtype",
            where=f"tensor {spec.name!r}",
            found=spec.dtype,
            allowed=", ".join(TORCH_DTYPES),
            remedy="use limosa.load, or a later torch",
        )
    # Through bytes: with deterministic algorithms on, torch fills new memory and cannot for F4.
    return torch.empty(spec.nbytes, dtype=torch.uint8).view(dtype).reshape(torch_shape(spec))


def torch_shape(spec: TensorSpec) -> tuple[int, ...]:
    """The shape in torch, which counts F4 in pairs."""
    if spec.dtype == "F4" and spec.shape:
        return (*spec.shape[:-1], spec.shape[-1] // 2)
    return spec.shape


def from_tensor(tensor: Tensor) -> torch.Tensor:
    """A torch tensor that shares the bytes."""
    spec = tensor.spec("")
    if tensor.data.nbytes == 0:
        return allocate(spec)
    dtype = TORCH_DTYPES.get(spec.dtype)
    if dtype is None:
        return allocate(spec)
    return torch.from_numpy(tensor.data).view(dtype).reshape(torch_shape(spec))
