"""Where encoded bytes go: a file that appears whole or not at all, or a stream."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Protocol

from limosa.files.atomic import AtomicFile


class Output(Protocol):
    """Takes bytes in order; they count once committed."""

    def write(self, data: bytes | memoryview, /) -> object:
        """Append *data*."""

    def commit(self) -> None:
        """All is written."""


class _ToFile:
    def __init__(self, file: AtomicFile) -> None:
        self.write = file.file.write
        self.commit = file.commit


class _ToStream:
    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.commit = stream.flush

    def write(self, data: bytes | memoryview) -> None:
        """Append all of *data*: an unbuffered stream may take less at a time."""
        rest = memoryview(data)
        while len(rest):
            rest = rest[self._stream.write(rest) :]


@contextmanager
def open_output(destination: str | os.PathLike[str] | IO[bytes]) -> Iterator[Output]:
    """The output for *destination*; without a commit, no file is left."""
    if isinstance(destination, (str, os.PathLike)):
        with AtomicFile(destination) as file:
            yield _ToFile(file)
    else:
        yield _ToStream(destination)
