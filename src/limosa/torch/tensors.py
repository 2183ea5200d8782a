"""save, load and open_file for torch tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from limosa.codec.arrays import check_file, open_reader, save_tensors, save_tensors_file
from limosa.codec.base import Base
from limosa.codec.encoder import EncodeResult
from limosa.codec.inputs import Input
from limosa.codec.opening import Model, Path, open_base, open_model
from limosa.codec.quality import Quality
from limosa.codec.tensor_file import TensorFile
from limosa.errors import ConfigError
from limosa.limits import Limits
from limosa.tensors import Bytes, TensorMap, TensorSpec
from limosa.torch.dtypes import (
    TORCH_DTYPES,
    allocate,
    bytes_of,
    from_tensor,
    to_tensor,
    torch_shape,
)

BaseLike = Base | Mapping[str, torch.Tensor] | Path


def save(
    tensors: Mapping[str, torch.Tensor],
    metadata: dict[str, str] | None = None,
    *,
    base: BaseLike | None = None,
    quality: Quality | Sequence[Quality] | None = None,
    threads: int | None = None,
) -> bytes:
    """Encode tensors, such as a state dict; arguments and errors as for :func:`limosa.save`.

    Tensors that are equal, tied ones among them, are stored once.

    >>> import torch
    >>> load(save({"w": torch.arange(3)}))["w"]
    tensor([0, 1, 2])
    """
    return save_tensors(_to_map(tensors), metadata, _open(base, threads), quality, threads)


def save_file(
    tensors: Mapping[str, torch.Tensor],
    path: Path,
    metadata: dict[str, str] | None = None,
    *,
    base: BaseLike | None = None,
    quality: Quality | None = None,
    threads: int | None = None,
) -> EncodeResult:
    """Encode tensors into the file *path*, which appears whole or not at all."""
    held = _open(base, threads)
    return save_tensors_file(_to_map(tensors), path, metadata, held, quality, threads)


def load(
    data: Input,
    *,
    base: BaseLike | None = None,
    threads: int | None = None,
    limits: Limits | None = None,
    out: Mapping[str, torch.Tensor] | None = None,
    verify: bool = False,
    layers: int | None = None,
) -> dict[str, torch.Tensor]:
    """Decode all tensors, on the CPU; arguments and errors as for :func:`limosa.load`.

    Args:
        data: bytes, or whatever else :class:`Reader` reads.
        base: the tensors that the data were coded against, if they were.
        threads: how many to use; None for all processors.
        limits: what the data may ask for.
        out: contiguous tensors on the CPU to decode into, for as many of the names as the
            caller likes; a model's own parameters, for instance.
        verify: also compare digests; checksums are always compared.
        layers: of a file with layers of quality, decode the first so many.
    """
    held = _open(base, threads)
    with open_model(
        data, layers, base=held, limits=limits, threads=threads, verify=verify
    ) as reader:
        return _load_all(reader, out or {})


def load_file(
    path: Path,
    *,
    base: BaseLike | None = None,
    threads: int | None = None,
    limits: Limits | None = None,
    out: Mapping[str, torch.Tensor] | None = None,
    verify: bool = False,
    layers: int | None = None,
) -> dict[str, torch.Tensor]:
    """Decode all tensors of the file *path*; see :func:`load`."""
    check_file(path)
    return load(
        path, base=base, threads=threads, limits=limits, out=out, verify=verify, layers=layers
    )


def open_file(
    path: Input,
    *,
    base: BaseLike | None = None,
    threads: int | None = None,
    limits: Limits | None = None,
    verify: bool = False,
    layers: int | None = None,
) -> TensorFile[torch.Tensor]:
    """Open a file for reading single tensors; see :func:`limosa.open_file`."""
    reader = open_reader(path, _open(base, threads), threads, limits, verify, layers)
    return TensorFile(reader, from_tensor, limits)


def _to_map(tensors: Mapping[str, torch.Tensor]) -> TensorMap:
    return {name: to_tensor(name, tensor) for name, tensor in tensors.items()}


def open_torch_base(
    base: BaseLike, *, limits: Limits | None = None, threads: int | None = None
) -> Base:
    """As :func:`limosa.open_base`, but a mapping holds torch tensors."""
    if isinstance(base, Mapping):
        return Base.from_tensors(_to_map(base), threads=threads)
    return open_base(base, limits=limits, threads=threads)


def _open(base: BaseLike | None, threads: int | None) -> Base | None:
    return None if base is None else open_torch_base(base, threads=threads)


def _load_all(reader: Model, out: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    specs = {spec.name: spec for spec in reader.specs}
    for name in out:
        if name not in specs:
            raise ConfigError("no such tensor", where=f"tensor {name!r}", remedy="leave it out")
    results = {name: out[name] if name in out else allocate(spec) for name, spec in specs.items()}
    views = {name: _view(specs[name], tensor) for name, tensor in results.items()}
    reader.read_all(views)
    return results


def _view(spec: TensorSpec, tensor: torch.Tensor) -> Bytes:
    fits = (
        tensor.dtype == TORCH_DTYPES.get(spec.dtype)
        and tuple(tensor.shape) == torch_shape(spec)
        and tensor.device.type == "cpu"
        and tensor.is_contiguous()
    )
    if not fits:
        raise ConfigError(
            "the tensor to decode into does not fit",
            where=f"tensor {spec.name!r}",
            found=f"{tensor.dtype} {tuple(tensor.shape)} on {tensor.device}",
            allowed=f"contiguous {spec.dtype} {torch_shape(spec)} on the CPU",
        )
    return bytes_of(tensor.detach())
