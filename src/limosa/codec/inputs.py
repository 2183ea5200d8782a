"""Where a stream's bytes come from: memory, a mapped file, ranges of something far, or a pipe."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import IO, Protocol, runtime_checkable

from limosa.errors import ConfigError, TruncatedError
from limosa.files.mapped import map_file
from limosa.tensors import Bytes, as_bytes

# What is fetched at once from the beginning and the end of something far away.
_AHEAD = 2**16
_POURED = 16 * 2**20


@runtime_checkable
class ReadAt(Protocol):
    """Bytes with random access, such as HTTP ranges (:class:`limosa.files.http_range`)."""

    @property
    def size(self) -> int:
        """Bytes in all."""

    def read_at(self, offset: int, count: int) -> bytes:
        """The *count* bytes from *offset* on, fewer only at the end."""


class BinaryReader(Protocol):
    """What is needed of a pipe: ``read(n)`` gives n bytes, or fewer; none at the end."""

    def read(self, count: int, /) -> bytes:
        """The next *count* bytes, or fewer at the end."""


Input = str | os.PathLike[str] | bytes | bytearray | memoryview | ReadAt | BinaryReader


class Memory:
    """A buffer as :class:`ReadAt`, without copies."""

    def __init__(self, buffer: bytes | bytearray | memoryview | Bytes) -> None:
        self._data = as_bytes(buffer)

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self._data.nbytes

    def read_at(self, offset: int, count: int) -> bytes:
        """The *count* bytes from *offset* on, fewer only at the end."""
        return self._data[offset : offset + count].tobytes()

    def view(self, offset: int, count: int) -> Bytes:
        """The same without a copy."""
        return self._data[offset : offset + count]


class Far:
    """A :class:`ReadAt` whose beginning and end are fetched once, in larger pieces."""

    def __init__(self, source: ReadAt) -> None:
        self._source = source
        self.size = source.size
        self._head = source.read_at(0, min(self.size, _AHEAD))
        self._tail_start = max(self.size - _AHEAD, len(self._head))
        self._tail = source.read_at(self._tail_start, self.size - self._tail_start)

    def read_at(self, offset: int, count: int) -> bytes:
        """The *count* bytes from *offset* on, fewer only at the end."""
        if offset + count <= len(self._head):
            return self._head[offset : offset + count]
        if offset >= self._tail_start:
            return self._tail[offset - self._tail_start :][:count]
        return self._source.read_at(offset, min(count, self.size - offset))

    def view(self, offset: int, count: int) -> Bytes:
        """The same as an array."""
        return as_bytes(self.read_at(offset, count))


class FileAt:
    """An open file as bytes with random access."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size = file.seek(0, 2)

    def read_at(self, offset: int, count: int) -> bytes:
        """The *count* bytes from *offset* on, fewer only at the end."""
        self._file.seek(offset)
        return self._file.read(count)


def pour(file: IO[bytes], sink: Callable[[bytes], object]) -> None:
    """Give *sink* all of *file*, from its beginning, in large pieces."""
    file.seek(0)
    while piece := file.read(_POURED):
        sink(piece)


RandomAccess = Memory | Far


def open_input(source: Input) -> RandomAccess | BinaryReader:
    """Random access where *source* can give it, otherwise the pipe itself.

    Raises:
        ConfigError: *source* is none of the kinds of :data:`Input`.
        OSError: the file cannot be opened.
    """
    if isinstance(source, (str, os.PathLike)):
        return Memory(map_file(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return Memory(source)
    if isinstance(source, ReadAt):
        return Far(source)
    if hasattr(source, "read"):
        return source
    raise ConfigError(
        "cannot read from this",
        found=type(source).__name__,
        allowed="a path, bytes, a binary stream, or an object with size and read_at",
    )


def sequential(source: RandomAccess, offset: int, end: int, where: str) -> Callable[[int], bytes]:
    """A ``read(n)`` over the bytes from *offset* to *end* that gives exactly n bytes.

    It raises :class:`TruncatedError` when fewer are left.
    """
    position = offset

    def read(count: int) -> bytes:
        nonlocal position
        data = source.read_at(position, count) if position + count <= end else b""
        if len(data) != count:
            raise TruncatedError(
                "the bytes end too early",
                where=f"{where} (byte {position})",
                found=f"{max(0, end - position)} bytes",
                allowed=str(count),
                remedy="fetch the file again",
            )
        position += count
        return data

    return read
