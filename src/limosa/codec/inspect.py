"""Where the bytes of a file went: per tensor and per block mode."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field, replace

from limosa.codec.blocks import find_blocks
from limosa.codec.chunk_sources import FileFrames
from limosa.codec.constants import (
    CHUNK_UNITS,
    FRAME_HEAD_BYTES,
    MODE_NAMES,
    SET_MAGIC,
    unit_count,
)
from limosa.codec.inputs import Far, Input, Memory, open_input
from limosa.codec.layers import layer_spans
from limosa.codec.quality import StreamQuality
from limosa.codec.set_reader import SetReader
from limosa.errors import ConfigError
from limosa.files.bundle import Source
from limosa.limits import Limits
from limosa.tensors import TensorSpec


@dataclass(frozen=True)
class TensorReport:
    """One tensor.

    Attributes:
        spec: name, dtype and shape.
        nbytes: bytes of its frames in the file.
        modes: name of a block mode -> units and bytes coded so; frame heads are not in them.
        base_name: the name of its base tensor, where the stream has a base and it has one.
    """

    spec: TensorSpec
    nbytes: int
    modes: dict[str, tuple[int, int]]
    base_name: str | None


@dataclass(frozen=True)
class Report:
    """One stream, or one model of a set.

    Attributes:
        model: its name in the set; empty for a file of one model.
        layer: its number from 1 on in a file with layers of quality; 0 in others.
        nbytes: bytes of the stream.
        header_bytes, frame_bytes, index_bytes: its parts; frames include their heads.
        raw_bytes: bytes of the decoded tensors.
        quality: how exactly it is coded.
        base_digest: the state digest of its base, or None.
        base_model: the model of the set that is its base, or None.
        digest: the state digest of what it decodes to.
        tensors: each tensor, in order.
        sources: the files that the tensors came from.
    """

    nbytes: int
    header_bytes: int
    frame_bytes: int
    index_bytes: int
    raw_bytes: int
    quality: StreamQuality
    base_digest: bytes | None
    digest: bytes
    tensors: tuple[TensorReport, ...]
    sources: tuple[Source, ...]
    model: str = ""
    layer: int = 0
    base_model: str | None = None
    modes: dict[str, tuple[int, int]] = field(default_factory=dict)


def inspect(source: Input, *, limits: Limits | None = None) -> list[Report]:
    """A report for each model in *source*, or for each of its layers of quality.

    Nothing is decoded, so the base of an update is not needed; only lengths are checked.

    Raises:
        FormatError: the file is damaged or hostile.
        ConfigError: there is no such file, or *source* is a pipe.
    """
    if isinstance(source, (str, os.PathLike)) and not os.path.isfile(source):
        raise ConfigError("no such file", where=os.fspath(source), remedy="check the path")
    opened = open_input(source)
    limits = limits or Limits()
    if not isinstance(opened, Memory | Far):
        raise ConfigError("a pipe is not inspected", remedy="write it to a file first")
    if opened.read_at(0, len(SET_MAGIC)) != SET_MAGIC:
        spans = layer_spans(opened, None, limits)
        return [
            replace(
                _report(FileFrames(opened, start, end, limits), start, end),
                layer=number if len(spans) > 1 else 0,
            )
            for number, (start, end) in enumerate(spans, 1)
        ]
    models = SetReader(opened, limits=limits)
    reports = []
    for name in models.names:
        start, end = models.span(name)
        frames = FileFrames(opened, start, end, limits)
        reports.append(_report(frames, start, end, name, models.base_of(name)))
    return reports


def _report(
    frames: FileFrames, start: int, end: int, model: str = "", base_model: str | None = None
) -> Report:
    layout = frames.layout
    tensors = tuple(_tensor_report(frames, number) for number in range(len(layout.specs)))
    first, last = frames.chunks_begin - start, frames.chunks_end - start
    units: Counter[str] = Counter()
    coded: Counter[str] = Counter()
    for tensor in tensors:
        for mode, (count, size) in tensor.modes.items():
            units[mode] += count
            coded[mode] += size
    return Report(
        nbytes=end - start,
        header_bytes=first,
        frame_bytes=last - first,
        index_bytes=end - start - last,
        raw_bytes=sum(spec.nbytes for spec in layout.specs),
        quality=layout.quality,
        base_digest=layout.base_digest,
        digest=frames.index.state,
        tensors=tensors,
        sources=layout.sources,
        model=model,
        base_model=base_model,
        modes={mode: (units[mode], coded[mode]) for mode in units},
    )


def _tensor_report(frames: FileFrames, number: int) -> TensorReport:
    spec = frames.layout.specs[number]
    first, last = int(frames.first_chunks[number]), int(frames.first_chunks[number + 1])
    units: Counter[str] = Counter()
    coded: Counter[str] = Counter()
    nbytes = 0
    for chunk in range(first, last):
        read = frames.read_chunks(chunk, chunk + 1)
        nbytes += read.data.nbytes
        left = min(CHUNK_UNITS, unit_count(spec) - (chunk - first) * CHUNK_UNITS)
        where = f"tensor {spec.name!r}, chunk {chunk - first} (byte {read.offset})"
        payload = read.data[FRAME_HEAD_BYTES:].tobytes()
        for block in find_blocks(payload, left, spec.dtype, where):
            units[MODE_NAMES[block.mode]] += block.units
            coded[MODE_NAMES[block.mode]] += block.nbytes
    modes = {mode: (units[mode], coded[mode]) for mode in units}
    return TensorReport(spec, nbytes, modes, frames.layout.base_name(number))
