"""From tensors to a stream."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

from limosa import _core
from limosa.codec.base import Base
from limosa.codec.config import Digits, Lossless, thread_count
from limosa.codec.constants import (
    BATCH_BYTES,
    BATCH_TENSORS,
    COPY_MIN_BYTES,
    MODE_TENSOR_COPY,
    chunk_count,
    core_dtype,
)
from limosa.codec.cursor import put_varint
from limosa.codec.digests import digests_of
from limosa.codec.frames import Frames, Piece, decode_pieces
from limosa.codec.index import Index, write_index
from limosa.codec.inputs import pour
from limosa.codec.layout import Layout, write_header
from limosa.codec.lossy import Loss, encode_lossy
from limosa.codec.packed import encode_run
from limosa.codec.plan import Plan, make_plan
from limosa.codec.quality import Described, Lossy, Quality, Step, Target
from limosa.codec.quantize import row_units
from limosa.codec.rate import ATTEMPTS, Attempt, find_step
from limosa.codec.sections import frame
from limosa.errors import ConfigError
from limosa.files.bundle import Bundle
from limosa.tensors import Bytes, TensorSpec, state_digest

# What an attempt writes beyond this goes to a temporary file.
_SPOOL_BYTES = 64 * 2**20
# For a result that is kept whole anyway: longer runs for the threads.
_WHOLE_BATCH_BYTES = 256 * 2**20


@dataclass(frozen=True)
class EncodeResult:
    """What came of an encoding.

    Attributes:
        bytes_in: bytes of all tensors.
        bytes_out: bytes of the stream.
        digest: the state digest of what decoding gives.
        snr: signal-to-noise ratio in dB over the float tensors that are not kept (see
            :class:`limosa.codec.quality.Lossy`); infinite without loss. The signal is the weights
            or, against a base, their differences from it.
        max_error: the largest error of an element of those tensors.
    """

    bytes_in: int
    bytes_out: int
    digest: bytes
    snr: float = math.inf
    max_error: float = 0.0


def encode(
    bundle: Bundle,
    sink: Callable[[bytes], object],
    *,
    base: Base | None = None,
    below: Base | None = None,
    quality: Quality | None = None,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> EncodeResult:
    """Encode *bundle* and give the stream to *sink* in large pieces, in order.

    Args:
        bundle: the tensors; over a pipe, one batch of them is in memory at a time.
        sink: is called with buffers that nobody changes afterwards.
        base: tensors that the receiver holds.
        below: what a coarser layer of the same file decodes to; it is coded against in place of
            *base*, but *base* still says what the signal is whose noise is measured.
        quality: :class:`Lossless` unless given.
        threads: how many to use; None for all processors. The stream does not depend on it.
        progress: is called with the number of tensor bytes done since the last call.

    Raises:
        ConfigError: a setting is out of range.
        LimosaError: whatever reading *bundle* raises.

    >>> from limosa.files import bundle_from_tensors
    >>> parts = []
    >>> encode(bundle_from_tensors({}), parts.append).bytes_in
    0
    """
    count = thread_count(threads)
    if isinstance(quality, Target):
        return _encode_to_target(bundle, sink, base, below, quality, count, progress)
    encoding = _Encoding(bundle, sink, base, quality or Lossless(), count, below)
    return encoding.run(BATCH_BYTES, progress)


def encode_to_bytes(
    bundle: Bundle,
    *,
    base: Base | None = None,
    quality: Quality | None = None,
    threads: int | None = None,
) -> bytes:
    """Encode *bundle*, which is in memory, into one piece; see :func:`encode`.

    >>> from limosa.files import bundle_from_tensors
    >>> len(encode_to_bytes(bundle_from_tensors({})))
    94
    """
    if isinstance(quality, Target):
        parts: list[bytes] = []
        encode(bundle, parts.append, base=base, quality=quality, threads=threads)
        return b"".join(parts)
    encoding = _Encoding(bundle, None, base, quality or Lossless(), thread_count(threads))
    encoding.run(_WHOLE_BATCH_BYTES, None)
    return encoding.out.take()


def _encode_to_target(
    bundle: Bundle,
    sink: Callable[[bytes], object],
    base: Base | None,
    below: Base | None,
    target: Target,
    threads: int,
    progress: Callable[[int], None] | None,
) -> EncodeResult:
    """Encode with several steps, and give *sink* the one that reaches *target*."""
    runs = 0
    # The last attempt: nearly always the one that is taken, and the only one that is kept.
    result: EncodeResult | None = None
    spool: IO[bytes] = tempfile.SpooledTemporaryFile(_SPOOL_BYTES)  # noqa: SIM115

    def run(quality: Step, to: Callable[[bytes], object]) -> EncodeResult:
        nonlocal runs
        runs += 1
        described = Described(f"{target} step={quality.size:g}")
        encoding = _Encoding(bundle, to, base, quality, threads, below, described)
        return encoding.run(BATCH_BYTES, share)

    def share(done: int) -> None:
        if progress is not None:
            progress(done // ATTEMPTS)

    def attempt(quality: Step) -> Attempt:
        nonlocal result
        spool.seek(0)
        spool.truncate()
        result = run(quality, spool.write)
        return Attempt(quality, result.bytes_out, result.snr)

    with spool:
        found, is_last = find_step(target, bundle, below or base, attempt)
        if is_last and result is not None:
            pour(spool, sink)
        else:
            result = run(found.quality, sink)
    if progress is not None:
        progress(bundle.nbytes - runs * (bundle.nbytes // ATTEMPTS))
    return result


class _Encoding:
    def __init__(
        self,
        bundle: Bundle,
        sink: Callable[[bytes], object] | None,
        base: Base | None,
        quality: Quality,
        threads: int,
        below: Base | None = None,
        described: Described | None = None,
    ) -> None:
        if not isinstance(quality, (Lossless, Digits, Lossy)):
            raise ConfigError(
                "unknown quality", found=repr(quality), allowed="Lossless, Digits, Step, Target …"
            )
        self._bundle = bundle
        self._sink = sink
        self._origin, self._below = base, below
        self._base = base = base if below is None else below
        self._quality = quality
        self._threads = threads
        # What the sink was not given yet; everything, if there is none.
        self.out = _core.OutputBuffer()
        self._given = 0
        self._digests: list[bytes] = []
        self._lengths: list[NDArray[np.uint32]] = []
        self._loss = Loss()
        self._plan: Plan = make_plan(bundle, base, quality, threads)
        # Only over a pipe: form and digest of a tensor -> its number.
        self._seen: dict[tuple[str, tuple[int, ...], bytes], int] = {}
        self._layout = Layout(
            specs=tuple(bundle.specs),
            sources=tuple(bundle.sources),
            quality=quality if described is None else described,
            base_digest=None if base is None else base.digest,
            base_names=self._plan.base_names,
            kept=self._plan.kept,
        )

    def run(self, batch_bytes: int, progress: Callable[[int], None] | None) -> EncodeResult:
        self.out.append(write_header(self._layout))
        batch: list[tuple[TensorSpec, Bytes]] = []
        held = total = 0
        for spec, data in self._bundle:
            if batch and (held + data.nbytes > batch_bytes or len(batch) >= BATCH_TENSORS):
                self._flush(batch, progress, held)
                held = 0
            batch.append((spec, data))
            held += data.nbytes
            total += data.nbytes
        self._flush(batch, progress, held)
        digest = self._write_index()
        self._give()
        return EncodeResult(total, self._written, digest, self._loss.snr, self._loss.largest)

    @property
    def _written(self) -> int:
        return self._given + len(self.out)

    def _give(self) -> None:
        if self._sink is not None:
            self._given += len(self.out)
            self._sink(self.out.take())

    def _write_index(self) -> bytes:
        names = [spec.name for spec in self._layout.specs]
        state = state_digest(zip(names, self._digests, strict=True))
        lengths = np.concatenate(self._lengths) if self._lengths else np.zeros(0, np.uint32)
        counts = [chunk_count(spec) for spec in self._layout.specs]
        index = Index(lengths, tuple(self._digests), state)
        self.out.append(write_index(index, counts, self._written))
        return state

    def _flush(
        self,
        batch: list[tuple[TensorSpec, Bytes]],
        progress: Callable[[int], None] | None,
        held: int,
    ) -> None:
        if not batch:
            return
        first = len(self._digests)
        # With loss it is the decoded tensors whose digests count.
        exact = isinstance(self._quality, Lossless)
        digests = digests_of(batch, self._threads) if exact or self._plan.look_back else []
        copies = self._copies(first, batch, digests)
        for start, end, source in _runs(len(batch), copies):
            run = batch[start:end]
            if source is not None:
                self._lengths.append(_put_copy(self.out, run[0][0], source))
                self._digests.append(self._digests[source])
            elif isinstance(self._quality, Lossless):
                self._encode_run(run, self._base_data(first + start, run), self._quality)
                self._digests += digests[start:end]
            else:
                self._encode_lossy(first + start, run)
        batch.clear()
        self._give()
        if progress is not None:
            progress(held)

    def _copies(
        self, first: int, batch: Sequence[tuple[TensorSpec, Bytes]], digests: Sequence[bytes]
    ) -> dict[int, int]:
        """Positions in the batch that are copies -> number of the tensor copied."""
        if not self._plan.look_back:
            found = {n - first: self._plan.copies.get(n) for n in range(first, first + len(batch))}
            return {position: source for position, source in found.items() if source is not None}
        copies = {}
        for position, ((spec, data), digest) in enumerate(zip(batch, digests, strict=True)):
            number = first + position
            source = self._seen.setdefault((spec.dtype, spec.shape, digest), number)
            if source != number and spec.nbytes >= COPY_MIN_BYTES:
                (base,) = self._base_data(number, [(spec, data)])
                if base is None or not np.array_equal(base, data):
                    copies[position] = source
        return copies

    def _base_data(self, first: int, run: Sequence[tuple[TensorSpec, Bytes]]) -> list[Bytes | None]:
        if self._base is None:
            return [None] * len(run)
        names = self._plan.base_names
        return [
            self._base.data(spec.name if names is None else names[first + i], spec)
            for i, (spec, _) in enumerate(run)
        ]

    def _encode_run(
        self,
        run: Sequence[tuple[TensorSpec, Bytes]],
        bases: list[Bytes | None],
        quality: Lossless,
    ) -> None:
        fast = quality.effort == 1

        def core(start: int, end: int, out: _core.OutputBuffer) -> NDArray[np.uint32]:
            return _core.encode_tensors(
                [data for _, data in run[start:end]],
                bases[start:end],
                [core_dtype(spec.dtype) for spec, _ in run[start:end]],
                digits=-1,
                threads=self._threads,
                columns=[0 if fast else row_units(spec) for spec, _ in run[start:end]],
                out=out,
            )

        self._lengths.append(
            core(0, len(run), self.out)
            if fast
            else encode_run(self.out, run, [base is None for base in bases], core, self._threads)
        )

    def _encode_lossy(self, first: int, run: Sequence[tuple[TensorSpec, Bytes]]) -> None:
        """Encode, decode what was written, and record the digests and the loss of that."""
        bases = self._base_data(first, run)
        begin = len(self.out)
        self._lengths.append(encode_lossy(self.out, run, bases, self._quality, self._threads))
        decoded = self._decode(first, run, bases, begin)
        self._digests += digests_of(decoded, self._threads)
        self._loss.add(run, decoded, self._signals(run, bases), self._quality)

    def _signals(
        self, run: Sequence[tuple[TensorSpec, Bytes]], bases: list[Bytes | None]
    ) -> list[Bytes | None]:
        """What the signal is a difference from, tensor by tensor; None: it is the weights."""
        if self._below is None:
            return bases
        origin = self._origin
        return [None if origin is None else origin.data(spec.name, spec) for spec, _ in run]

    def _decode(
        self,
        first: int,
        run: Sequence[tuple[TensorSpec, Bytes]],
        bases: Sequence[Bytes | None],
        begin: int,
    ) -> list[tuple[TensorSpec, Bytes]]:
        """What decoding the frames from *begin* on in the buffer gives."""
        frames = np.frombuffer(self.out.tail(begin), np.uint8)
        outs = [np.empty(data.nbytes, np.uint8) for _, data in run]
        pieces = [Piece(first + i, spec, outs[i], bases[i]) for i, (spec, _) in enumerate(run)]
        held = Frames(frames, self._lengths[-1], self._given + begin)
        decode_pieces(self._layout, pieces, held, _no_source, set(), self._threads)
        return [(spec, out) for (spec, _), out in zip(run, outs, strict=True)]


def _runs(size: int, copies: dict[int, int]) -> list[tuple[int, int, int | None]]:
    """The batch as runs to encode (start, end, None) and single copies (start, end, source)."""
    runs: list[tuple[int, int, int | None]] = []
    start = 0
    for position, source in sorted(copies.items()):
        if start < position:
            runs.append((start, position, None))
        runs.append((position, position + 1, source))
        start = position + 1
    if start < size:
        runs.append((start, size, None))
    return runs


def _put_copy(out: _core.OutputBuffer, spec: TensorSpec, source: int) -> NDArray[np.uint32]:
    payload = bytearray([MODE_TENSOR_COPY, 0])
    put_varint(payload, source)
    count = chunk_count(spec)
    out.append(frame(bytes(payload)) * count)
    return np.full(count, len(payload), np.uint32)


def _no_source(number: int) -> Bytes:
    raise AssertionError(f"an encoder never copies within a batch: {number}")
