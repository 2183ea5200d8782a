"""safetensors files: read from a file or a pipe, and restored byte for byte.

The skeleton is ``form: u8`` and then up to two packed blocks, each behind its length (uvarint).
The low two bits of *form* say how the header is had back: 0 rendered from the tensors, 1 rendered
with the metadata in the first block (a JSON object), 2 found verbatim in the first block. Bit 2 is
set where tensors had to be renamed among several files; the last block is then the JSON list of
their own names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import BinaryIO

from limosa.errors import CorruptError, FormatError, TruncatedError
from limosa.files.beginnings import HEAD_BYTES, SAFETENSORS, in_file, recognise
from limosa.files.bundle import Bundle, Namer, Source
from limosa.files.header import (
    LENGTH_BYTES,
    Header,
    header_length,
    parse_header,
    render_header,
    unique_keys,
)
from limosa.files.mapped import StreamLoader, map_file, read_exactly
from limosa.files.pack import pack, read_uvarint, unpack, write_uvarint
from limosa.limits import Limits
from limosa.tensors import Bytes, TensorMap, TensorSpec

_PLAIN, _METADATA, _VERBATIM, _RENAMED = 0, 1, 2, 4


class MappedFile:
    """A safetensors file on disk: its header, and its tensors as views of the mapped file.

    Raises:
        FormatError: the file is not a whole and well-formed safetensors file.
    """

    def __init__(self, path: str | os.PathLike[str], limits: Limits) -> None:
        self._data = map_file(path)
        where = os.fspath(path)
        with in_file(path), _named_by(self._data[:HEAD_BYTES].tobytes()):
            self._start, self.header = self._read_header(limits)
        end = self._start + self.header.data_bytes
        if end > self._data.size:
            raise _truncated(where, self._data.size, end)
        if end < self._data.size:
            raise _trailing(where, f"{self._data.size} bytes", f"{end} bytes")

    def _read_header(self, limits: Limits) -> tuple[int, Header]:
        """Where the data begin, and the header before them."""
        prefix = self._data[:LENGTH_BYTES].tobytes()
        length = int.from_bytes(prefix, "little")
        start = LENGTH_BYTES + length
        if len(prefix) == LENGTH_BYTES and start > self._data.size:
            raise TruncatedError(
                "the file ends within its header",
                found=f"a header of {length} bytes",
                allowed=f"{self._data.size - LENGTH_BYTES} bytes, which follow",
                remedy="check that it is a safetensors file, and fetch it again",
            )
        header_length(prefix, limits)
        return start, parse_header(self._data[LENGTH_BYTES:start].tobytes(), limits)

    def load(self, i: int) -> Bytes:
        """The bytes of tensor *i*."""
        begin = self._start + self.header.offsets[i]
        return self._data[begin : begin + self.header.specs[i].nbytes]


@contextmanager
def _named_by(head: bytes) -> Iterator[None]:
    """Say what a file is, where its first bytes tell, in place of what is wrong with its header."""
    try:
        yield
    except FormatError:
        known = recognise(head)
        if known is None or known == SAFETENSORS:
            raise
        raise CorruptError(
            "not a safetensors file", found=known.name, remedy=known.remedy
        ) from None


def read_file(path: str | os.PathLike[str], limits: Limits) -> Bundle:
    """The bundle of one safetensors file."""
    file = MappedFile(path, limits)
    source, specs = describe(file.header, "", Namer())
    return Bundle([source], specs, file.load, limits=limits)


def read_stream(stream: BinaryIO, limits: Limits) -> Bundle:
    """The bundle of a safetensors file that comes through a pipe, one tensor at a time.

    Only the header is read now. What follows the last tensor is noticed when that is read.

    Raises:
        FormatError: the header is not that of a safetensors file.
    """
    head = read_exactly(stream, LENGTH_BYTES, "byte 0").tobytes()
    length = int.from_bytes(head, "little")
    if length > limits.max_header_bytes:
        # What else it may be is told by more of it than a length.
        head += stream.read(HEAD_BYTES - LENGTH_BYTES)
    with _named_by(head):
        header_length(head, limits)
    header = parse_header(read_exactly(stream, length, "header").tobytes(), limits)
    source, specs = describe(header, "", Namer())
    load = StreamLoader(stream, specs)

    def check_end() -> None:
        if stream.read(1):
            raise _trailing("pipe", "more data", f"{header.data_bytes} bytes of data")

    def load_and_check_end(i: int) -> Bytes:
        data = load(i)
        if i == len(specs) - 1:
            check_end()
        return data

    if not specs:
        check_end()

    return Bundle([source], specs, load_and_check_end, limits=limits, random_access=False)


def bundle_from_tensors(
    tensors: TensorMap, metadata: Mapping[str, str] | None = None, *, limits: Limits | None = None
) -> Bundle:
    """A bundle of tensors in memory; it is restored as one safetensors file.

    >>> import numpy as np
    >>> from limosa.tensors import Tensor
    >>> bundle = bundle_from_tensors({"w": Tensor.from_numpy(np.zeros((2, 3), np.float32))})
    >>> bundle.specs
    [TensorSpec(name='w', dtype='F32', shape=(2, 3))]

    Raises:
        CorruptError, LimitError: a name or a shape is malformed or exceeds *limits*.
    """
    specs = [tensor.spec(name) for name, tensor in tensors.items()]
    blocks = tuple(tensor.data for tensor in tensors.values())
    form = _PLAIN if metadata is None else _METADATA
    skeleton = _skeleton(form, None if metadata is None else _dump(dict(metadata)), None)
    source = Source("", "safetensors", skeleton, tuple(tensors))
    return Bundle([source], specs, blocks.__getitem__, limits=limits)


def describe(header: Header, path: str, name: Namer) -> tuple[Source, list[TensorSpec]]:
    """The source of a header, and its specs under names that are unique in the bundle."""
    names = [name(spec.name, path) for spec in header.specs]
    specs = [replace(spec, name=new) for spec, new in zip(header.specs, names, strict=True)]
    own = [spec.name for spec in header.specs]
    if header.text != render_header(header.specs, header.metadata):
        form, block = _VERBATIM, header.text
    elif header.metadata is not None:
        form, block = _METADATA, _dump(dict(header.metadata))
    else:
        form, block = _PLAIN, None
    skeleton = _skeleton(form, block, own if own != names else None)
    return Source(path, "safetensors", skeleton, tuple(names)), specs


def header_text(source: Source, specs: Sequence[TensorSpec], limits: Limits) -> bytes:
    """The header, as it stood in the file, of a source and its tensors.

    Raises:
        FormatError: the skeleton is malformed, or describes other tensors than *specs*.
    """
    form, blocks = _split(source.skeleton, limits)
    if form & _RENAMED:
        specs = _rename(specs, blocks.pop())
    if form & 3 == _VERBATIM:
        text = blocks.pop()
        if parse_header(text, limits).specs != tuple(specs):
            raise CorruptError("the header describes other tensors", where="skeleton")
        return text
    return render_header(specs, _load_map(blocks.pop()) if form & 3 == _METADATA else None)


def metadata_of(source: Source, limits: Limits) -> dict[str, str] | None:
    """The metadata of a safetensors source; None where the file has none."""
    form, blocks = _split(source.skeleton, limits)
    if form & 3 == _METADATA:
        return _load_map(blocks[0])
    if form & 3 == _VERBATIM:
        found = parse_header(blocks[0], limits).metadata
        return None if found is None else dict(found)
    return None


class SafetensorsWriter:
    """Writes the header at once, and every tensor as it comes: a pipe will do for *file*."""

    def __init__(
        self, file: BinaryIO, source: Source, specs: Sequence[TensorSpec], limits: Limits
    ) -> None:
        self._file = file
        text = header_text(source, specs, limits)
        file.write(len(text).to_bytes(LENGTH_BYTES, "little") + text)

    def write(self, spec: TensorSpec, data: Bytes) -> None:
        """Append the data of one tensor."""
        self._file.write(data.data)

    def finish(self) -> None:
        """Nothing is left to write."""


def _skeleton(form: int, block: bytes | None, names: list[str] | None) -> bytes:
    blocks = [] if block is None else [pack(block)]
    if names is not None:
        form |= _RENAMED
        blocks.append(pack(_dump(names)))
    return bytes([form]) + b"".join(write_uvarint(len(b)) + b for b in blocks)


def _split(skeleton: bytes, limits: Limits) -> tuple[int, list[bytes]]:
    """The form and the unpacked blocks of a skeleton."""
    if not skeleton:
        raise TruncatedError("the skeleton is empty", where="skeleton")
    form = skeleton[0]
    if form & ~7 or form & 3 == 3:
        raise CorruptError("unknown form", where="skeleton", found=str(form), allowed="0 to 6")
    blocks = []
    at = 1
    for _ in range((form & 3 != _PLAIN) + bool(form & _RENAMED)):
        size, at = read_uvarint(skeleton, at)
        if size > len(skeleton) - at:
            raise TruncatedError("a block is cut off", where="skeleton", found=f"{size} bytes")
        blocks.append(unpack(skeleton[at : at + size], limits.max_header_bytes))
        at += size
    if at != len(skeleton):
        raise CorruptError("bytes follow the last block", where="skeleton")
    return form, blocks


def _rename(specs: Sequence[TensorSpec], block: bytes) -> list[TensorSpec]:
    names = _loads(block)
    if (
        not isinstance(names, list)
        or len(names) != len(specs)
        or not all(isinstance(name, str) for name in names)
    ):
        raise CorruptError("bad list of names", where="skeleton", allowed=f"{len(specs)} strings")
    return [replace(spec, name=name) for spec, name in zip(specs, names, strict=True)]


def _load_map(block: bytes) -> dict[str, str]:
    value = _loads(block)
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise CorruptError("the metadata are not a map of strings", where="skeleton")
    return value


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _loads(block: bytes) -> object:
    try:
        value: object = json.loads(block, object_pairs_hook=unique_keys)
        json.dumps(value, ensure_ascii=False).encode()  # no unpaired surrogates
    except (ValueError, RecursionError) as error:
        raise CorruptError("not JSON", where="skeleton", found=str(error)[:120]) from None
    return value


def _truncated(where: str, found: int, needed: int) -> TruncatedError:
    return TruncatedError(
        "the file ends too early",
        where=where,
        found=f"{found} bytes",
        allowed=f"{needed} bytes",
        remedy="fetch it again",
    )


def _trailing(where: str, found: str, allowed: str) -> CorruptError:
    return CorruptError(
        "data follow the last tensor",
        where=where,
        found=found,
        allowed=allowed,
        remedy="save the file again with safetensors",
    )
