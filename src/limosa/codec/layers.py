"""Layers of quality in one file (docs/format.md 7): complete streams, each from the one before."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from limosa.codec.base import Base
from limosa.codec.constants import (
    END_MAGIC,
    FOOTER_BYTES,
    FRAME_HEAD_BYTES,
    MIN_FILE_BYTES,
    chunk_count,
)
from limosa.codec.decoder import Reader
from limosa.codec.encoder import EncodeResult, encode
from limosa.codec.index import read_footer, read_index
from limosa.codec.inputs import (
    Far,
    FileAt,
    Input,
    Memory,
    RandomAccess,
    open_input,
    pour,
    sequential,
)
from limosa.codec.layout import read_header
from limosa.codec.quality import Quality, Target
from limosa.errors import ConfigError, CorruptError, FormatError, TruncatedError
from limosa.files.bundle import Bundle
from limosa.limits import Limits
from limosa.tensors import Tensor

#: A decoder goes down the layers by recursion.
MAX_LAYERS = 16

Span = tuple[int, int]


def encode_layers(
    bundle: Bundle,
    sink: Callable[[bytes], object],
    qualities: Sequence[Quality],
    *,
    base: Base | None = None,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[EncodeResult]:
    """Encode *bundle* once for each of *qualities*, coarse to fine, each from the one before.

    A target in bytes or bits counts all layers up to its own.

    Raises:
        ConfigError: there are too few or too many layers, one is out of reach, or *bundle* reads
            from a pipe.

    Returns:
        One result a layer; its ``bytes_out`` is that of the layer alone.
    """
    if not 1 <= len(qualities) <= MAX_LAYERS or not bundle.random_access:
        raise ConfigError(
            "layers need a file and at least one quality",
            found=f"{len(qualities)} layers" + ("" if bundle.random_access else ", a pipe"),
            allowed=f"1 to {MAX_LAYERS} layers of a file",
        )
    results: list[EncodeResult] = []
    below: Base | None = None
    with ExitStack() as stack:
        for quality in qualities:
            spool = stack.enter_context(tempfile.TemporaryFile())
            sent = sum(result.bytes_out for result in results)
            result = encode(
                bundle,
                spool.write,
                base=base,
                below=below,
                quality=_less(quality, sent, bundle),
                threads=threads,
                progress=progress,
            )
            results.append(result)
            pour(spool, sink)
            below = Reader(FileAt(spool), base=below or base, threads=threads).as_base()
    return results


def open_layer(
    source: Input | RandomAccess,
    number: int | None = None,
    *,
    base: Base | None = None,
    limits: Limits | None = None,
    threads: int | None = None,
    verify: bool = False,
) -> Reader:
    """A reader of layer *number* (from 1 on; None: the last) of a file with or without layers.

    The layers below are decoded as they are needed, tensor by tensor; those of a pipe at once.
    What follows layer *number* need not be there.

    Raises:
        ConfigError: there is no such layer.
        FormatError, BaseMismatchError: as for :class:`Reader`.
    """
    opened = source if isinstance(source, Memory | Far) else open_input(source)
    limits = limits or Limits()
    if not isinstance(opened, Memory | Far):
        for _ in range(1, number or 1):
            below = Reader(opened, base=base, alone=False, limits=limits, threads=threads)
            base = _read_through(below)
        alone = number is None
        return Reader(opened, base=base, limits=limits, threads=threads, verify=verify, alone=alone)
    first, *others = layer_spans(opened, number, limits)
    verify_first = verify and not others
    reader = Reader(
        opened, base=base, span=first, limits=limits, threads=threads, verify=verify_first
    )
    for span in others:
        base = reader.as_base()
        reader = Reader(opened, base=base, span=span, limits=limits, threads=threads, verify=verify)
        if reader.base_digest is None:
            raise CorruptError("a layer that needs none below it", where=f"byte {span[0]}")
    return reader


def layer_spans(source: RandomAccess, number: int | None, limits: Limits) -> list[Span]:
    """Where the first *number* layers begin and end; all of them if it is None.

    Raises:
        ConfigError: there are fewer layers.
        FormatError: the file is damaged.
    """
    try:
        spans = _from_the_end(source)
    except FormatError:
        if number is None:
            # What is wrong with it is found, and named, by the reader of the whole.
            return [(0, source.size)]
        # A prefix of a file: its layers are found from the front, frame by frame.
        return _from_the_front(source, number, limits)
    if number is not None and not 1 <= number <= len(spans):
        raise ConfigError("no such layer", found=str(number), allowed=f"1 to {len(spans)}")
    return spans[:number]


def _from_the_end(source: RandomAccess) -> list[Span]:
    """A footer says where its stream begins, and so where the one before ends."""
    spans: list[Span] = []
    end = source.size
    while end > 0:
        footer = source.read_at(max(end - FOOTER_BYTES, 0), min(FOOTER_BYTES, end))
        offset, size = read_footer(footer, END_MAGIC)
        start = end - FOOTER_BYTES - size - offset
        if start < 0 or end - start < MIN_FILE_BYTES or len(spans) == MAX_LAYERS:
            raise CorruptError("footers do not fit", where=f"byte {end}")
        spans.append((start, end))
        end = start
    return spans[::-1] or [(0, 0)]


def _from_the_front(source: RandomAccess, number: int, limits: Limits) -> list[Span]:
    spans: list[Span] = []
    end = 0
    for _ in range(number):
        start, end = end, _end_of_stream(source, end, limits)
        spans.append((start, end))
    return spans


def _end_of_stream(source: RandomAccess, start: int, limits: Limits) -> int:
    layout, size = read_header(sequential(source, start, source.size, "header"), limits)
    position = start + size
    for spec in layout.specs:
        for _ in range(chunk_count(spec)):
            head = sequential(source, position, source.size, "chunk")(FRAME_HEAD_BYTES)
            position += FRAME_HEAD_BYTES + int.from_bytes(head[:4], "little")
    read = sequential(source, position, source.size, "index")
    _, used = read_index(read, layout.specs, limits)
    end = position + used + FOOTER_BYTES
    if end > source.size:
        raise TruncatedError("the layer ends too early", where=f"byte {position}")
    return end


def _read_through(reader: Reader) -> Base:
    """All of a layer that comes through a pipe, as the base of the next one."""
    decoded = reader.read_all()
    tensors = {s.name: Tensor(s.dtype, s.shape, decoded[s.name]) for s in reader.specs}
    specs = {spec.name: spec for spec in reader.specs}
    return Base(tensors.get, reader.digest, specs=specs, digests=reader.tensor_digests)


def _less(quality: Quality, sent: int, bundle: Bundle) -> Quality:
    """*quality* without the bytes that the layers before took."""
    if not isinstance(quality, Target) or quality.snr is not None:
        return quality
    elements = sum(spec.elements for spec in bundle.specs)
    left = (quality.wanted_bytes(bundle.nbytes, elements) or 0) - sent
    if left <= 0:
        raise ConfigError(
            "a layer has no bytes left", found=str(quality), allowed=f"more than {sent} bytes"
        )
    return Target(size=int(left), effort=quality.effort, keep=quality.keep, lossy=quality.lossy)
