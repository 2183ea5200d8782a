"""Tensors as limosa sees them: a name, a dtype, a shape and little-endian bytes.

numpy knows neither BF16 nor the 8-, 6- and 4-bit floats, so data travel as ``uint8`` arrays and
are given a numpy dtype only at the edge, through ``ml_dtypes`` where numpy has none.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limosa.errors import ConfigError, CorruptError, LimitError, LimosaError
from limosa.limits import Limits

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class DType:
    """An element type: its safetensors *name*, its width in *bits* and its numpy name.

    ``module`` says where the numpy type lives: ``numpy`` or ``ml_dtypes``.
    """

    name: str
    bits: int
    numpy_name: str
    module: str = "numpy"


# The position in this tuple is the code of the dtype in the bitstream: append, never reorder.
_TABLE = (
    DType("F64", 64, "float64"),
    DType("F32", 32, "float32"),
    DType("F16", 16, "float16"),
    DType("BF16", 16, "bfloat16", "ml_dtypes"),
    DType("F8_E4M3", 8, "float8_e4m3fn", "ml_dtypes"),
    DType("F8_E5M2", 8, "float8_e5m2", "ml_dtypes"),
    DType("F8_E8M0", 8, "float8_e8m0fnu", "ml_dtypes"),
    DType("F4", 4, "float4_e2m1fn", "ml_dtypes"),
    DType("I64", 64, "int64"),
    DType("I32", 32, "int32"),
    DType("I16", 16, "int16"),
    DType("I8", 8, "int8"),
    DType("U64", 64, "uint64"),
    DType("U32", 32, "uint32"),
    DType("U16", 16, "uint16"),
    DType("U8", 8, "uint8"),
    DType("BOOL", 8, "bool"),
    DType("C64", 64, "complex64"),
    DType("F6_E2M3", 6, "float6_e2m3fn", "ml_dtypes"),
    DType("F6_E3M2", 6, "float6_e3m2fn", "ml_dtypes"),
    DType("F8_E4M3FNUZ", 8, "float8_e4m3fnuz", "ml_dtypes"),
    DType("F8_E5M2FNUZ", 8, "float8_e5m2fnuz", "ml_dtypes"),
)

DTYPES: dict[str, DType] = {dtype.name: dtype for dtype in _TABLE}

_BY_NUMPY_NAME = {dtype.numpy_name: dtype.name for dtype in _TABLE}


@dataclass(frozen=True)
class TensorSpec:
    """What is known of a tensor without its data.

    >>> TensorSpec("w", "F4", (2, 3)).nbytes
    3
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    # Each layer asks for both many times, and a small model has a thousand tensors: they are kept,
    # and not by cached_property, whose lock costs more than the product.
    @property
    def elements(self) -> int:
        """The product of the shape; 1 for a 0-d tensor."""
        kept: int | None = self.__dict__.get("_elements")
        if kept is None:
            kept = self.__dict__["_elements"] = math.prod(self.shape)
        return kept

    @property
    def nbytes(self) -> int:
        """Bytes of the data.

        Raises:
            CorruptError: the dtype is unknown, or packed elements do not fill whole bytes.
        """
        kept: int | None = self.__dict__.get("_nbytes")
        if kept is None:
            kept = self.__dict__["_nbytes"] = self._count_bytes()
        return kept

    def _count_bytes(self) -> int:
        bits = dtype_of(self.dtype).bits * self.elements
        if bits % 8:
            raise CorruptError(
                "packed elements do not fill whole bytes",
                where=f"tensor {self.name!r}",
                found=f"{self.elements} elements of {self.dtype}, {bits} bits",
                allowed="a multiple of 8 bits",
            )
        return bits // 8


