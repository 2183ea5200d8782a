"""torch tensors over shared memory, as distinct blocks and views of them.

Tensors that share their storage (tied weights, slices of one buffer) are kept once and come back
sharing it. Where all tensors of a storage have the same geometry, the block is that tensor, under
its name and shape; otherwise the block is the flat span that they cover together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from limosa.errors import CorruptError, FormatError, MissingExtraError
from limosa.tensors import Bytes, TensorSpec

if TYPE_CHECKING:
    import torch

# torch's names of the dtypes that limosa knows; any other travels as bytes.
_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8",
    "bool": "BOOL", "complex64": "C64",
}  # fmt: skip


def import_torch(purpose: str) -> Any:
    """The torch module, or the error that names the extra."""
    try:
        import torch
    except ImportError:
        raise MissingExtraError.for_extra("torch", purpose) from None
    return torch


def dtype_name(dtype: torch.dtype) -> str:
    """``float32`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


@dataclass(frozen=True)
class View:
    """One tensor object: where it lies in its block, in elements of its own dtype.

    ``whole`` says that the block is this tensor in C order, whatever *strides* are.
    """

    block: int
    whole: bool
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    requires_grad: bool
    parameter: bool


@dataclass(frozen=True)
class Block:
    """Bytes that travel as one tensor."""

    spec: TensorSpec
    data: Bytes


def check_tensor(tensor: torch.Tensor, where: str) -> None:
    """Refuse tensors that are more than a strided view of bytes.

    Raises:
        FormatError: the tensor is sparse, quantized, without data, or of another class.
    """
    torch = import_torch("reading a PyTorch file")
    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter)
    dense = tensor.layout == torch.strided and not tensor.is_quantized
    if plain and dense and tensor.device.type == "cpu":
        return
    raise FormatError(
        "a tensor that cannot be kept",
        where=where,
        found=f"{type(tensor).__name__}, {tensor.layout}, {tensor.dtype}, on {tensor.device}",
        allowed="dense tensors and parameters",
        remedy="convert it with .to_dense() or .dequantize() before saving",
    )


def lay_out(tensors: list[tuple[str, torch.Tensor]]) -> tuple[list[Block], list[View]]:
    """The blocks of named tensors, and one view for each of these, in order.

    Names must be unique; a block takes the name of the first tensor in it.
    """
    groups: dict[tuple[str, int], list[int]] = {}
    for i, (_, tensor) in enumerate(tensors):
        # An empty storage has no address: each is on its own.
        shared = tensor.numel() > 0
        key = ("at", tensor.untyped_storage().data_ptr()) if shared else ("empty", i)
        groups.setdefault(key, []).append(i)
    blocks: list[Block] = []
    views: dict[int, View] = {}
    for members in groups.values():
        group = [tensors[i] for i in members]
        block, own = _lay_out_group(group, len(blocks))
        blocks.append(block)
        views.update(zip(members, own, strict=True))
    return blocks, [views[i] for i in range(len(tensors))]


def _lay_out_group(group: list[tuple[str, torch.Tensor]], index: int) -> tuple[Block, list[View]]:
    name, first = group[0]
    tensors = [tensor for _, tensor in group]
    own = _NAMES.get(dtype_name(first.dtype))
    same = len({(t.dtype, t.shape, t.stride(), t.storage_offset()) for t in tensors}) == 1
    if same and own is not None and _is_dense(first):
        block = Block(TensorSpec(name, own, tuple(first.shape)), _bytes(first.contiguous()))
        return block, [_view(tensor, index, True, 0) for tensor in tensors]
    begin = min(int(t.storage_offset()) * t.itemsize for t in tensors)
    # A block starts where every dtype in it can: a multiple of 16 bytes.
    begin -= begin % 16
    end = max(_end(t) for t in tensors)
    data = _storage_bytes(first)[begin:end]
    one = own if own is not None and len({t.dtype for t in tensors}) == 1 else "U8"
    size = first.itemsize if one != "U8" else 1
    spec = TensorSpec(name, one, (data.size // size,))
    return Block(spec, data), [_view(tensor, index, False, begin) for tensor in tensors]


def _is_dense(tensor: torch.Tensor) -> bool:
    """Whether the elements fill their span without overlap, in any order of the axes."""
    expected = 1
    for stride, dim in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if dim == 1:
            continue
        if stride != expected and tensor.numel():
            return False
        expected *= dim
    return True


def _view(tensor: torch.Tensor, block: int, whole: bool, begin: int) -> View:
    torch = import_torch("reading a PyTorch file")
    return View(
        block,
        whole,
        dtype_name(tensor.dtype),
        tuple(tensor.shape),
        tuple(tensor.stride()),
        0 if whole else int(tensor.storage_offset()) - begin // tensor.itemsize,
        bool(tensor.requires_grad),
        isinstance(tensor, torch.nn.Parameter),
    )


def _span(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Elements from the first to the last, both included."""
    if 0 in shape:
        return 0
    return 1 + sum((dim - 1) * stride for dim, stride in zip(shape, strides, strict=True))


def _end(tensor: torch.Tensor) -> int:
    span = _span(tuple(tensor.shape), tuple(tensor.stride()))
    return (int(tensor.storage_offset()) + span) * tensor.itemsize


def _storage_bytes(tensor: torch.Tensor) -> Bytes:
    torch = import_torch("reading a PyTorch file")
    flat = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
    data: Bytes = flat.numpy()
    return data


def _bytes(tensor: torch.Tensor) -> Bytes:
    """The bytes of a contiguous tensor, sharing its memory."""
    begin = tensor.storage_offset() * tensor.itemsize
    return _storage_bytes(tensor)[begin : begin + tensor.numel() * tensor.itemsize]


def check_views(views: list[View], specs: list[TensorSpec]) -> None:
    """Check that every view lies within its block, before any memory is allocated.

    Raises:
        CorruptError: a view has an unknown dtype, leaves its block or contradicts its spec.
    """
    torch = import_torch("restoring a PyTorch file")
    for view in views:
        dtype = getattr(torch, view.dtype, None)
        ok = isinstance(dtype, torch.dtype) and 0 <= view.block < len(specs)
        ok = ok and len(view.shape) == len(view.strides)
        ok = ok and all(0 <= n < 2**63 for n in (*view.shape, *view.strides, view.offset))
        if ok and isinstance(dtype, torch.dtype):
            spec = specs[view.block]
            end = (view.offset + _span(view.shape, view.strides)) * dtype.itemsize
            ok = end <= spec.nbytes
            if view.whole:
                own = (_NAMES.get(view.dtype), view.shape, 0)
                ok = ok and own == (spec.dtype, spec.shape, view.offset)
        if not ok:
            raise CorruptError("a view leaves its tensor", where="skeleton", found=str(view)[:200])


class Rebuilder:
    """Makes tensors of blocks and views; views of one block share its memory."""

    def __init__(self, specs: list[TensorSpec], blocks: list[Bytes]) -> None:
        self._torch = import_torch("restoring a PyTorch file")
        self._specs = specs
        self._blocks = blocks
        self._storages: dict[int, Any] = {}

    def build(self, view: View) -> Any:
        """The tensor of a view that :func:`check_views` has passed.

        Raises:
            CorruptError: torch refuses the geometry.
        """
        torch = self._torch
        dtype = getattr(torch, view.dtype)
        try:
            storage = self._storage(view, dtype)
            tensor = torch.empty(0, dtype=dtype)
            tensor.set_(storage, view.offset, view.shape, view.strides)
            if view.parameter:
                return torch.nn.Parameter(tensor, requires_grad=view.requires_grad)
            return tensor.requires_grad_(view.requires_grad)
        except (RuntimeError, ValueError, TypeError) as error:
            raise CorruptError(
                "a tensor cannot be rebuilt", where="skeleton", found=str(error)[:200]
            ) from None

    def _storage(self, view: View, dtype: Any) -> Any:
        if view.block not in self._storages:
            torch = self._torch
            flat = torch.from_numpy(self._blocks[view.block])
            if view.whole and np.prod(view.shape, dtype=object) > 1:
                ordered = torch.empty_strided(view.shape, view.strides, dtype=dtype)
                if not ordered.is_contiguous():
                    ordered.copy_(flat.view(dtype).reshape(view.shape))
                    flat = ordered
            self._storages[view.block] = flat.untyped_storage()
        return self._storages[view.block]
