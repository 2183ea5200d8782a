"""Bytes of files and pipes, without reading more than is asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np

from limosa.errors import ConfigError, LimitError, TruncatedError
from limosa.tensors import Bytes, TensorSpec


def map_file(path: str | os.PathLike[str]) -> Bytes:
    """The whole file as a read-only array that the system pages in on use."""
    if os.stat(path).st_size == 0:  # which cannot be mapped
        return np.empty(0, np.uint8)
    return np.asarray(np.memmap(path, np.uint8, "r"))


def read_exactly(stream: BinaryIO, size: int, where: str) -> Bytes:
    """Exactly *size* bytes of a stream, whose reads may be short.

    Raises:
        TruncatedError: the stream ends first.
        LimitError: *size* bytes do not fit in memory.
    """
    try:
        out = np.empty(size, np.uint8)
    except MemoryError:
        raise LimitError(
            "does not fit in memory", where=where, found=f"{size} bytes", remedy="use a file"
        ) from None
    view = out.data
    done = 0
    while done < size:
        block = stream.read(min(size - done, 2**24))
        if not block:
            raise TruncatedError(
                "the stream ends too early",
                where=where,
                found=f"{done} bytes",
                allowed=f"{size} bytes",
                remedy="fetch it again",
            )
        view[done : done + len(block)] = block
        done += len(block)
    return out


class StreamLoader:
    """Loads the tensors of a stream one after the other; each may be asked for once."""

    def __init__(self, stream: BinaryIO, specs: Sequence[TensorSpec]) -> None:
        self._stream = stream
        self._specs = specs
        self._next = 0

    def __call__(self, i: int) -> Bytes:
        """The data of tensor *i*, which must be the one after the last."""
        if i != self._next:
            raise ConfigError("a pipe gives its tensors in order only", found=f"tensor {i}")
        self._next += 1
        spec = self._specs[i]
        return read_exactly(self._stream, spec.nbytes, f"tensor {spec.name!r}")