def dtype_of(name: str) -> DType:
    """The entry of :data:`DTYPES`, or a :class:`CorruptError` that names the known ones."""
    try:
        return DTYPES[name]
    except (KeyError, TypeError):
        raise CorruptError("unknown dtype", found=repr(name), allowed=", ".join(DTYPES)) from None


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor: *data* is a 1-D contiguous ``uint8`` array of little-endian elements.

    Elements narrower than a byte are packed from the low bits of each byte upwards.

    >>> Tensor.from_numpy(np.array([[1, 2]], dtype=np.int16)).data.tolist()
    [1, 0, 2, 0]
    """

    dtype: str
    shape: tuple[int, ...]
    data: Bytes

    @classmethod
    def from_numpy(cls, array: NDArray[Any]) -> Tensor:
        """The tensor of a numpy array; shares its memory where the layout allows.

        Raises:
            ConfigError: the array's dtype has no counterpart (strings, objects, complex128 …).
        """
        name = _BY_NUMPY_NAME.get(array.dtype.name)
        if name is None:
            raise ConfigError(
                "numpy dtype without a counterpart",
                found=str(array.dtype),
                allowed=", ".join(_BY_NUMPY_NAME),
                remedy="convert the array with .astype()",
            )
        flat = np.ascontiguousarray(array).reshape(-1)
        flat = flat.astype(numpy_dtype(name), copy=False)
        data: Bytes = flat.view(np.uint8)
        if DTYPES[name].bits < 8:
            data = _pack(data, DTYPES[name].bits)
        return cls(name, tuple(array.shape), data)

    def numpy(self) -> NDArray[Any]:
        """The array; shares memory with :attr:`data` unless the elements are packed.

        F4 and F6 come back unpacked, one byte an element, since numpy addresses bytes.
        """
        dtype = dtype_of(self.dtype)
        data = self.data
        if dtype.bits < 8:
            data = _unpack(data, dtype.bits)
        return data.view(numpy_dtype(self.dtype)).reshape(self.shape)

    def spec(self, name: str) -> TensorSpec:
        """The description of this tensor under *name*."""
        return TensorSpec(name, self.dtype, self.shape)


TensorMap = dict[str, Tensor]


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The little-endian numpy dtype of a limosa dtype; imports ``ml_dtypes`` when needed.

    >>> numpy_dtype("F32")
    dtype('float32')
    """
    dtype = dtype_of(name)
    found: np.dtype[Any]
    if dtype.module == "ml_dtypes":
        import ml_dtypes

        found = np.dtype(getattr(ml_dtypes, dtype.numpy_name))
    else:
        found = np.dtype(dtype.numpy_name)
    return found if sys.byteorder == "little" else found.newbyteorder("<")


def _unpack(data: Bytes, bits: int) -> Bytes:
    """One element a byte from elements packed from the low bits upwards."""
    if bits == 4:
        out = np.empty((data.size, 2), np.uint8)
        np.bitwise_and(data, 0x0F, out=out[:, 0])
        np.right_shift(data, 4, out=out[:, 1])
        return out.reshape(-1)
    fields = np.unpackbits(data, bitorder="little").reshape(-1, bits)
    return np.packbits(fields, axis=1, bitorder="little").reshape(-1)


def _pack(elements: Bytes, bits: int) -> Bytes:
    """The inverse of :func:`_unpack`."""
    if elements.size * bits % 8:
        raise ConfigError(
            "packed elements do not fill whole bytes",
            found=f"{elements.size} elements of {bits} bits",
            allowed="a multiple of 8 bits",
            remedy="pad the array",
        )
    if bits == 4:
        pairs = np.bitwise_and(elements.reshape(-1, 2), 0x0F)
        packed: Bytes = np.left_shift(pairs[:, 1], 4, dtype=np.uint8)
        return np.bitwise_or(packed, pairs[:, 0], out=packed)
    fields = np.unpackbits(elements.reshape(-1, 1), axis=1, count=bits, bitorder="little")
    return np.packbits(fields.reshape(-1), bitorder="little")


def as_bytes(data: Any) -> Bytes:
    """A 1-D ``uint8`` view of any contiguous buffer, without a copy."""
    return np.frombuffer(data, dtype=np.uint8)


def check_name(name: str, limits: Limits) -> None:
    """Refuse a tensor name that is too long, not Unicode, or made to escape a folder.

    limosa never makes a path of a tensor name; but others may, and no tool writes ``..`` as a
    component. A leading ``/`` is allowed: exporters of ONNX write it.

    Raises:
        CorruptError: the name holds NUL, an unpaired surrogate or a ``..`` component.
        LimitError: the name is longer than ``limits.max_name_bytes``.
    """
    where = f"tensor {name[:80]!r}"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise CorruptError("the name is not valid Unicode", where=where) from None
    if size > limits.max_name_bytes:
        raise LimitError(
            "the name is too long",
            where=where,
            found=f"{size} bytes",
            allowed=f"max_name_bytes {limits.max_name_bytes}",
            remedy="pass a larger Limits to read it",
        )
    if "\0" in name or ".." in name.replace("\\", "/").split("/"):
        raise CorruptError(
            "the name is a path that leaves its folder",
            where=where,
            allowed="names without NUL and without '..' between slashes",
            remedy="rename the tensor",
        )


