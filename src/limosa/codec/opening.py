"""What a caller may pass as a base, made a :class:`Base`; and what kind of file a path is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from limosa.codec.base import Base, no_base
from limosa.codec.config import thread_count
from limosa.codec.constants import MAGIC, REFINEMENT_MAGIC, SET_MAGIC
from limosa.codec.decoder import Reader
from limosa.codec.inputs import Far, Input, Memory, open_input
from limosa.codec.layers import open_layer
from limosa.codec.refinement.read import Packed, Refinement
from limosa.errors import ConfigError
from limosa.files import read
from limosa.files.beginnings import in_file
from limosa.limits import Limits
from limosa.tensors import Tensor

Path = str | os.PathLike[str]
Model = Reader | Refinement
BaseLike = Base | Mapping[str, NDArray[Any]] | Path


def open_base(base: BaseLike, *, limits: Limits | None = None, threads: int | None = None) -> Base:
    """The base that *base* means.

    Args:
        base: a :class:`Base`, arrays by name, or the path of a model that files can be read
            from, or of a ``.limosa`` file that needs no base itself.
        limits: for reading the path.
        threads: for computing the digest.

    Raises:
        FormatError: the file is damaged.
        ConfigError: it is none of these.

    >>> import numpy as np
    >>> open_base({"w": np.zeros(2, np.float32)}).digest == open_base({}).digest
    False
    """
    if isinstance(base, Base):
        return base
    if isinstance(base, Mapping):
        tensors = {name: Tensor.from_numpy(array) for name, array in base.items()}
        return Base.from_tensors(tensors, threads=threads)
    if not isinstance(base, (str, os.PathLike)):
        raise ConfigError(
            "cannot use this as a base",
            found=type(base).__name__,
            allowed="a Base, arrays by name, or a path",
        )
    if is_refinement(base):
        raise ConfigError(
            "an update is no model to start from", where=os.fspath(base),
            remedy="apply it to its own base first, and pass what that gives",
        )  # fmt: skip
    if is_limosa(base):
        with in_file(base):
            return open_layer(base, limits=limits, threads=threads).as_base(os.fspath(base))
    return Base.from_bundle(read(base, limits=limits), threads=threads)


def open_model(
    source: Input,
    layers: int | None = None,
    *,
    base: Base | None = None,
    limits: Limits | None = None,
    threads: int | None = None,
    verify: bool = False,
) -> Model:
    """What decodes *source*: a file with or without layers, or a refinement of *base*.

    A refinement is recognised where the source gives random access, and is always verified.

    Raises:
        BaseMismatchError: a refinement without its base.
        ConfigError, FormatError: as for :func:`limosa.codec.layers.open_layer`.
    """
    opened = open_input(source)
    if isinstance(opened, Memory | Far) and opened.read_at(0, len(MAGIC)) == REFINEMENT_MAGIC:
        packed = Packed(opened, limits)
        if layers is not None:
            raise ConfigError("a refinement has no layers", found=f"layer {layers} asked for")
        if base is None:
            raise no_base(packed.base_digest)
        return Refinement(packed, base, thread_count(threads))
    return open_layer(opened, layers, base=base, limits=limits, threads=threads, verify=verify)


def first_bytes(path: Path) -> bytes:
    """The first eight bytes of a file; none of a folder."""
    if os.path.isdir(path):
        return b""
    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC))
    except FileNotFoundError:
        raise ConfigError("no such file", where=os.fspath(path), remedy="check the path") from None


def is_limosa(path: Path) -> bool:
    """Whether *path* is a ``.limosa`` file of one model, by its first bytes."""
    return first_bytes(path) == MAGIC


def is_refinement(path: Path) -> bool:
    """Whether *path* is a refinement, by its first bytes."""
    return first_bytes(path) == REFINEMENT_MAGIC


def is_set(path: Path) -> bool:
    """Whether *path* is a set of models, by its first bytes."""
    return first_bytes(path) == SET_MAGIC
