"""What a caller may pass as a base, made a :class:`Base`; and what kind of file a path is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from limosa.codec.base import Base
from limosa.codec.constants import MAGIC, SET_MAGIC
from limosa.codec.layers import open_layer
from limosa.errors import ConfigError
from limosa.files import read
from limosa.limits import Limits
from limosa.tensors import Tensor

Path = str | os.PathLike[str]
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
    if is_limosa(base):
        return open_layer(base, limits=limits, threads=threads).as_base()
    return Base.from_bundle(read(base, limits=limits), threads=threads)


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


def is_set(path: Path) -> bool:
    """Whether *path* is a set of models, by its first bytes."""
    return first_bytes(path) == SET_MAGIC
