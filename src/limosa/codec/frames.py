"""Chunk frames (docs/format.md 2.4) back to units: batches through the core, the rest here.

The core decodes every mode but tensor copies, which need another tensor, packed chunks and the two
lzma modes. Those take a whole chunk, so the first byte of each payload tells which is which.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from limosa import _core
from limosa.codec import packed
from limosa.codec.constants import (
    CHUNK_UNITS,
    FRAME_HEAD_BYTES,
    MODE_BASE_LZMA,
    MODE_LZMA,
    MODE_PACKED,
    MODE_TENSOR_COPY,
    UNIT_BYTES,
    core_dtype,
)
from limosa.codec.cursor import Cursor
from limosa.codec.layout import Layout
from limosa.codec.lzma_decimal import decode_payload
from limosa.errors import (
    ChecksumError,
    CorruptError,
    FormatError,
    LimitError,
    TruncatedError,
)
from limosa.tensors import Bytes, TensorSpec

_ERRORS: dict[str, type[FormatError]] = {
    "truncated": TruncatedError,
    "corrupt": CorruptError,
    "checksum": ChecksumError,
    "limit": LimitError,
}
_SPECIAL = np.zeros(256, dtype=bool)
_SPECIAL[[MODE_TENSOR_COPY, MODE_LZMA, MODE_BASE_LZMA, MODE_PACKED]] = True


class Piece(NamedTuple):
    """A tensor, or a run of its chunks from *first_chunk* on, to be decoded into *out*."""

    number: int
    spec: TensorSpec
    out: Bytes
    base: Bytes | None
    first_chunk: int = 0

    @property
    def chunks(self) -> int:
        """Chunks in the piece."""
        return -(-self.out.nbytes // (CHUNK_UNITS * UNIT_BYTES[self.spec.dtype]))


class Frames(NamedTuple):
    """Frames back to back, the lengths of their payloads, and where in the file they begin."""

    data: Bytes
    lengths: NDArray[np.uint32]
    offset: int


# Gives the bytes of an earlier tensor at the places of the piece that copies it.
CopySource = Callable[[int], Bytes]


def decode_pieces(
    layout: Layout,
    pieces: Sequence[Piece],
    frames: Frames,
    copy_source: CopySource,
    copied: set[int],
    threads: int,
) -> None:
    """Decode *frames*, which hold exactly the chunks of *pieces*, in order.

    *copied* holds the numbers of tensors known to be copies, and grows.

    Raises:
        TruncatedError, CorruptError, ChecksumError: naming tensor, chunk and byte of the file.
    """
    _Decoding(layout, pieces, frames, copy_source, copied, threads).run()


class _Decoding:
    def __init__(
        self,
        layout: Layout,
        pieces: Sequence[Piece],
        frames: Frames,
        copy_source: CopySource,
        copied: set[int],
        threads: int,
    ) -> None:
        self._layout = layout
        self._pieces = pieces
        self._frames = frames
        self._copy_source = copy_source
        self._copied = copied
        self._threads = threads
        # Where each frame begins in frames.data, and where the last one ends.
        self._starts = np.zeros(frames.lengths.size + 1, dtype=np.int64)
        np.cumsum(frames.lengths, dtype=np.int64, out=self._starts[1:])
        self._starts += np.arange(self._starts.size) * FRAME_HEAD_BYTES

    def run(self) -> None:
        """Runs of ordinary pieces go to the core together; others one by one."""
        modes = self._frames.data[self._starts[:-1] + FRAME_HEAD_BYTES]
        special = _SPECIAL[modes]
        if not special.any():
            self._decode_run(0, len(self._pieces), 0, modes.size)
            return
        chunk = run = run_chunk = 0
        for position, piece in enumerate(self._pieces):
            end = chunk + piece.chunks
            if special[chunk:end].any():
                self._decode_run(run, position, run_chunk, chunk)
                self._decode_special(position, modes[chunk:end].tolist(), chunk)
                run, run_chunk = position + 1, end
            chunk = end
        self._decode_run(run, len(self._pieces), run_chunk, chunk)

    def _decode_run(self, first: int, last: int, chunk: int, end: int) -> None:
        if chunk == end:
            return
        pieces = self._pieces[first:last]
        try:
            _core.decode_tensors(
                self._frames.data[self._starts[chunk] : self._starts[end]],
                self._frames.lengths[chunk:end],
                [piece.out for piece in pieces],
                [piece.base for piece in pieces],
                [core_dtype(piece.spec.dtype) for piece in pieces],
                [None] * len(pieces),
                digits=self._layout.digits,
                threads=self._threads,
            )
        except _core.CoreError as error:
            raise self._translate(error, pieces, chunk) from None

    def _decode_special(self, position: int, modes: list[int], chunk: int) -> None:
        piece = self._pieces[position]
        if MODE_TENSOR_COPY in modes:
            self._decode_copy(piece, chunk, len(modes))
            return
        size = CHUNK_UNITS * UNIT_BYTES[piece.spec.dtype]
        for i, mode in enumerate(modes):
            part = piece.out[i * size : (i + 1) * size]
            base = None if piece.base is None else piece.base[i * size : (i + 1) * size]
            if mode in (MODE_LZMA, MODE_BASE_LZMA, MODE_PACKED):
                where = self._place(piece, i, chunk + i, 0)
                payload = self._payload(piece, i, chunk + i)
                if mode == MODE_PACKED:
                    packed.decode_payload(payload, part, piece.spec.dtype, where)
                    continue
                decode_payload(payload, part, base, piece.spec.dtype, self._layout.digits, where)
            else:
                one = Piece(piece.number, piece.spec, part, base, piece.first_chunk + i)
                frame = self._one_frame(chunk + i)
                _Decoding(
                    self._layout, [one], frame, self._copy_source, self._copied, self._threads
                ).run()

    def _one_frame(self, chunk: int) -> Frames:
        start, end = int(self._starts[chunk]), int(self._starts[chunk + 1])
        return Frames(
            self._frames.data[start:end],
            self._frames.lengths[chunk : chunk + 1],
            self._frames.offset + start,
        )

    def _decode_copy(self, piece: Piece, chunk: int, count: int) -> None:
        """All chunks of a tensor copy name the same earlier tensor, and nothing else."""
        payloads = {self._payload(piece, i, chunk + i) for i in range(count)}
        where = self._place(piece, 0, chunk, 0)
        cursor = Cursor(min(payloads), where)
        mode, units = cursor.u8(), cursor.varint()
        if len(payloads) > 1 or mode != MODE_TENSOR_COPY or units != 0:
            raise CorruptError("a tensor copy that is not of the whole tensor", where=where)
        number = cursor.varint()
        cursor.finish()
        self._check_copy(piece, number, where)
        piece.out[:] = self._copy_source(number)
        self._copied.add(piece.number)

    def _check_copy(self, piece: Piece, number: int, where: str) -> None:
        kept = self._layout.kept
        problem = None
        if number >= piece.number or number not in kept:
            problem = "a copy of a tensor that is not earlier, or not kept for copies"
        elif number in self._copied:
            problem = "a copy of a tensor that is itself a copy"
        else:
            source = self._layout.specs[number]
            if (source.dtype, source.shape) != (piece.spec.dtype, piece.spec.shape):
                problem = "a copy of a tensor of another dtype or shape"
        if problem is not None:
            raise CorruptError(problem, where=where, found=f"tensor number {number}")

    def _payload(self, piece: Piece, i: int, chunk: int) -> bytes:
        """The payload of a frame, its length and checksum checked."""
        start, end = self._starts[chunk], self._starts[chunk + 1]
        frame = self._frames.data[start:end].tobytes()
        length = int.from_bytes(frame[:4], "little")
        payload = frame[FRAME_HEAD_BYTES:]
        where = self._place(piece, i, chunk, -FRAME_HEAD_BYTES)
        if length != len(payload):
            raise CorruptError(
                "the length of a chunk differs from the index",
                where=where,
                found=str(length),
                allowed=str(len(payload)),
            )
        if _core.crc32c(payload) != int.from_bytes(frame[4:8], "little"):
            raise ChecksumError(
                "the checksum differs", where=where, remedy="the file was damaged; fetch it again"
            )
        return payload

    def _place(self, piece: Piece, i: int, chunk: int, byte: int) -> str:
        """Tensor, chunk and byte of the file; *byte* counts from the start of the payload."""
        offset = self._frames.offset + int(self._starts[chunk]) + FRAME_HEAD_BYTES + byte
        return f"tensor {piece.spec.name!r}, chunk {piece.first_chunk + i} (byte {offset})"

    def _translate(
        self, error: _core.CoreError, pieces: Sequence[Piece], first: int
    ) -> FormatError:
        kind, position, i, byte, message = error.args
        piece = pieces[position]
        offset = self._frames.offset + int(self._starts[first]) + byte
        where = f"tensor {piece.spec.name!r}, chunk {piece.first_chunk + i} (byte {offset})"
        remedy = "the file was damaged; fetch it again" if kind == "checksum" else None
        return _ERRORS[kind](message, where=where, remedy=remedy)
