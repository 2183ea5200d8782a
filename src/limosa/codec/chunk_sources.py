"""The frames of a stream, with random access or in the order of a pipe."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from typing import IO

import numpy as np
from numpy.typing import NDArray

from limosa.codec.constants import END_MAGIC, FOOTER_BYTES, FRAME_HEAD_BYTES, chunk_count
from limosa.codec.frames import Frames
from limosa.codec.index import (
    Index,
    check_payload_length,
    frame_bytes,
    read_footer,
    read_index,
)
from limosa.codec.inputs import BinaryReader, RandomAccess, sequential
from limosa.codec.layout import read_header
from limosa.codec.sections import exactly
from limosa.errors import ConfigError, CorruptError, TruncatedError
from limosa.limits import Limits
from limosa.tensors import as_bytes

# Frames that a pipe must keep for later copies go to the disk beyond this.
_KEPT_IN_MEMORY = 32 * 2**20


class FileFrames:
    """Frames of a stream that fills bytes *start* to *end* of something with random access.

    Raises:
        FormatError: header, footer or index are damaged, or do not fit each other.
    """

    def __init__(self, source: RandomAccess, start: int, end: int, limits: Limits) -> None:
        self._source = source
        read = sequential(source, start, end, "header")
        self.layout, size = read_header(read, limits)
        first = start + size
        footer = source.read_at(max(end - FOOTER_BYTES, first), FOOTER_BYTES)
        offset, index_size = read_footer(footer[: max(end - first, 0)], END_MAGIC)
        index_start = start + offset
        if index_start < first or index_start + index_size + FOOTER_BYTES != end:
            raise CorruptError(
                "the footer does not point at the index",
                where="last 24 bytes",
                found=f"byte {offset}, {index_size} bytes",
                allowed=f"an end at byte {end - start - FOOTER_BYTES}",
            )
        index_read = sequential(source, index_start, end - FOOTER_BYTES, "index")
        self.index, used = read_index(index_read, self.layout.specs, limits)
        if used != index_size or frame_bytes(self.index.lengths) != index_start - first:
            raise CorruptError(
                "the index does not fit the file",
                where="index",
                found=f"{used} bytes, chunks of {frame_bytes(self.index.lengths)}",
                allowed=f"{index_size} bytes, chunks of {index_start - first}",
            )
        counts = [0, *map(chunk_count, self.layout.specs)]
        self.first_chunks: NDArray[np.int64] = np.cumsum(counts, dtype=np.int64)
        self._offsets = np.zeros(self.index.lengths.size + 1, dtype=np.int64)
        np.cumsum(self.index.lengths, dtype=np.int64, out=self._offsets[1:])
        self._offsets += np.arange(self._offsets.size) * FRAME_HEAD_BYTES + first

    @property
    def chunks_begin(self) -> int:
        """Where in the file the first frame begins."""
        return int(self._offsets[0])

    @property
    def chunks_end(self) -> int:
        """Where in the file the last frame ends."""
        return int(self._offsets[-1])

    def read(self, first: int, last: int) -> Frames:
        """The frames of tensors *first* to *last* - 1."""
        return self.read_chunks(int(self.first_chunks[first]), int(self.first_chunks[last]))

    def read_chunks(self, first: int, last: int) -> Frames:
        """The frames of chunks *first* to *last* - 1, counted over all tensors."""
        begin, end = int(self._offsets[first]), int(self._offsets[last])
        data = self._source.view(begin, end - begin)
        if data.nbytes != end - begin:
            raise TruncatedError(
                "the bytes end too early",
                where=f"byte {begin}",
                found=f"{data.nbytes} bytes",
                allowed=str(end - begin),
                remedy="fetch the file again",
            )
        return Frames(data, self.index.lengths[first:last], begin)


class PipeFrames:
    """Frames as they come out of a pipe; the index is checked when they are through.

    Tensors that later ones may copy are kept as frames: in memory, beyond 32 MiB in a
    temporary file. So memory is bounded, whatever the stream copies.
    """

    def __init__(self, stream: BinaryReader, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits
        self._offset = 0
        self.layout, _ = read_header(self._reader("header"), limits)
        self._next = 0
        self._lengths: list[NDArray[np.uint32]] = []
        self._kept: dict[int, tuple[int, int, NDArray[np.uint32], int]] = {}
        self._spool: IO[bytes] = tempfile.SpooledTemporaryFile(_KEPT_IN_MEMORY)  # noqa: SIM115

    def read(self, first: int, last: int) -> Frames:
        """The frames of tensors *first* to *last* - 1, which must be the next ones."""
        if first != self._next:
            raise ConfigError("a pipe is read in order", remedy="write it to a file first")
        self._next = last
        offset = self._offset
        parts: list[bytes] = []
        lengths: list[int] = []
        for number in range(first, last):
            place, begin = len(parts), self._offset
            for chunk in range(chunk_count(self.layout.specs[number])):
                head, payload = self._read_frame(number, chunk)
                parts += (head, payload)
                lengths.append(len(payload))
            if number in self.layout.kept:
                self._keep(number, parts[place:], begin)
        found = np.array(lengths, dtype=np.uint32)
        self._lengths.append(found)
        return Frames(as_bytes(b"".join(parts)), found, offset)

    def kept(self, number: int) -> Frames:
        """The frames of an earlier tensor that the layout names as kept."""
        begin, size, lengths, offset = self._kept[number]
        self._spool.seek(begin)
        return Frames(as_bytes(self._spool.read(size)), lengths, offset)

    def finish(self, *, alone: bool) -> Index:
        """Read index and footer, and compare them with what came through.

        *alone*: nothing may follow the footer.

        Raises:
            FormatError: they are damaged, or do not fit.
        """
        offset = self._offset
        index, size = read_index(self._reader("index"), self.layout.specs, self._limits)
        found = read_footer(self._reader("footer")(FOOTER_BYTES), END_MAGIC)
        lengths = np.concatenate(self._lengths) if self._lengths else np.zeros(0, np.uint32)
        if found != (offset, size) or not np.array_equal(lengths, index.lengths):
            raise CorruptError("index or footer do not fit the chunks", where=f"byte {offset}")
        if alone and self._stream.read(1):
            raise CorruptError(
                "bytes follow the footer",
                where=f"byte {self._offset}",
                remedy="of a file with layers say how many to take, or write it to a file first",
            )
        return index

    def _read_frame(self, number: int, chunk: int) -> tuple[bytes, bytes]:
        spec = self.layout.specs[number]
        where = f"tensor {spec.name!r}, chunk {chunk} (byte {self._offset})"
        head = exactly(self._stream.read, FRAME_HEAD_BYTES, where)
        length = int.from_bytes(head[:4], "little")
        check_payload_length(length, where, self._limits)
        payload = exactly(self._stream.read, length, where)
        self._offset += FRAME_HEAD_BYTES + length
        return head, payload

    def _keep(self, number: int, parts: Sequence[bytes], offset: int) -> None:
        begin = self._spool.seek(0, 2)
        self._spool.writelines(parts)
        lengths = np.array([len(payload) for payload in parts[1::2]], dtype=np.uint32)
        self._kept[number] = (begin, sum(map(len, parts)), lengths, offset)

    def _reader(self, where: str) -> Callable[[int], bytes]:
        def read(count: int) -> bytes:
            data = exactly(self._stream.read, count, f"{where} (byte {self._offset})")
            self._offset += count
            return data

        return read

    def close(self) -> None:
        """Remove the temporary file."""
        self._spool.close()
