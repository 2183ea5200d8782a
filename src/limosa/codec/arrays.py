"""save, load and open_file for numpy arrays, shaped like safetensors'."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limosa.codec.decoder import Reader
from limosa.codec.encoder import EncodeResult, encode, encode_to_bytes
from limosa.codec.inputs import Input
from limosa.codec.layers import encode_layers, open_layer
from limosa.codec.opening import BaseLike, Model, Path, open_base, open_model
from limosa.codec.quality import Quality
from limosa.codec.tensor_file import TensorFile
from limosa.errors import ConfigError
from limosa.files import bundle_from_tensors
from limosa.files.atomic import AtomicFile
from limosa.limits import Limits
from limosa.tensors import Bytes, Tensor, TensorMap, TensorSpec, dtype_of, numpy_dtype

Array = NDArray[Any]


def save(
    tensors: Mapping[str, Array],
    metadata: dict[str, str] | None = None,
    *,
    base: BaseLike | None = None,
    quality: Quality | Sequence[Quality] | None = None,
    threads: int | None = None,
) -> bytes:
    """Encode arrays.

    Args:
        tensors: name -> array of any shape and of a dtype that safetensors knows (with
            ``ml_dtypes`` for those that numpy lacks).
        metadata: text that travels with them, as in safetensors.
        base: a model that the receiver has; see :func:`open_base`.
        quality: :class:`Lossless` unless given; several, coarse to fine, make layers, of which a
            receiver may decode the first few (``load(…, layers=k)``).
        threads: how many to use; None for all processors. The bytes do not depend on it.

    Raises:
        ConfigError: a dtype has no counterpart, or a setting is out of range.

    >>> data = save({"w": np.arange(6, dtype=np.float32).reshape(2, 3)})
    >>> load(data)["w"].tolist()
    [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    """
    return save_tensors(to_tensors(tensors), metadata, base, quality, threads)


def save_file(
    tensors: Mapping[str, Array],
    path: Path,
    metadata: dict[str, str] | None = None,
    *,
    base: BaseLike | None = None,
    quality: Quality | None = None,
    threads: int | None = None,
) -> EncodeResult:
    """Encode arrays into the file *path*, which appears whole or not at all; see :func:`save`."""
    return save_tensors_file(to_tensors(tensors), path, metadata, base, quality, threads)


def load(
    data: Input,
    *,
    base: BaseLike | None = None,
    threads: int | None = None,
    limits: Limits | None = None,
    out: Mapping[str, Array] | None = None,
    verify: bool = False,
    layers: int | None = None,
) -> dict[str, Array]:
    """Decode all tensors.

    Args:
        data: bytes, or whatever else :class:`Reader` reads.
        base: the model that the data were coded against, if they were.
        threads: how many to use; None for all processors.
        limits: what the data may ask for.
        out: contiguous arrays to decode into, for as many of the names as the caller likes.
        verify: also compare digests; checksums are always compared.
        layers: of a file with layers of quality, decode the first so many; what follows them
            need not be there. All, unless given.

    Raises:
        FormatError: the data are damaged or hostile.
        BaseMismatchError: *base* is missing or another one.
        ConfigError: an array of *out* does not fit.
    """
    held = None if base is None else open_base(base, limits=limits, threads=threads)
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
    out: Mapping[str, Array] | None = None,
    verify: bool = False,
    layers: int | None = None,
) -> dict[str, Array]:
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
) -> TensorFile[Array]:
    """Open a file for reading single tensors, or parts of them.

    Args:
        path: a path, bytes, or an object with ``size`` and ``read_at(offset, n)`` such as
            :class:`limosa.files.http_range.HttpRangeFile`.
        base: the model that the file was coded against, if it was.
        threads: how many to use; None for all processors.
        limits: what the file may ask for.
        verify: compare the digest of every tensor that is read whole.
        layers: as for :func:`load`.

    Raises:
        FormatError: the file is damaged or hostile.
        BaseMismatchError: *base* is another one.

    >>> data = save({"w": np.arange(6, dtype=np.float32).reshape(3, 2)})
    >>> with open_file(data) as file:
    ...     file.keys(), file.get_slice("w")[1:].tolist()
    (['w'], [[2.0, 3.0], [4.0, 5.0]])
    """
    reader = open_reader(path, base, threads, limits, verify, layers)
    return TensorFile(reader, Tensor.numpy, limits)


def to_tensors(tensors: Mapping[str, Array]) -> TensorMap:
    """The tensors of arrays, sharing their memory where that is possible."""
    found = {}
    for name, array in tensors.items():
        try:
            found[name] = Tensor.from_numpy(np.asarray(array))
        except ConfigError as error:
            error.where = f"tensor {name!r}"
            raise
    return found


def save_tensors(
    tensors: TensorMap,
    metadata: dict[str, str] | None,
    base: BaseLike | None,
    quality: Quality | Sequence[Quality] | None,
    threads: int | None,
) -> bytes:
    """Encode tensors into bytes."""
    held = None if base is None else open_base(base, threads=threads)
    bundle = bundle_from_tensors(tensors, metadata)
    if isinstance(quality, Sequence):
        parts: list[bytes] = []
        encode_layers(bundle, parts.append, quality, base=held, threads=threads)
        return b"".join(parts)
    return encode_to_bytes(bundle, base=held, quality=quality, threads=threads)


def save_tensors_file(
    tensors: TensorMap,
    path: Path,
    metadata: dict[str, str] | None,
    base: BaseLike | None,
    quality: Quality | None,
    threads: int | None,
) -> EncodeResult:
    """Encode tensors into a file."""
    held = None if base is None else open_base(base, threads=threads)
    with AtomicFile(path) as output:
        result = encode(
            bundle_from_tensors(tensors, metadata),
            output.file.write,
            base=held,
            quality=quality,
            threads=threads,
        )
        output.commit()
    return result


def open_reader(
    source: Input,
    base: BaseLike | None,
    threads: int | None,
    limits: Limits | None,
    verify: bool,
    layers: int | None = None,
) -> Reader:
    """A reader with random access.

    Raises:
        ConfigError: there is no such file, or *source* is a pipe.
    """
    if isinstance(source, (str, os.PathLike)):
        check_file(source)
    held = None if base is None else open_base(base, limits=limits, threads=threads)
    reader = open_layer(source, layers, base=held, limits=limits, threads=threads, verify=verify)
    if not reader.random_access:
        raise ConfigError("cannot open a pipe", remedy="write it to a file first, or use load")
    return reader


def check_file(path: Path) -> None:
    """Check that *path* is a file.

    Raises:
        ConfigError: it is not.
    """
    if not os.path.isfile(path):
        raise ConfigError("no such file", where=os.fspath(path), remedy="check the path")


def _load_all(reader: Model, out: Mapping[str, Array]) -> dict[str, Array]:
    specs = {spec.name: spec for spec in reader.specs}
    views: dict[str, Bytes] = {}
    for name, array in out.items():
        if name not in specs:
            raise ConfigError("no such tensor", where=f"tensor {name!r}", remedy="leave it out")
        view = _view(specs[name], array)
        if view is not None:
            views[name] = view
    decoded = reader.read_all(views)
    arrays: dict[str, Array] = {}
    for name, spec in specs.items():
        array = Tensor(spec.dtype, spec.shape, decoded[name]).numpy()
        if name not in out:
            arrays[name] = array
            continue
        arrays[name] = out[name]
        if name not in views:
            np.copyto(out[name], array)
    return arrays


def _view(spec: TensorSpec, array: Array) -> Bytes | None:
    """The bytes of a supplied array; None for packed dtypes, which numpy holds unpacked."""
    fits = (
        array.dtype == numpy_dtype(spec.dtype)
        and array.shape == spec.shape
        and array.flags.c_contiguous
        and array.flags.writeable
    )
    if not fits:
        raise ConfigError(
            "the array to decode into does not fit",
            where=f"tensor {spec.name!r}",
            found=f"{array.dtype} {array.shape}",
            allowed=f"contiguous, writable {numpy_dtype(spec.dtype)} {spec.shape}",
        )
    return None if dtype_of(spec.dtype).bits < 8 else array.reshape(-1).view(np.uint8)