def check_spec(spec: TensorSpec, limits: Limits) -> None:
    """Check name, dtype, rank, dimensions and size of one tensor against *limits*.

    Raises:
        CorruptError: the dtype is unknown or a dimension is not a whole number.
        LimitError: rank or elements exceed *limits*.
    """
    check_name(spec.name, limits)
    where = f"tensor {spec.name!r}"
    if len(spec.shape) > limits.max_rank:
        raise _beyond("the rank is too large", where, len(spec.shape), "max_rank", limits)
    for dim in spec.shape:
        if not isinstance(dim, int) or isinstance(dim, bool) or not 0 <= dim < 2**63:
            raise CorruptError(
                "bad dimension", where=where, found=repr(dim)[:80], allowed="0 to 2**63 - 1"
            )
    if spec.elements > limits.max_elements:
        raise _beyond("too many elements", where, spec.elements, "max_elements", limits)
    try:
        _ = spec.nbytes
    except LimosaError as error:
        error.where = where
        raise


def check_specs(specs: Sequence[TensorSpec], limits: Limits) -> int:
    """Check every tensor, that names are unique, and the totals; return the sum of bytes.

    Raises:
        CorruptError: a tensor is malformed or two share a name.
        LimitError: a tensor, their number or their sum exceeds *limits*.
    """
    if len(specs) > limits.max_tensors:
        raise _beyond("too many tensors", "file", len(specs), "max_tensors", limits)
    total = 0
    seen: set[str] = set()
    for spec in specs:
        check_spec(spec, limits)
        if spec.name in seen:
            raise CorruptError("two tensors have one name", where=f"tensor {spec.name!r}")
        seen.add(spec.name)
        total += spec.nbytes
        if total > limits.max_total_bytes:
            where = f"tensor {spec.name!r}"
            raise _beyond("too many bytes in all", where, total, "max_total_bytes", limits)
    return total


def _beyond(problem: str, where: str, found: int, limit: str, limits: Limits) -> LimitError:
    return LimitError(
        problem,
        where=where,
        found=str(found),
        allowed=f"{limit} {getattr(limits, limit)}",
        remedy="pass a larger Limits to read it",
    )


def tensor_digest(dtype: str, shape: Iterable[int], data: Any) -> bytes:
    """BLAKE3, 32 bytes, over ``dtype NUL rank:u32 dims:u64… data``, little-endian.

    *data* is any contiguous buffer of the tensor's bytes.

    >>> tensor_digest("U8", (1,), b"a").hex()[:16]
    'bfc44c1726b6cbac'
    """
    from blake3 import blake3

    dims = tuple(shape)
    digest = blake3(dtype.encode() + b"\0" + struct.pack(f"<I{len(dims)}Q", len(dims), *dims))
    digest.update(memoryview(data))
    return digest.digest()


def state_digest(pairs: Iterable[tuple[str, bytes]] | Mapping[str, bytes]) -> bytes:
    """BLAKE3, 32 bytes, over the (name, tensor digest) pairs sorted by the names' UTF-8 bytes.

    The order in which a file stores its tensors therefore does not change the digest.

    >>> a, b = ("a", bytes(32)), ("b", bytes(32))
    >>> state_digest([a, b]) == state_digest([b, a])
    True
    """
    from blake3 import blake3

    items = pairs.items() if isinstance(pairs, Mapping) else pairs
    digest = blake3()
    for name, inner in sorted((name.encode(), inner) for name, inner in items):
        digest.update(struct.pack("<I", len(name)) + name + inner)
    return digest.digest()


def map_digest(tensors: Mapping[str, Tensor]) -> bytes:
    """The state digest of tensors in memory.

    >>> map_digest({}) == state_digest([])
    True
    """
    return state_digest(
        {name: tensor_digest(one.dtype, one.shape, one.data) for name, one in tensors.items()}
    )
