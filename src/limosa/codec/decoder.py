"""From a stream to tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from types import TracebackType

import numpy as np

from limosa.codec.base import Base, no_base
from limosa.codec.chunk_sources import FileFrames, PipeFrames
from limosa.codec.config import thread_count
from limosa.codec.constants import (
    BATCH_BYTES,
    BATCH_TENSORS,
    CHUNK_UNITS,
    UNIT_BYTES,
)
from limosa.codec.frames import Frames, Piece, decode_pieces
from limosa.codec.index import Index
from limosa.codec.inputs import Far, Input, Memory, RandomAccess, open_input
from limosa.codec.quality import StreamQuality
from limosa.codec.results import DigestCheck, allocate, check_digest, check_out
from limosa.errors import ConfigError, CorruptError
from limosa.files.beginnings import in_file
from limosa.files.bundle import Source
from limosa.limits import Limits
from limosa.tensors import Bytes, Tensor, TensorSpec

# Results that are all kept anyway: larger batches give the threads longer runs.
_LOAD_BATCH_BYTES = 256 * 2**20


class Reader:
    """Decodes one stream, from a file, from memory, over ranges or from a pipe.

    Args:
        source: a path, bytes, an object with ``size`` and ``read_at(offset, n)``, or a binary
            stream, which is read in order and once.
        base: the tensors that the stream was coded against, if it was.
        limits: what it may ask for; checked before memory is allocated.
        threads: how many to use; None for all processors.
        verify: also compare the digests of what was decoded. Checksums are always compared.

    Raises:
        FormatError: the stream is damaged or hostile; the subclass says how.
        BaseMismatchError: *base* is not the one that the stream was coded against.
    """

    def __init__(
        self,
        source: Input | RandomAccess,
        *,
        base: Base | None = None,
        limits: Limits | None = None,
        threads: int | None = None,
        verify: bool = False,
        span: tuple[int, int] | None = None,
        alone: bool = True,
    ) -> None:
        self._limits = limits or Limits()
        self._threads = thread_count(threads)
        self._verify = verify
        self._alone = alone
        self._frames = _open_frames(source, span, self._limits)
        self.layout = self._frames.layout
        self._index = self._frames.index if isinstance(self._frames, FileFrames) else None
        self._base = base
        if base is not None:
            self._check_base(base)
        self._sizes = [spec.nbytes for spec in self.specs]
        self._numbers = {spec.name: number for number, spec in enumerate(self.specs)}
        self._started = False
        # Tensors met so far that are copies, and so cannot be copied.
        self._copied: set[int] = set()

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """The tensors, in order."""
        return self.layout.specs

    @property
    def sources(self) -> tuple[Source, ...]:
        """The files that the tensors came from."""
        return self.layout.sources

    @property
    def quality(self) -> StreamQuality:
        """How exactly the tensors are coded."""
        return self.layout.quality

    @property
    def base_digest(self) -> bytes | None:
        """The state digest of the base, or None."""
        return self.layout.base_digest

    @property
    def random_access(self) -> bool:
        """Whether single tensors can be read; false for a pipe."""
        return isinstance(self._frames, FileFrames)

    @property
    def digest(self) -> bytes:
        """The state digest of what is decoded; of a pipe it is known at the end.

        Raises:
            ConfigError: the pipe is not at its end.
        """
        return self._known_index().state

    @property
    def tensor_digests(self) -> Mapping[str, bytes]:
        """The first 8 bytes of each tensor's digest; of a pipe they are known at the end."""
        digests = self._known_index().digests
        return {spec.name: digest for spec, digest in zip(self.specs, digests, strict=True)}

    def __iter__(self) -> Iterator[tuple[TensorSpec, Bytes]]:
        """The tensors in order, as 1-D ``uint8`` arrays; a few are decoded at a time."""
        check = DigestCheck(self.specs, self._threads) if self._verify else None
        for first, last in self._batches(BATCH_BYTES):
            specs = self.specs[first:last]
            outs = [allocate(spec) for spec in specs]
            self._decode(first, outs, self._copy_source(first, outs))
            tensors = list(zip(specs, outs, strict=True))
            if check is not None:
                check.add(tensors)
            yield from tensors
        self._finish(check)

    def read_all(self, outs: Mapping[str, Bytes] | None = None) -> dict[str, Bytes]:
        """All tensors, into *outs* where it has an array of the name.

        Raises:
            ConfigError: an array of *outs* is of no tensor, or does not fit.
            LimitError: the memory of this machine does not suffice.
        """
        supplied = self._check_outs(outs or {})
        results = [
            supplied[spec.name] if spec.name in supplied else allocate(spec) for spec in self.specs
        ]
        check = DigestCheck(self.specs, self._threads) if self._verify else None
        for first, last in self._batches(_LOAD_BATCH_BYTES):
            self._decode(first, results[first:last], results.__getitem__)
            if check is not None:
                check.add(list(zip(self.specs[first:last], results[first:last], strict=True)))
        self._finish(check)
        return {spec.name: data for spec, data in zip(self.specs, results, strict=True)}

    def get(self, name: str, out: Bytes | None = None) -> Tensor:
        """One tensor, without reading the others.

        Raises:
            ConfigError: there is none of that name, *out* does not fit, or this is a pipe.
        """
        number = self._number(name)
        spec = self.specs[number]
        data = allocate(spec) if out is None else check_out(spec, out)
        frames = self._random()
        piece = Piece(number, spec, data, self._base_data(number))
        self._decode_pieces([piece], frames.read(number, number + 1), self._decode_one)
        if self._verify:
            check_digest(spec, data, frames.index.digests[number], self._threads)
        return Tensor(spec.dtype, spec.shape, data)

    def get_slice(self, name: str, start: int, stop: int) -> Tensor:
        """Rows *start* to *stop* - 1 of the first axis; only their chunks are read.

        Raises:
            ConfigError: the tensor has no axis, the range is not inside it, or packed elements
                of the rows do not fill whole bytes.
        """
        number = self._number(name)
        spec = self.specs[number]
        rows = spec.shape[0] if spec.shape else 0
        if not spec.shape or not 0 <= start <= stop <= rows:
            raise ConfigError(
                "no such rows",
                where=f"tensor {name!r}",
                found=f"{start} to {stop}",
                allowed=f"within 0 to {rows}" if spec.shape else "a tensor with an axis",
            )
        begin, end = (spec.nbytes * row // max(rows, 1) for row in (start, stop))
        if any(spec.nbytes * row % max(rows, 1) for row in (start, stop)):
            raise ConfigError(
                "rows of packed elements that do not fill whole bytes",
                where=f"tensor {name!r}",
                remedy="read the whole tensor",
            )
        shape = (stop - start, *spec.shape[1:])
        data = self._decode_range(
            number,
            begin,
            end,
            lambda source, start, stop: self._decode_range(source, start, stop, _refuse_chain),
        )
        return Tensor(spec.dtype, shape, data)

    def verify(self) -> bytes:
        """Decode everything, compare every digest, and return the state digest.

        Raises:
            ChecksumError: a digest differs.
        """
        self._verify = True
        for _ in self:
            pass
        return self.digest

    def as_base(self, name: str = "") -> Base:
        """The decoded tensors as a base for another stream.

        Args:
            name: of the file, to be told with what is found wrong in it later.

        Raises:
            ConfigError: this is a pipe.
        """
        frames = self._random()

        def get(tensor: str) -> Tensor | None:
            with in_file(name) if name else nullcontext():
                return self.get(tensor) if tensor in self._numbers else None

        specs = {spec.name: spec for spec in self.specs}
        return Base(
            get,
            frames.index.state,
            specs=specs,
            digests=self.tensor_digests,
            sources=self.sources,
        )

    def check_ready(self) -> None:
        """Check that the base is there if one is needed, before any output is begun.

        Raises:
            BaseMismatchError: it is not.
        """
        if self.layout.base_digest is not None and self._base is None:
            raise no_base(self.layout.base_digest)

    def close(self) -> None:
        """Let go of the input. Arrays that were handed out stay valid."""
        if isinstance(self._frames, PipeFrames):
            self._frames.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _check_base(self, base: Base) -> None:
        if self.layout.base_digest is not None:
            base.check(self.layout.base_digest)

    def _base_data(self, number: int) -> Bytes | None:
        self.check_ready()
        if self._base is None:
            return None
        return self._base.data(self.layout.base_name(number), self.specs[number])

    def _batches(self, size: int) -> Iterator[tuple[int, int]]:
        """Runs of tensors of about *size* bytes together; one tensor at least."""
        if self._started and not self.random_access:
            raise ConfigError("a pipe can be read once", remedy="write it to a file first")
        self._started = True
        first, held = 0, 0
        for number, nbytes in enumerate(self._sizes):
            if number > first and (held + nbytes > size or number - first >= BATCH_TENSORS):
                yield first, number
                first, held = number, 0
            held += nbytes
        if first < len(self.specs):
            yield first, len(self.specs)

    def _decode(self, first: int, outs: list[Bytes], source: Callable[[int], Bytes]) -> None:
        last = first + len(outs)
        pieces = [
            Piece(number, self.specs[number], out, self._base_data(number))
            for number, out in zip(range(first, last), outs, strict=True)
        ]
        frames = self._frames.read(first, last)
        self._decode_pieces(pieces, frames, source)

    def _decode_pieces(
        self, pieces: list[Piece], frames: Frames, source: Callable[[int], Bytes]
    ) -> None:
        decode_pieces(self.layout, pieces, frames, source, self._copied, self._threads)

    def _copy_source(self, first: int, outs: list[Bytes]) -> Callable[[int], Bytes]:
        """Copies come from the batch in hand; beyond it, the source is decoded again."""
        return lambda number: outs[number - first] if number >= first else self._decode_one(number)

    def _decode_one(self, number: int) -> Bytes:
        """A tensor that another copies."""
        frames: Frames
        if isinstance(self._frames, FileFrames):
            frames = self._frames.read(number, number + 1)
        else:
            frames = self._frames.kept(number)
        spec = self.specs[number]
        piece = Piece(number, spec, allocate(spec), self._base_data(number))
        self._decode_pieces([piece], frames, _refuse_chain)
        return piece.out

    def _decode_range(
        self, number: int, begin: int, end: int, source: Callable[..., Bytes]
    ) -> Bytes:
        """Bytes *begin* to *end* of a tensor, from the chunks that they touch."""
        spec = self.specs[number]
        if begin == end:
            return np.empty(0, np.uint8)
        size = CHUNK_UNITS * UNIT_BYTES[spec.dtype]
        first, last = begin // size, -(-end // size)
        span = slice(first * size, min(last * size, spec.nbytes))
        base = self._base_data(number)
        piece = Piece(
            number,
            spec,
            np.empty(span.stop - span.start, np.uint8),
            None if base is None else base[span],
            first,
        )
        frames = self._random()
        chunk = int(frames.first_chunks[number])
        self._decode_pieces(
            [piece],
            frames.read_chunks(chunk + first, chunk + last),
            lambda copied: source(copied, span.start, span.stop),
        )
        return piece.out[begin - span.start : end - span.start]

    def _finish(self, check: DigestCheck | None) -> None:
        if isinstance(self._frames, PipeFrames):
            self._index = self._frames.finish(alone=self._alone)
            self._frames.close()
        if check is not None:
            check.finish(self._known_index())

    def _known_index(self) -> Index:
        if self._index is None:
            raise ConfigError("the digests of a pipe come at its end", remedy="read it through")
        return self._index

    def _random(self) -> FileFrames:
        if not isinstance(self._frames, FileFrames):
            raise ConfigError(
                "a pipe gives its tensors in order only", remedy="write it to a file first"
            )
        return self._frames

    def _number(self, name: str) -> int:
        try:
            return self._numbers[name]
        except KeyError:
            raise ConfigError("no such tensor", where=f"tensor {name!r}") from None

    def _check_outs(self, outs: Mapping[str, Bytes]) -> Mapping[str, Bytes]:
        for name, out in outs.items():
            check_out(self.specs[self._number(name)], out)
        return outs


def _refuse_chain(number: int, *_: int) -> Bytes:
    raise CorruptError("a copy of a tensor that is itself a copy", found=f"tensor number {number}")


def _open_frames(
    source: Input | RandomAccess, span: tuple[int, int] | None, limits: Limits
) -> FileFrames | PipeFrames:
    opened = source if isinstance(source, Memory | Far) else open_input(source)
    if isinstance(opened, Memory | Far):
        start, end = span or (0, opened.size)
        return FileFrames(opened, start, end, limits)
    return PipeFrames(opened, limits)
