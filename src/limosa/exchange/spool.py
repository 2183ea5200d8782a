"""What a stream holds, found out from its first bytes; and streams that need to be files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from limosa.codec.constants import MAGIC, REFINEMENT_MAGIC, SET_MAGIC
from limosa.codec.inputs import BinaryReader
from limosa.codec.opening import Path, is_set
from limosa.codec.sections import read_up_to
from limosa.codec.set_reader import SetReader
from limosa.errors import ConfigError
from limosa.limits import Limits

_BLOCK = 2**20


@dataclass(frozen=True)
class Opened:
    """A stream of one model, or the models of a set. A refinement from a pipe is held whole."""

    stream: Path | BinaryReader | bytes
    models: SetReader | None


class _Again:
    """A stream whose first bytes were read already."""

    def __init__(self, head: bytes, stream: IO[bytes]) -> None:
        self._head = head
        self._stream = stream

    def read(self, count: int, /) -> bytes:
        """The next *count* bytes, or fewer."""
        if not self._head:
            return self._stream.read(count)
        taken, self._head = self._head[:count], self._head[count:]
        return taken


@contextmanager
def open_stream(
    source: Path | IO[bytes], *, limits: Limits | None, threads: int | None
) -> Iterator[Opened]:
    """What *source* holds. A set that comes through a pipe is written to a temporary file."""
    if isinstance(source, (str, os.PathLike)):
        if not os.path.isfile(source):
            raise ConfigError("no such file", where=os.fspath(source), remedy="check the path")
        models = SetReader(source, limits=limits, threads=threads) if is_set(source) else None
        yield Opened(source, models)
        return
    head = read_up_to(source.read, len(MAGIC))
    again = _Again(head, source)
    if head == REFINEMENT_MAGIC:
        yield Opened(_read_whole(again, limits or Limits()), None)
        return
    if head != SET_MAGIC:
        yield Opened(again, None)
        return
    with to_file(again, ".limosa") as path:
        yield Opened(path, SetReader(path, limits=limits, threads=threads))


def _read_whole(stream: BinaryReader, limits: Limits) -> bytes:
    """All bytes of a refinement; one more than its limit allows at most."""
    return read_up_to(stream.read, limits.max_header_bytes + _BLOCK)


@contextmanager
def to_file(stream: BinaryReader, suffix: str) -> Iterator[str]:
    """The path of a temporary file with all that *stream* holds."""
    with tempfile.TemporaryDirectory(prefix="limosa-") as folder:
        path = os.path.join(folder, "stream" + suffix)
        with open(path, "wb") as file:
            while block := stream.read(_BLOCK):
                file.write(block)
        yield path
