#!/usr/bin/env python3
"""A slow decoder of .limosa files in plain Python, written from docs/format.md alone.

Sections carry the numbers and names of that page, so the two can be read side by side. Nothing here
is fast and nothing comes from limosa: this is the oracle that limosa's own decoder is tested
against. Only the standard library is needed; digests (BLAKE3 is not in it) are checked when the
`blake3` package can be imported, and otherwise the command says that they were not.

    python reference/limosa_reference.py FILE [--base FILE.limosa|FOLDER] [-o FOLDER]

prints the tensors and, with -o, writes their bytes and a tensors.json, which --base accepts.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import struct
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

try:
    from blake3 import blake3
except ImportError:
    blake3 = None


class ReferenceError(Exception):
    """What a file can do wrong; `kind` is the word that golden-errors/*/expected.json uses."""

    kind = "error"


class TruncatedError(ReferenceError):
    """Bytes run out."""

    kind = "truncated"


class CorruptError(ReferenceError):
    """The bytes contradict docs/format.md."""

    kind = "corrupt"


class ChecksumError(ReferenceError):
    """A crc32c or a digest is not that of the bytes."""

    kind = "checksum"


class LimitError(ReferenceError):
    """The file asks for more than the caller allows."""

    kind = "limit"


class UnsupportedError(ReferenceError):
    """A version that this decoder does not know."""

    kind = "unsupported"


class BaseMismatchError(ReferenceError):
    """The base is missing, or another one."""

    kind = "base-mismatch"


@dataclass(frozen=True)
class Limits:
    """Caps on what a file may ask for; all inclusive."""

    max_elements: int = 2**34
    max_tensors: int = 2**20
    max_sources: int = 2**16
    max_name_bytes: int = 4096
    max_rank: int = 32
    max_header_bytes: int = 100 * 2**20
    max_chunk_bytes: int = 64 * 2**20
    max_total_bytes: int = 2**42

    def check(self, name: str, found: int, where: str) -> int:
        """`found`, or LimitError when it is above the limit of that name."""
        allowed = getattr(self, name)
        if found > allowed:
            raise LimitError(f"{where}: found {found}, {name} allows {allowed}")
        return found


# ---------------------------------------------------------------------------------------------
# 1. Conventions


class Cursor:
    """Reads bytes from front to back; `where` names the part of the file in messages."""

    def __init__(self, data: bytes, where: str) -> None:
        self.data = data
        self.where = where
        self.at = 0

    def left(self) -> int:
        """Bytes that are not read yet."""
        return len(self.data) - self.at

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if count > self.left():
            raise TruncatedError(
                f"{self.where}, byte {self.at}: needs {count} bytes, {self.left()} are left"
            )
        self.at += count
        return self.data[self.at - count : self.at]

    def uint(self, size: int) -> int:
        """The next `size` bytes as an unsigned integer: u8, u16, u32, u64."""
        return int.from_bytes(self.take(size), "little")

    def varint(self) -> int:
        """LEB128."""
        value = 0
        for i in range(10):
            byte = self.uint(1)
            value |= (byte & 0x7F) << (7 * i)
            if byte < 0x80:
                break
        else:
            raise self.corrupt("a varint of more than 10 bytes")
        if value >= 2**64:
            raise self.corrupt("a varint above 64 bits")
        return value

    def corrupt(self, problem: str) -> CorruptError:
        """The error to raise, with the place."""
        return CorruptError(f"{self.where}, byte {self.at}: {problem}")

    def require(self, condition: bool, problem: str) -> None:
        """Raises CorruptError unless `condition` holds."""
        if not condition:
            raise self.corrupt(problem)


class Bits:
    """A string of bits, the first one in the least significant position of the first byte."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> int:
        """The next `count` bits; zeros after the end, which callers notice by `at`."""
        first, shift = divmod(self.at, 8)
        self.at += count
        value = int.from_bytes(self.data[first : (self.at + 7) // 8], "little")
        return (value >> shift) & ((1 << count) - 1)


def unzigzag(value: int) -> int:
    """The signed integer: 0, 1, 2, 3, 4 stand for 0, -1, 1, -2, 2."""
    return (value >> 1) ^ -(value & 1)


def _crc_table() -> list[int]:
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)  # 0x1EDC6F41 with its bits reversed
        table.append(crc)
    return table


CRC_TABLE = _crc_table()


def crc32c(data: bytes) -> int:
    """CRC-32C; of b"123456789" it is 0xE3069283."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def take_checked(source: Cursor, length: int, crc: int) -> bytes:
    """The next `length` bytes, when their checksum is `crc`."""
    at = source.at
    body = source.take(length)
    if crc32c(body) != crc:
        raise ChecksumError(f"{source.where}, byte {at}: the crc32c of {length} bytes is wrong")
    return body


# ---------------------------------------------------------------------------------------------
# 2. File


@dataclass
class Tensor:
    """A tensor: what the layout says of it, then its bytes."""

    name: str
    dtype: int
    shape: tuple[int, ...]
    data: bytes = b""
    base_name: str | None = None
    kept: bool = False  # later ones may copy it
    lengths: list[int] = field(default_factory=list)  # of the payloads, to compare with the index
    copy_of: int | None = None  # the tensor's number, when it is coded by tensor copy
    digest: bytes = b""  # the first 8 bytes, from the index

    @property
    def unit(self) -> Dtype:
        """Bits and fields of its dtype."""
        return DTYPES[self.dtype]

    @property
    def nbytes(self) -> int:
        """Bytes of its data."""
        return math.prod(self.shape) * self.unit.bits // 8


@dataclass
class Source:
    """A source file: where tensors came from."""

    path: str
    kind: int
    skeleton: bytes
    tensors: list[int]


@dataclass
class State:
    """The content of a file. `digest` is what the file says; `checked` whether it was verified."""

    tensors: list[Tensor] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    base_digest: bytes | None = None
    digits: int | None = None
    asked: str = ""  # what a lossy file says of itself
    digest: bytes = b""
    checked: bool = False

    def base_of(self, tensor: Tensor) -> Tensor | None:
        """The tensor that `tensor` is coded against."""
        key = (tensor.base_name, tensor.dtype, tensor.shape)
        return next((t for t in self.tensors if (t.name, t.dtype, t.shape) == key), None)


def decode(data: bytes, base: State | None = None, limits: Limits | None = None) -> State:
    """The tensors and sources of a whole .limosa file, or a ReferenceError.

    Of a file with layers (section 7) they are those of the last.
    """
    limits = limits or Limits()
    source = Cursor(data, "file")
    state = read_stream(source, base, limits)
    for _ in range(1, MAX_LAYERS):
        if source.left() == 0:
            break
        state = read_stream(source, state, limits)
        source.require(state.base_digest is not None, "a layer without a base")
    source.require(source.left() == 0, "bytes after the footer")
    return state


def read_stream(source: Cursor, base: State | None, limits: Limits) -> State:
    """Header, chunks, index and footer."""
    begin = source.at
    state = read_header(source, limits)
    if state.base_digest is not None:
        check_base(state.base_digest, base)
    for number, tensor in enumerate(state.tensors):
        read_tensor(source, state, number, base if state.base_digest else None, limits)
        assert len(tensor.data) == tensor.nbytes
    start = source.at
    read_index(source, state, limits)
    read_footer(source, start, begin)
    if blake3 is not None:
        check_digests(state)
    return state


def check_base(wanted: bytes, base: State | None) -> None:
    """A base is named by its state digest."""
    if base is None:
        raise BaseMismatchError(f"header: needs the base {wanted.hex()}, none is given")
    if base.digest != wanted:
        raise BaseMismatchError(
            f"header: needs the base {wanted.hex()}, given is {base.digest.hex()}"
        )


# 2.1 Header

MAGIC = b"\x89LMSA\r\n\x1a"
VERSION = 0


def read_header(source: Cursor, limits: Limits) -> State:
    """Magic, version, layout."""
    magic = source.take(min(len(MAGIC), source.left()))
    source.require(MAGIC.startswith(magic), f"this is no limosa file, it begins with {magic!r}")
    if len(magic) < len(MAGIC):
        raise TruncatedError(f"file: {len(magic)} bytes")
    version = source.uint(1)
    if version != VERSION:
        raise UnsupportedError(f"file, byte 8: version {version}; this decoder knows {VERSION}")
    return read_layout(Cursor(read_section(source, limits), "layout"), limits)


# 2.2 Section


def read_section(source: Cursor, limits: Limits) -> bytes:
    """The content of a section, inflated."""
    length = limits.check("max_header_bytes", source.uint(4), f"file, byte {source.at}: section")
    crc = source.uint(4)
    body = Cursor(take_checked(source, length, crc), f"section at byte {source.at - length}")
    method = body.uint(1)
    size = limits.check("max_header_bytes", body.varint(), body.where)
    content = body.take(body.left())
    if method == 1:
        inflater = zlib.decompressobj()
        try:
            # Room for one byte more lets a longer stream show itself, and no bomb go off.
            content = inflater.decompress(content, size + 1)
        except zlib.error as error:
            raise body.corrupt(f"zlib: {error}") from None
        body.require(inflater.eof and not inflater.unused_data, "the zlib stream ends elsewhere")
    else:
        body.require(method == 0, f"method {method}")
    body.require(len(content) == size, f"{len(content)} bytes of content, {size} promised")
    return content


# 2.3 Layout


@dataclass(frozen=True)
class Dtype:
    """A line of the table of dtypes."""

    name: str
    bits: int  # of an element
    width: int  # of a unit
    exponent: int = 0  # E and M: 0 for dtypes that are not coded as floats
    mantissa: int = 0


DTYPES = [
    Dtype("F64", 64, 64, 11, 52),
    Dtype("F32", 32, 32, 8, 23),
    Dtype("F16", 16, 16, 5, 10),
    Dtype("BF16", 16, 16, 8, 7),
    Dtype("F8_E4M3", 8, 8),
    Dtype("F8_E5M2", 8, 8),
    Dtype("F8_E8M0", 8, 8),
    Dtype("F4", 4, 8),
    Dtype("I64", 64, 64),
    Dtype("I32", 32, 32),
    Dtype("I16", 16, 16),
    Dtype("I8", 8, 8),
    Dtype("U64", 64, 64),
    Dtype("U32", 32, 32),
    Dtype("U16", 16, 16),
    Dtype("U8", 8, 8),
    Dtype("BOOL", 8, 8),
    Dtype("C64", 64, 32, 8, 23),
    Dtype("F6_E2M3", 6, 8),
    Dtype("F6_E3M2", 6, 8),
    Dtype("F8_E4M3FNUZ", 8, 8),
    Dtype("F8_E5M2FNUZ", 8, 8),
]
MAX_QUALITY_TEXT = 256
KINDS = ("tensors", "safetensors", "npz", "torch", "onnx", "bytes")


def read_layout(source: Cursor, limits: Limits) -> State:
    """Everything but the data."""
    state = State()
    flags = source.uint(1)
    source.require(flags <= 7 and flags & 3 != 2, f"flags {flags:#x}")
    if flags & 1:
        state.base_digest = source.take(32)
    quality = source.uint(1)
    source.require(quality <= 2, f"quality {quality}")
    if quality == 1:
        state.digits = source.uint(1)
        source.require(state.digits <= 18, f"{state.digits} digits")
    elif quality == 2:
        length = source.varint()
        if length > MAX_QUALITY_TEXT:
            raise LimitError(f"layout: {length} bytes of quality, {MAX_QUALITY_TEXT} are allowed")
        state.asked = read_characters(source, length, limits)
    total = 0
    names = set()
    for _ in range(limits.check("max_tensors", source.varint(), "layout: tensors")):
        tensor = read_tensor_entry(source, limits)
        source.require(tensor.name not in names, f"a second tensor {tensor.name!r}")
        names.add(tensor.name)
        total = limits.check("max_total_bytes", total + tensor.nbytes, "layout: bytes of tensors")
        state.tensors.append(tensor)
    for tensor in state.tensors:
        tensor.base_name = read_base_name(source, tensor, limits) if flags & 2 else tensor.name
    if flags & 4:
        kept = read_numbers(source, len(state.tensors))
        source.require(bool(kept) and kept == sorted(set(kept)), f"kept tensors {kept}")
        for number in kept:
            state.tensors[number].kept = True
    for _ in range(limits.check("max_sources", source.varint(), "layout: sources")):
        state.sources.append(read_source(source, len(state.tensors), limits))
    if [s.path for s in state.sources] != [""]:
        check_paths(source, [s.path for s in state.sources])
    source.require(source.left() == 0, "bytes after the last source")
    return state


def read_text(source: Cursor, limits: Limits) -> str:
    """A name or a path, after its length."""
    return read_characters(source, source.varint(), limits)


def read_characters(source: Cursor, length: int, limits: Limits) -> str:
    """A name or a path."""
    limits.check("max_name_bytes", length, f"layout, byte {source.at}: name")
    try:
        return source.take(length).decode("utf-8")
    except UnicodeDecodeError:
        raise source.corrupt("a name that is not UTF-8") from None


def read_tensor_entry(source: Cursor, limits: Limits) -> Tensor:
    """Name, dtype and shape."""
    name = read_text(source, limits)
    parts = name.replace("\\", "/").split("/")
    source.require("\0" not in name and ".." not in parts, f"the name {name!r}")
    dtype = source.uint(1)
    source.require(dtype < len(DTYPES), f"dtype {dtype}")
    rank = limits.check("max_rank", source.varint(), f"tensor {name!r}: rank")
    shape = tuple(source.varint() for _ in range(rank))
    spread = math.prod(max(n, 1) for n in shape)
    limits.check("max_elements", spread, f"tensor {name!r}: elements")
    elements = math.prod(shape)
    whole = elements * DTYPES[dtype].bits % 8 == 0
    source.require(whole, f"tensor {name!r} does not fill whole bytes")
    return Tensor(name, dtype, shape)


def read_source(source: Cursor, tensors: int, limits: Limits) -> Source:
    """Path, kind, skeleton and the numbers of its tensors."""
    path = read_text(source, limits)
    kind = source.uint(1)
    source.require(kind < len(KINDS), f"kind of source {kind}")
    skeleton = source.take(source.varint())
    source.require(kind != 0 or not skeleton, "a skeleton in a source of kind 0")
    return Source(path, kind, skeleton, read_numbers(source, tensors))


def read_numbers(source: Cursor, tensors: int) -> list[int]:
    """Numbers of tensors, after how many they are."""
    numbers: list[int] = []
    previous = -1
    for _ in range(source.varint()):
        previous += 1 + unzigzag(source.varint())
        source.require(0 <= previous < tensors, f"tensor number {previous}")
        numbers.append(previous)
    return numbers


def read_base_name(source: Cursor, tensor: Tensor, limits: Limits) -> str | None:
    """The name of the base tensor, or None."""
    code = source.varint()
    if code < 2:
        return tensor.name if code == 0 else None
    return read_characters(source, code - 2, limits)


DEVICES = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10))}


def check_paths(source: Cursor, paths: list[str]) -> None:
    """Refuses paths that leave their folder, or that some system cannot write."""
    for path in paths:
        for part in path.split("/"):
            plain = part not in ("", ".", "..") and len(part.encode()) <= 255
            plain = plain and not any(c in "\\:" or c < " " for c in part)
            plain = plain and part.split(".")[0].lower() not in DEVICES
            source.require(plain, f"the path {path!r}")
    source.require(len(set(paths)) == len(paths), "two paths are the same")
    folders = {path[:i] for path in paths for i, c in enumerate(path) if c == "/"}
    source.require(not folders.intersection(paths), "a path is the folder of another")


# 2.4 Chunk frames

CHUNK_UNITS = 262_144


def read_tensor(
    source: Cursor, state: State, number: int, base: State | None, limits: Limits
) -> None:
    """All chunk frames of a tensor."""
    tensor = state.tensors[number]
    unit_bytes = tensor.unit.width // 8
    units = tensor.nbytes // unit_bytes
    twin = base.base_of(tensor) if base else None
    pieces = []
    for first in range(0, units, CHUNK_UNITS):
        where = f"tensor {tensor.name!r}, chunk {len(pieces)}"
        length = limits.check("max_chunk_bytes", source.uint(4), where)
        crc = source.uint(4)
        payload = Cursor(take_checked(source, length, crc), where)
        span = slice(first * unit_bytes, min(first + CHUNK_UNITS, units) * unit_bytes)
        base_units = unpack(twin.data[span], tensor.unit) if twin else None
        chunk = Chunk(tensor.unit, base_units, state, number, span)
        count = (span.stop - span.start) // unit_bytes
        pieces.append(pack(read_payload(payload, chunk, count), tensor.unit))
        tensor.lengths.append(length)
    tensor.data = b"".join(pieces)


def unpack(data: bytes, dtype: Dtype) -> list[int]:
    """Bytes to units."""
    size = dtype.width // 8
    return list(struct.unpack(f"<{len(data) // size}{'_BH_I___Q'[size]}", data))


def pack(units: Sequence[int], dtype: Dtype) -> bytes:
    """Units to bytes."""
    return struct.pack(f"<{len(units)}{'_BH_I___Q'[dtype.width // 8]}", *units)


# 2.5 Index


def read_index(source: Cursor, state: State, limits: Limits) -> None:
    """Lengths, which must be those that were met, and digests."""
    index = Cursor(read_section(source, limits), "index")
    for tensor in state.tensors:
        lengths = [index.varint() for _ in tensor.lengths]
        index.require(lengths == tensor.lengths, f"tensor {tensor.name!r}: lengths of its payloads")
        tensor.digest = index.take(8)
    state.digest = index.take(32)
    index.require(index.left() == 0, "bytes after the state digest")


# 2.6 Footer


def read_footer(source: Cursor, start: int, begin: int, magic: bytes = b"LMSA_END") -> None:
    """The footer must name the section at `start`, in a file that began at `begin`."""
    length = source.at - start
    footer = source.take(24)
    if crc32c(footer[:12]) != int.from_bytes(footer[12:16], "little"):
        raise ChecksumError("footer: its crc32c is wrong")
    source.require(footer[16:] == magic, f"the footer does not end in {magic!r}")
    found = struct.unpack("<QI", footer[:12])
    source.require(found == (start - begin, length), f"the footer has the index at {found}")


# ---------------------------------------------------------------------------------------------
# 3. Chunk payload


@dataclass
class Chunk:
    """What the blocks of a chunk need beside their own bytes."""

    dtype: Dtype
    base: list[int] | None
    state: State
    number: int
    span: slice  # the chunk's bytes in its tensor


def read_payload(source: Cursor, chunk: Chunk, count: int) -> list[int]:
    """All blocks of a chunk of `count` units."""
    units: list[int] = []
    while len(units) < count:
        left = count - len(units)
        mode = source.uint(1)
        n = source.varint() or left
        source.require(n <= left, f"a block of {n} units where {left} are left")
        source.require(mode in MODES, f"mode {mode}")
        if mode in WHOLE_MODES:
            source.require(n == count, f"mode {mode} for a part of a chunk")
        base = None
        if mode in BASE_MODES:
            source.require(chunk.base is not None, f"mode {mode} without a base")
            base = (chunk.base or [])[len(units) : len(units) + n]
        units += MODES[mode](source, n, chunk, base)
    source.require(source.left() == 0, "bytes after the last block")
    if source.data[0] != 2 and chunk.span.start:
        copied = chunk.state.tensors[chunk.number].copy_of
        source.require(copied is None, "only a part of the tensor is a tensor copy")
    return units


# 3.1 Raw, constant, copies

Base = list[int] | None
Block = Callable[[Cursor, int, Chunk, Base], list[int]]


def raw(source: Cursor, n: int, chunk: Chunk, base: Base) -> list[int]:
    """Mode 0."""
    return unpack(source.take(n * chunk.dtype.width // 8), chunk.dtype)


def constant(source: Cursor, n: int, chunk: Chunk, base: Base) -> list[int]:
    """Mode 1."""
    return [source.uint(chunk.dtype.width // 8)] * n


def tensor_copy(source: Cursor, n: int, chunk: Chunk, base: Base) -> list[int]:
    """Mode 2."""
    number = source.varint()
    source.require(number < chunk.number, f"a copy of tensor {number}, which is not an earlier one")
    this, earlier = chunk.state.tensors[chunk.number], chunk.state.tensors[number]
    alike = (this.dtype, this.shape) == (earlier.dtype, earlier.shape)
    source.require(alike, f"tensor {number} has another dtype or shape")
    source.require(earlier.kept, f"tensor {number} is not kept for copies")
    source.require(earlier.copy_of is None, f"tensor {number} is itself a copy")
    source.require(chunk.span.start == 0 or this.copy_of == number, "not throughout one copy")
    this.copy_of = number
    return unpack(earlier.data[chunk.span], chunk.dtype)


def base_copy(source: Cursor, n: int, chunk: Chunk, base: Base) -> list[int]:
    """Mode 3."""
    return base or []


# 3.2 Symbol stream

# The context of symbol i, and for that all symbols before it
Context = Callable[[int, list[int]], int]


def no_context(i: int, symbols: list[int]) -> int:
    """C = 1."""
    return 0


def symbol_stream(
    source: Cursor, n: int, context: Context = no_context, count: int = 1
) -> list[int]:
    """The n symbols; `count` is C."""
    kind = source.uint(1)
    if kind == 0:
        return list(source.take(n))
    if kind == 1:
        return [source.uint(1)] * n
    source.require(kind in (2, 3), f"kind of symbol stream {kind}")
    lanes = 32 if kind == 2 else 1
    scale = source.uint(1)
    source.require(8 <= scale <= (12 if count == 1 else 11), f"a frequency sum of 2^{scale}")
    tables = [frequency_table(source, scale) for _ in range(count)]
    word_count = source.varint()
    source.require(word_count <= n, f"{word_count} words for {n} symbols")
    states = [source.uint(4) for _ in range(lanes)]
    source.require(min(states) >= 2**16, "a state below 2^16")
    words = iter(struct.unpack(f"<{word_count}H", source.take(2 * word_count)))
    symbols: list[int] = []
    for i in range(n):
        freq, cum, owner = tables[context(i, symbols)]
        x = states[i % lanes]
        slot = x % 2**scale
        s = owner[slot]
        x = freq[s] * (x >> scale) + slot - cum[s]
        if x < 2**16:
            word = next(words, None)
            if word is None:
                raise source.corrupt("the words run out")
            x = x * 2**16 + word
        states[i % lanes] = x
        symbols.append(s)
    source.require(next(words, None) is None, "words are left over")
    source.require(set(states) == {2**16}, "a last state is not 2^16")
    return symbols


def frequency_table(source: Cursor, scale: int) -> tuple[list[int], list[int], list[int]]:
    """The frequency of each symbol, the sum of those below it, the symbol of each slot."""
    first, last = source.uint(1), source.uint(1)
    source.require(first <= last, f"a frequency table from {first} to {last}")
    freq = [0] * 256
    # 6 + 12 bits a symbol are the most that can be asked for; only what was used is taken.
    bits = Bits(source.data[source.at : source.at + (18 * (last - first + 1) + 7) // 8])
    length = 0
    for symbol in range(first, last + 1):
        if bits.take(1):
            length = bits.take(4) if bits.take(1) else length + (1 if bits.take(1) else -1)
        source.require(0 <= length <= 13, f"a frequency of {length} bits")
        if length:
            freq[symbol] = (1 << (length - 1)) + bits.take(length - 1)
    source.take((bits.at + 7) // 8)
    source.require(sum(freq) == 2**scale, f"frequencies that sum to {sum(freq)}")
    source.require(scale < 12 or max(freq) < 4096, "a frequency of 4096")
    owner = [symbol for symbol in range(256) for _ in range(freq[symbol])]
    cum = [sum(freq[:symbol]) for symbol in range(256)]
    return freq, cum, owner


# 3.3 Integer stream


def integer_stream(
    source: Cursor, n: int, context: Context = no_context, count: int = 1, width: int = 64
) -> list[int]:
    """The n values, below 2^width; `count` is C."""
    return tokens_and_values(source, n, context, count, width)[1]


def tokens_and_values(
    source: Cursor, n: int, context: Context, count: int, width: int
) -> tuple[list[int], list[int]]:
    """Both, since some states follow the tokens (3.11)."""
    s, m = source.uint(1), source.uint(1)
    source.require(s <= 7 and m <= s, f"split {s}, {m}")
    tokens = symbol_stream(source, n, context, count)
    size = source.varint()
    bits = Bits(source.take(size))
    values = []
    for t in tokens:
        if t < 2**s:
            values.append(t)
            continue
        q = t - 2**s
        b = s + (q >> m) - m
        source.require(b <= 63 - m, f"token {t} asks for {b} extra bits")
        values.append((2**m + q % 2**m) * 2**b + bits.take(b))
    source.require(size == (bits.at + 7) // 8, f"{size} bytes hold {bits.at} extra bits")
    source.require(max(values) < 2**width, f"a value above {width} bits")
    return tokens, values


# 3.4 Fields


def fields(source: Cursor, n: int, chunk: Chunk, base: Base) -> list[int]:
    """Mode 4."""
    return read_fields(source, n, chunk, classed=False)


def read_fields(source: Cursor, n: int, chunk: Chunk, classed: bool) -> list[int]:
    """3.4 and 3.14."""
    E, M, W = chunk.dtype.exponent, chunk.dtype.mantissa, chunk.dtype.width
    source.require(E > 0, f"fields of {chunk.dtype.name}")
    head, z, w = source.uint(1), source.uint(1), source.uint(2)
    unsigned, k = divmod(head, 128)
    source.require(k <= min(5, M) and k + z <= M, f"k = {k}, z = {z}")
    K, class_of = field_classes(source, n) if classed else (1, [0] * n)
    x = source.varint()
    source.require(x <= n, f"{x} escapes in {n} units")
    escapes = integer_stream(source, x, width=16) if x else []
    symbols = symbol_stream(source, n, lambda i, _: class_of[i], K)
    source.require(symbols.count(0) == x, f"{symbols.count(0)} escapes, {x} promised")
    r = W - E - k - z
    source.require(not unsigned or r % 2 == 1, f"unsigned fields with r = {r}")
    rests = bit_planes(source, n, r - unsigned)
    pending = iter(escapes)
    units = []
    for symbol, rest in zip(symbols, rests, strict=True):
        t = w + symbol if symbol else next(pending)
        source.require(t < 2 ** (E + k), f"top field {t}")
        sign, low = rest >> (r - 1), (rest % 2 ** (r - 1)) << z
        units.append((sign << (W - 1)) | (t << (M - k)) | low)
    return units


def bit_planes(source: Cursor, n: int, r: int) -> list[int]:
    """n values of r bits."""
    values = [0] * n
    at = 0
    while r - at >= 8:
        for i, byte in enumerate(source.take(n)):
            values[i] |= byte << at
        at += 8
    for b in (4, 2, 1):
        if r - at >= b:
            for i, part in enumerate(bit_plane(source, n, b)):
                values[i] |= part << at
            at += b
    return values


def bit_plane(source: Cursor, n: int, b: int) -> list[int]:
    """n values of b = 4, 2 or 1 bits."""
    g = 32 * 8 // b
    values: list[int] = []
    for first in range(0, n, g):
        v = min(g, n - first)
        S = (v * b + 7) // 8
        group = source.take(S)
        values += [(group[i % S] >> (b * (i // S))) % 2**b for i in range(v)]
    return values


# 3.5 Palette


def palette(source: Cursor, n: int, chunk: Chunk, base: Base) -> list[int]:
    """Mode 5."""
    values, indices = read_palette(source, n, chunk.dtype)
    return [values[i] for i in indices]


def read_palette(source: Cursor, n: int, dtype: Dtype) -> tuple[list[int], list[int]]:
    """The values, and the n indices of them."""
    count = source.uint(1) + 1
    values = unpack(source.take(count * dtype.width // 8), dtype)
    ascending = all(a < b for a, b in pairwise(values))
    source.require(ascending, "a palette that is not ascending")
    indices = symbol_stream(source, n)
    source.require(max(indices) < count, f"index {max(indices)} into a palette of {count}")
    return values, indices


# 3.6 Zero mask


def zero_mask(source: Cursor, n: int, chunk: Chunk, base: Base) -> list[int]:
    """Mode 6."""
    v = source.varint()
    source.require(1 <= v < n, f"{v} of {n} units are not zero")
    mask = Bits(bytes(symbol_stream(source, (n + 7) // 8)))
    flags = [mask.take(1) for _ in range(n)]
    source.require(sum(flags) == v, f"a mask of {sum(flags)} units, {v} promised")
    mode = source.uint(1)
    units = iter(in_full(source, mode, v, chunk))
    return [next(units) if flag else 0 for flag in flags]


def in_full(source: Cursor, mode: int, v: int, chunk: Chunk) -> list[int]:
    """The units that a block of zeros and repeats has in full."""
    source.require(mode in (0, 4, 5, 7), f"mode {mode} for units in full")
    return MODES[mode](source, v, chunk, None)


# 3.7 Planes and base planes


def planes(source: Cursor, n: int, chunk: Chunk, base: Base) -> list[int]:
    """Mode 7."""
    parts = [symbol_stream(source, n) for _ in range(chunk.dtype.width // 8)]
    return [int.from_bytes(unit, "little") for unit in zip(*parts, strict=True)]


def base_planes(source: Cursor, n: int, chunk: Chunk, base: Base) -> list[int]:
    """Mode 8."""
    return [u ^ b for u, b in zip(planes(source, n, chunk, None), base or [], strict=True)]


# 3.8 Base steps


def ordered(u: int, dtype: Dtype) -> int:
    """o(u), a signed integer."""
    half = 2 ** (dtype.width - 1)
    return -(u - half) - 1 if dtype.exponent and u >= half else u


def add_step(base: int, d: int, dtype: Dtype) -> int:
    """The unit u with o(u) = o(base) + d modulo 2^W."""
    o = (ordered(base, dtype) + d) % 2**dtype.width
    half = 2 ** (dtype.width - 1)
    # Modulo 2^W, o is -(u - half) - 1 = 2^W - 1 - (u - half) for a set sign bit.
    return 2**dtype.width - 1 - o + half if dtype.exponent and o >= half else o


def read_steps(source: Cursor, chunk: Chunk, base: list[int]) -> list[int]:
    """The units that lie the coded steps away from those of `base`."""
    dtype = chunk.dtype
    C, c = source.uint(1), source.uint(2)
    source.require(1 <= C <= (16 if dtype.exponent else 1), f"{C} contexts")
    exponents = [(u >> dtype.mantissa) % 2**dtype.exponent for u in base]
    contexts = [min(max(e - c, 0), C - 1) for e in exponents]
    values = integer_stream(source, len(base), lambda i, _: contexts[i], C, dtype.width)
    return [add_step(b, unzigzag(v), dtype) for b, v in zip(base, values, strict=True)]


def base_steps(source: Cursor, n: int, chunk: Chunk, base: Base) -> list[int]:
    """Mode 9."""
    return read_steps(source, chunk, base or [])


# 3.9 Base sparse


def base_sparse(source: Cursor, n: int, chunk: Chunk, base: Base) -> list[int]:
    """Mode 10."""
    units = list(base or [])
    v = source.varint()
    source.require(1 <= v < n, f"{v} of {n} units differ")
    places = []
    at = -1
    for gap in integer_stream(source, v):
        at += gap + 1
        source.require(at < n, f"a change at place {at} of {n} units")
        places.append(at)
    changed = read_steps(source, chunk, [units[i] for i in places])
    for i, unit in zip(places, changed, strict=True):
        units[i] = unit
    return units


# 3.10 Decimal


def decimal(source: Cursor, n: int, chunk: Chunk, base: Base) -> list[int]:
    """Modes 11 and 12."""
    return read_decimal(source, n, chunk, base, lambda: map(unzigzag, integer_stream(source, n)))


def decimal_lzma(source: Cursor, n: int, chunk: Chunk, base: Base) -> list[int]:
    """Modes 13 and 14."""
    return read_decimal(source, n, chunk, base, lambda: xz_integers(source, n))


def xz_integers(source: Cursor, n: int) -> tuple[int, ...]:
    """The w' of modes 13 and 14."""
    stream = source.take(source.varint())
    # 32 MiB of dictionary, and more than the decoder needs around it.
    inflater = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=64 * 2**20)
    try:
        data = inflater.decompress(stream, 8 * n + 1)
    except lzma.LZMAError as error:
        raise source.corrupt(f"xz: {error}") from None
    done = inflater.eof and not inflater.unused_data and len(data) == 8 * n
    source.require(done, f"the xz stream does not hold exactly {n} integers")
    return struct.unpack(f"<{n}q", data)


def read_decimal(source: Cursor, n: int, chunk: Chunk, base: Base, integers: Callable) -> list[int]:
    """Exceptions, then what `integers` reads, then the arithmetic."""
    source.require(chunk.dtype.exponent > 0, f"decimal digits of {chunk.dtype.name}")
    source.require(chunk.state.digits is not None, "decimal digits in a lossless or other file")
    exceptions = read_exceptions(source, n, chunk.dtype)
    units = []
    divisor = float(10 ** (chunk.state.digits or 0))
    E, M = chunk.dtype.exponent, chunk.dtype.mantissa
    for i, w in enumerate(integers()):
        if i in exceptions:
            units.append(exceptions[i])
            continue
        unit = rounded(float(w) / divisor, E, M)
        if base is not None:
            b = to_float(base[i], E, M)
            source.require(math.isfinite(b), "a base that is not finite, and no exception")
            unit = rounded(b + to_float(unit, E, M), E, M)
        units.append(unit)
    return units


def read_exceptions(source: Cursor, n: int, dtype: Dtype) -> dict[int, int]:
    """Place -> unit."""
    exceptions = {}
    at = -1
    for _ in range(source.varint()):
        at += source.varint() + 1
        source.require(at < n, f"an exception at place {at} of {n} units")
        exceptions[at] = source.uint(dtype.width // 8)
    return exceptions


def rounded(value: float, E: int, M: int) -> int:
    """The unit for a double: by way of binary32, unless it is F64.

    So a sum of two binary32 numbers is rounded twice, which gives what IEEE 754 calls one operation
    in binary32, because 53 >= 2 * 24 + 2.
    """
    if E == 11:
        return to_unit(value, E, M)
    return to_unit(to_float(to_unit(value, 8, 23), 8, 23), E, M)


def to_float(unit: int, E: int, M: int) -> float:
    """The value of a float of E and M bits."""
    top, low = (unit >> M) % 2**E, unit % 2**M
    bias = 2 ** (E - 1) - 1
    if top == 2**E - 1:
        value = math.nan if low else math.inf
    else:
        value = math.ldexp(low + (2**M if top else 0), max(top, 1) - bias - M)
    return -value if unit >> (E + M) else value


def to_unit(value: float, E: int, M: int) -> int:
    """The nearest float of E and M bits, ties to even; too large ones become infinite."""
    sign = (1 if math.copysign(1, value) < 0 else 0) << (E + M)
    infinity = (2**E - 1) << M
    if math.isinf(value):
        return sign | infinity
    fraction, power = math.frexp(abs(value))
    whole, power = int(math.ldexp(fraction, 53)), power - 53  # value = whole * 2^power
    lowest = 2 - 2 ** (E - 1)  # exponent of the smallest normal number
    exponent = max(whole.bit_length() - 1 + power, lowest) if whole else lowest
    shift = exponent - M - power
    if shift > 0:
        whole, tail = whole >> shift, whole % (1 << shift)
        whole += tail * 2 + (whole & 1) > 1 << shift
    else:
        whole <<= -shift
    return sign | min(((exponent - lowest) << M) + whole, infinity)


# 3.11 Levels and base levels

SCALES = (2048, 2233, 2435, 2656, 2896, 3158, 3444, 3756)
T = ((0, 2), (7, 5), (1, 3), (6, 4), (2, 0), (5, 7), (3, 1), (4, 6))


@dataclass
class Grid:
    """Where the units of a block lie in the rows of their tensor."""

    n: int
    columns: int
    first: int  # column of the first unit

    @property
    def rows(self) -> int:
        """Rows that the block touches."""
        return -(-(self.first + self.n) // self.columns)

    def spread(self, of_rows: list[int], of_columns: list[int] | None = None) -> list[int]:
        """For each unit what belongs to its row, and what to its column."""
        places = [divmod(self.first + i, self.columns) for i in range(self.n)]
        return [of_rows[row] + (of_columns[col] if of_columns else 0) for row, col in places]


def levels(source: Cursor, n: int, chunk: Chunk, base: Base) -> list[int]:
    """Modes 15 and 16."""
    dtype = chunk.dtype
    source.require(dtype.exponent > 0, f"levels of {dtype.name}")
    flags = source.uint(1)
    dependent, row_scales, classes, adaptive = flags & 1, flags & 2, flags >> 2 & 3, flags & 16
    fits = flags < 32 and classes < (2 if base is None else 3)
    source.require(fits, f"flags {flags:#x}")
    step = read_step(source)
    exceptions = read_exceptions(source, n, dtype)
    grid = read_grid(source, n)
    steps = [step] * n
    if row_scales:
        steps = grid.spread([step * row_scale(s) for s in symbol_stream(source, grid.rows)])
    K, class_of = 1, [0] * n
    if classes == 1:
        K, class_of = classes_of_rows(source, grid)
    elif classes == 2:
        K, class_of = classes_of_exponents(source, base or [], dtype)
    if adaptive:
        coded = adaptive_levels(source, grid, bool(dependent))
    else:
        coded = integer_levels(source, n, bool(dependent), class_of, K)
    worst = max(abs(rho) for rho in coded)
    source.require(worst < 2**29, f"{worst} steps")
    if classes == 2:
        coded = [
            -r if b >> (dtype.width - 1) else r for r, b in zip(coded, base or [], strict=True)
        ]
    values = [rho * s for rho, s in zip(coded, steps, strict=True)]
    return add_values(values, exceptions, dtype, base)


def read_grid(source: Cursor, n: int) -> Grid:
    """c and o."""
    grid = Grid(n, source.varint(), source.varint())
    source.require(1 <= grid.columns < 2**62, f"rows of {grid.columns} units")
    source.require(grid.first < grid.columns, f"column {grid.first} of {grid.columns}")
    return grid


def read_step(source: Cursor) -> float:
    """The 24 upper bits of a binary32."""
    bits = source.uint(3) << 8
    plain = 1 <= bits >> 23 <= 254 and bits % 2**12 == 0
    source.require(plain, f"a step of bits {bits:#010x}")
    return to_float(bits, 8, 23)


def row_scale(s: int) -> float:
    """What a row's step is, in steps."""
    return math.ldexp(SCALES[s % 8], s // 8 - 27)


def classes_of_rows(source: Cursor, grid: Grid) -> tuple[int, list[int]]:
    """K and the class of each unit, from rows and columns."""
    K = source.uint(1)
    source.require(1 <= K <= 8, f"{K} classes")
    source.require(grid.columns <= CHUNK_UNITS, f"classes of {grid.columns} columns")
    of_rows = symbol_stream(source, grid.rows)
    of_columns = symbol_stream(source, grid.columns)
    highest = max(of_rows + of_columns)
    source.require(highest < 16, f"the class of a row or column is {highest}")
    return K, [min(total, K - 1) for total in grid.spread(of_rows, of_columns)]


def classes_of_exponents(source: Cursor, base: list[int], dtype: Dtype) -> tuple[int, list[int]]:
    """K and the class of each unit, from the base."""
    K, lowest = source.uint(1), source.uint(2)
    source.require(1 <= K <= 8, f"{K} classes")
    exponents = [(b >> dtype.mantissa) % 2**dtype.exponent for b in base]
    return K, [min(max(e - lowest, 0), K - 1) for e in exponents]


class Trellis:
    """The states of dependent levels."""

    def __init__(self, n: int, segments: int) -> None:
        self.segments = segments
        self.whole = n // segments * segments  # values that are dealt to the segments in turn
        self.states = [0] * n

    def state(self, p: int, tokens: list[int]) -> int:
        """The state before value p, when the tokens and states of those before are known."""
        before = p - self.segments if p < self.whole else p - 1
        if before >= 0:
            self.states[p] = T[self.states[before]][((tokens[before] + 1) >> 1) % 2]
        return self.states[p]

    def unit(self, p: int) -> int:
        """The unit whose level value p is."""
        segment, place = p % self.segments, p // self.segments
        return segment * (self.whole // self.segments) + place if p < self.whole else p


def integer_levels(
    source: Cursor, n: int, dependent: bool, class_of: list[int], K: int
) -> list[int]:
    """The rho of each unit, from an integer stream."""
    trellis = Trellis(n, 32 if dependent and n >= 16384 else 1)

    def context(p: int, tokens: list[int]) -> int:
        state = trellis.state(p, tokens) if dependent else 0
        return class_of[trellis.unit(p)] + K * (state % 2)

    tokens, values = tokens_and_values(source, n, context, 2 * K if dependent else K, 32)
    coded = [0] * n
    for p, value in enumerate(values):
        # Streams of kinds 0 and 1 have asked for no context, hence for no state.
        state = trellis.state(p, tokens) if dependent else 0
        coded[trellis.unit(p)] = steps_of(unzigzag(value), dependent, state)
    return coded


def steps_of(q: int, dependent: bool, state: int) -> int:
    """The rho of a level."""
    if not dependent or q == 0:
        return q
    return 2 * q - (state % 2 if q > 0 else -(state % 2))


def add_values(
    values: list[float], exceptions: dict[int, int], dtype: Dtype, base: Base
) -> list[int]:
    """The units for values of binary64, which mode 16 and 17 add to the base."""
    E, M = dtype.exponent, dtype.mantissa
    units = []
    for i, value in enumerate(values):
        if i in exceptions:
            units.append(exceptions[i])
        elif base is None:
            units.append(rounded(value, E, M))
        else:
            b = to_float(base[i], E, M)
            nothing = value == 0 and math.copysign(1, value) > 0
            same = nothing or not math.isfinite(b)
            units.append(base[i] if same else rounded(b + value, E, M))
    return units


# 3.12 Base palette


def base_palette(source: Cursor, n: int, chunk: Chunk, base: Base) -> list[int]:
    """Mode 17."""
    dtype = chunk.dtype
    source.require(dtype.exponent > 0, f"differences of {dtype.name}")
    exceptions = read_exceptions(source, n, dtype)
    entries, indices = read_palette(source, n, dtype)
    values = [to_float(entry, dtype.exponent, dtype.mantissa) for entry in entries]
    source.require(all(map(math.isfinite, values)), "a difference that is not finite")
    return add_values([values[i] for i in indices], exceptions, dtype, base)


# 3.13 Adaptive levels

MAX_LOGIT = 2047
MAX_CLASS = 28  # |q| is below 2^29


def clamp(value: int, most: int) -> int:
    """`value`, at least -most and at most `most`."""
    return max(-most, min(most, value))


def log16(v: int) -> int:
    """The logarithm to base 2 in sixteenths, linear between powers of two; v >= 1."""
    b = v.bit_length() - 1
    return 16 * b + ((v << 4 >> b) & 15)


def _probabilities() -> tuple[list[int], list[int]]:
    """Of a logit + 2047 the probability in 2^-16, and exp(-u / 256) in 2^-16 for u up to 2047."""
    probabilities = [0] * (2 * MAX_LOGIT + 1)
    falling = []
    x = 2**32
    for u in range(MAX_LOGIT + 1):
        falling.append(x >> 16)
        p = 2**48 // (2**32 + x)
        probabilities[MAX_LOGIT + u], probabilities[MAX_LOGIT - u] = p, 65536 - p
        x = x * 4278222805 >> 32
    return probabilities, falling


def _logits(probabilities: list[int]) -> list[int]:
    """Of a probability in 2^-12 the logit."""
    logits = []
    at = 0
    for i in range(4096):
        while at < 2 * MAX_LOGIT and probabilities[at + 1] <= 16 * i + 8:
            at += 1
        logits.append(at - MAX_LOGIT)
    return logits


PROBABILITY, _FALLING = _probabilities()
LOGIT = _logits(PROBABILITY)
SURVIVAL = [LOGIT[min(f >> 4, 4095)] for f in _FALLING]


class BitDecoder:
    """Bits from a range coder of 32 bits."""

    def __init__(self, source: Cursor) -> None:
        self.source = source
        self.behind = 0  # bytes past the end, which are 0
        self.range = 2**32 - 1
        self.code = 0
        for _ in range(4):
            self.code = self.code << 8 | self.next()
        source.require(self.code < self.range, "the code begins beyond its range")

    def next(self) -> int:
        """The next byte."""
        if self.source.left():
            return self.source.uint(1)
        self.behind += 1
        self.source.require(self.behind <= 3, "the code runs out of bytes")
        return 0

    def bit(self, probability: int) -> int:
        """The next bit, which is 1 with a probability in 2^-16."""
        bound = self.range * probability >> 16
        bit = int(self.code < bound)
        if bit:
            self.range = bound
        else:
            self.code -= bound
            self.range -= bound
        while self.range < 2**24:
            self.range <<= 8
            self.code = self.code << 8 | self.next()
        return bit


class Mixer:
    """The weights of the eight predictions of one kind of bit, in 2^-20."""

    def __init__(self) -> None:
        self.weights = [2**17] * 8
        self.bits = 0

    def mix(self, logits: list[int]) -> int:
        """The probability of a 1."""
        weights = [max(-32768, min(32767, w >> 7)) for w in self.weights]
        total = sum(w * logit for w, logit in zip(weights, logits, strict=True))
        return PROBABILITY[clamp(total >> 13, MAX_LOGIT) + MAX_LOGIT]

    def learn(self, logits: list[int], miss: int) -> None:
        """`miss`: the bit less its probability, in 2^-16."""
        error = miss * max(24, 3200 // (self.bits + 16)) >> 9
        for k, logit in enumerate(logits):
            moved = self.weights[k] + ((logit * error + 256) >> 9)
            self.weights[k] = (moved + 2**31) % 2**32 - 2**31
        self.bits = min(self.bits + 1, 120)


@dataclass
class Column:
    """Averages in a column, in 2^-12."""

    magnitude: int
    value: int = 0
    count: int = 0


class AdaptiveModel:
    """What the levels so far say of the next one."""

    def __init__(self, grid: Grid, dependent: bool, scale: int) -> None:
        self.grid, self.dependent = grid, dependent
        self.stride = min(grid.columns, grid.n + 1)
        self.columns = [Column(scale) for _ in range(min(grid.columns, grid.n))]
        self.x = grid.first
        self.log_scale = log16(scale)
        self.near_shift = max(0, self.log_scale // 16 - 13)
        self.recent = self.row_level = self.row_column = scale
        self.row_count = 8
        self.ratio = 2**16
        self.tap_weights = [0] * 8
        self.state = 0
        self.mixers = [Mixer() for _ in range(60)]
        self.slots: dict[tuple[int, int, int], tuple[int, int]] = {}  # probability in 2^-22, count
        self.q: list[int] = []

    def before(self, distance: int) -> int:
        """An earlier level."""
        return self.q[-distance] if distance <= len(self.q) else 0

    def normal(self, q: int) -> int:
        """A level over the scale, in 2^-8."""
        return clamp(q * self.inverse >> 12, 768)

    def near(self, q: int) -> int:
        """One of eight classes of a neighbour."""
        m = abs(q) >> self.near_shift
        return m if m < 3 else 3 + sum(m >= limit for limit in (4, 6, 9, 14))

    def relative(self, value: int, step: int, most: int) -> int:
        """A size next to the block's."""
        return max(0, min(most, (log16(max(1, value)) - self.log_scale + 64) // step))

    def prepare(self) -> None:
        """Everything that is known before a level."""
        if self.x == self.grid.columns:
            self.x = 0
            self.row_count = min(self.row_count, 8)
        slot = len(self.q) % self.stride
        own = self.own = self.columns[slot]
        left = self.columns[slot - 1] if slot else own
        right = self.columns[slot + 1] if slot + 1 < len(self.columns) else own
        self.smooth = (2 * own.magnitude + left.magnitude + right.magnitude) >> 2
        scale = max(1, self.smooth * self.ratio >> 16)
        own_scale = own.magnitude * self.ratio >> 16
        self.slope = 2**32 // scale
        self.inverse = 2**32 // (scale + 1229)
        c = self.stride
        near = [self.before(1), self.before(2), self.before(c)]
        more = [self.before(c - 1) if c > 1 else 0, self.before(c + 1), self.before(2 * c)]
        taps = [near[0], near[1], self.before(3), near[2], *more]
        self.taps = [self.normal(q) for q in taps]
        self.taps.append(clamp(own.value * self.inverse >> 24, 768))
        total = sum(w * tap for w, tap in zip(self.tap_weights, self.taps, strict=True))
        self.predicted = clamp(total >> 16, 1024)
        size = (abs(self.predicted) + 8) >> 4
        away = sum(size >= limit for limit in (1, 2, 3, 5, 8, 12, 18))
        toward = 7 - away if self.predicted < 0 else 7 + away
        kinds = [self.near(q) for q in near]
        signs = [2 if q > 0 else 1 if q < 0 else 0 for q in near]
        fine = self.relative(scale, 8, 15)
        self.contexts = [
            self.relative(scale, 2, 63),
            (self.state >> 1) * 64 + self.relative(own_scale, 2, 63),
            self.relative(own.magnitude, 2, 63),
            toward * 16 + fine,
            self.relative(own_scale, 8, 15) * 16 + self.relative(self.recent, 8, 15),
            (kinds[0] * 8 + kinds[1]) * 8 + kinds[2],
            ((signs[0] * 3 + signs[1]) * 3 + signs[2]) * 16 + fine,
        ]

    def steepness(self, k: int) -> int:
        """256 * 2^(k-1) over the scale."""
        return min(MAX_LOGIT, self.slope << k >> 13)

    def bit(self, coder: BitDecoder, node: int, laplace: int) -> int:
        """One bit of a level."""
        keys = [(node, k, context) for k, context in enumerate(self.contexts)]
        fresh = (PROBABILITY[laplace + MAX_LOGIT] << 6, 1)
        slots = [self.slots.get(key, fresh) for key in keys]
        logits = [*(LOGIT[v >> 10] for v, _ in slots), laplace]
        mixer = self.mixers[node]
        p = mixer.mix(logits)
        bit = coder.bit(p)
        mixer.learn(logits, (bit << 16) - p)
        for key, (v, count) in zip(keys, slots, strict=True):
            moved = v + (((bit << 22) - v) * (131072 // (2 * count + 3)) >> 16)
            self.slots[key] = moved, min(count + 1, 1023)
        return bit

    def level(self, coder: BitDecoder) -> int:
        """The next level."""
        self.prepare()
        parity = self.state % 2
        q = 0
        if self.bit(coder, parity, SURVIVAL[self.steepness(0)]):
            negative = self.bit(coder, 2, 0)
            e = 0
            while e < MAX_CLASS:
                node = 4 + e if e else 3 + parity
                if not self.bit(coder, node, SURVIVAL[self.steepness(e + 1)]):
                    break
                e += 1
            q = 1
            for k in range(e, 0, -1):
                laplace = -self.steepness(k)
                if k == e:
                    bit = self.bit(coder, 31 + e, laplace)
                else:
                    bit = coder.bit(PROBABILITY[laplace + MAX_LOGIT])
                q = 2 * q + bit
            q = -q if negative else q
        self.learn(q, parity)
        return q

    def learn(self, q: int, parity: int) -> None:
        """What a level changes."""
        if self.dependent:
            self.state = T[self.state][q % 2]
        error = self.normal(q) - self.predicted
        for k, tap in enumerate(self.taps):
            self.tap_weights[k] += (tap * error + 512) >> 10
        halves = 2 * clamp(q, 2**18)
        halves -= parity if q > 0 else -parity if q < 0 else 0
        m = abs(halves) << 11
        self.recent += (m - self.recent) >> 4
        rate = 65536 // self.row_count
        self.row_level += (m - self.row_level) * rate >> 16
        self.row_column += (self.smooth - self.row_column) * rate >> 16
        self.row_count = min(self.row_count + 1, 256)
        self.ratio = min(2**24, ((self.row_level + 256) << 16) // (self.row_column + 256))
        own = self.own
        rate = 65536 // (own.count + 2)
        own.magnitude += (m - own.magnitude) * rate >> 16
        own.value += (halves * 2048 - own.value) * rate >> 16
        own.count = min(own.count + 1, 98)
        self.x += 1
        self.q.append(q)


def adaptive_levels(source: Cursor, grid: Grid, dependent: bool) -> list[int]:
    """The rho of each unit."""
    size = source.varint()
    source.require(size >= 2, f"{size} bytes of adaptive levels")
    code = Cursor(source.take(size), f"{source.where}, adaptive levels")
    exponent, low = divmod(code.uint(1), 8)
    code.require(8 * exponent + low <= 215, f"scale {8 * exponent + low}")
    model = AdaptiveModel(grid, dependent, (8 + low) << exponent + 1)
    coder = BitDecoder(code)
    coded = []
    for _ in range(grid.n):
        state = model.state
        coded.append(steps_of(model.level(coder), dependent, state))
    code.require(code.left() == 0 and coder.behind == 3, "the code does not end with its bytes")
    return coded


# 3.14 Classed fields


def classed_fields(source: Cursor, n: int, chunk: Chunk, base: Base) -> list[int]:
    """Mode 18."""
    return read_fields(source, n, chunk, classed=True)


def field_classes(source: Cursor, n: int) -> tuple[int, list[int]]:
    """K and the class of each unit."""
    grid = read_grid(source, n)
    K, class_of = classes_of_rows(source, grid)
    source.require(K > 1, "one class")
    return K, class_of


# 3.15 Repeats


def repeats(source: Cursor, n: int, chunk: Chunk, base: Base) -> list[int]:
    """Mode 19."""
    grid = read_grid(source, n)
    size = chunk.dtype.width // 8
    flags = source.uint(1)
    source.require(flags < 2, f"flags {flags}")
    common = source.uint(size) if flags else None
    promised = source.varint()
    which = Bits(bytes(symbol_stream(source, (grid.rows + 7) // 8)))
    has_value = [which.take(1) for _ in range(grid.rows)]
    source.require(sum(has_value) == promised, f"{promised} rows with values promised")
    of_rows = [source.uint(size) if has else None for has in has_value]
    v = source.varint()
    source.require(v <= n, f"{v} of {n} units in full")
    packed = Bits(bytes(symbol_stream(source, (n + 3) // 4)))
    kinds = [packed.take(2) for _ in range(n)]
    units = iter(in_full(source, source.uint(1), v, chunk) if v else [])
    source.require(kinds.count(1) == v, f"{kinds.count(1)} units in full, {v} promised")
    out = []
    for i, kind in enumerate(kinds):
        row = (grid.first + i) // grid.columns
        unit = (0, next(units) if kind == 1 else None, common, of_rows[row])[kind]
        source.require(unit is not None, f"kind {kind} in row {row}")
        out.append(unit or 0)
    return out


def packed(source: Cursor, n: int, chunk: Chunk, base: Base) -> list[int]:
    """Mode 20."""
    transform = source.uint(1)
    source.require(transform < 2, f"transform {transform}")
    stream = source.take(source.varint())
    size = chunk.dtype.width // 8
    given = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**21}]
    inflater = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=given)
    try:
        data = inflater.decompress(stream, n * size + 1)
    except lzma.LZMAError as error:
        raise source.corrupt(f"LZMA2: {error}") from None
    done = inflater.eof and not inflater.unused_data and len(data) == n * size
    source.require(done, f"the LZMA2 stream does not hold exactly {n} units")
    units = [int.from_bytes(data[i : i + size], "little") for i in range(0, n * size, size)]
    if transform:
        for i in range(1, n):
            units[i] = (units[i] + units[i - 1]) % 2**chunk.dtype.width
    return units


MODES: dict[int, Block] = {
    0: raw,
    1: constant,
    2: tensor_copy,
    3: base_copy,
    4: fields,
    5: palette,
    6: zero_mask,
    7: planes,
    8: base_planes,
    9: base_steps,
    10: base_sparse,
    11: decimal,
    12: decimal,
    13: decimal_lzma,
    14: decimal_lzma,
    15: levels,
    16: levels,
    17: base_palette,
    18: classed_fields,
    19: repeats,
    20: packed,
}
WHOLE_MODES = {2, 13, 14, 20}
BASE_MODES = {3, 8, 9, 10, 12, 14, 16, 17}


# ---------------------------------------------------------------------------------------------
# 4. Digests


def tensor_digest(tensor: Tensor) -> bytes:
    """32 bytes that name dtype, shape and data."""
    dims = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
    return blake3(tensor.unit.name.encode() + b"\0" + dims + tensor.data).digest()


def check_digests(state: State) -> None:
    """Recomputes all digests."""
    whole = blake3()
    for tensor in sorted(state.tensors, key=lambda t: t.name.encode()):
        digest = tensor_digest(tensor)
        if digest[:8] != tensor.digest:
            raise ChecksumError(f"tensor {tensor.name!r}: its digest is {digest.hex()}")
        name = tensor.name.encode()
        whole.update(struct.pack("<I", len(name)) + name + digest)
    if whole.digest() != state.digest:
        raise ChecksumError(f"index: the state digest is {whole.hexdigest()}")
    state.checked = True


# ---------------------------------------------------------------------------------------------
# 6. Set of models

SET_MAGIC = b"\x89LMSS\r\n\x1a"
MAX_CHAIN = 64


def decode_set(
    data: bytes, base: State | None = None, limits: Limits | None = None
) -> dict[str, State]:
    """The models of a set, by name; `base` is for those whose base is not in the set."""
    limits = limits or Limits()
    source = Cursor(data, "file")
    source.require(source.take(len(SET_MAGIC)) == SET_MAGIC, "this is no set")
    version = source.uint(1)
    if version != VERSION:
        raise UnsupportedError(f"file, byte 8: version {version}; this decoder knows {VERSION}")
    members = read_set_table(Cursor(read_section(source, limits), "set table"), limits)
    first = source.at
    offset = struct.unpack("<Q", data[-24:-16])[0] if source.left() >= 24 else len(data)
    source.take(max(offset - first, 0))
    index = Cursor(read_section(source, limits), "set index")
    sizes = [index.varint() for _ in members]
    index.require(index.left() == 0, "bytes after the last size")
    source.require(sum(sizes) == offset - first, "models of other sizes")
    read_footer(source, offset, 0, b"LMSS_END")
    source.require(source.left() == 0, "bytes after the footer")
    states: list[State] = []
    for (_, number), size in zip(members, sizes, strict=True):
        held = base if number is None else states[number]
        model = Cursor(data[first : first + size], "model")
        states.append(read_stream(model, held, limits))
        model.require(model.left() == 0, "bytes after the footer")
        first += size
    return {name: state for (name, _), state in zip(members, states, strict=True)}


def read_set_table(source: Cursor, limits: Limits) -> list[tuple[str, int | None]]:
    """Names, and the numbers of bases."""
    members: list[tuple[str, int | None]] = []
    depths: list[int] = []
    for number in range(limits.check("max_sources", source.varint(), "set table: models")):
        name, base = read_text(source, limits), source.varint() - 1
        source.require(base < number, f"model {number} is based on model {base}")
        depths.append(depths[base] + 1 if base >= 0 else 1)
        source.require(depths[-1] <= MAX_CHAIN, f"a chain of {depths[-1]} bases")
        members.append((name, base if base >= 0 else None))
    source.require(bool(members) and source.left() == 0, "no models, or bytes after the last")
    check_paths(source, [name for name, _ in members])
    return members


# ---------------------------------------------------------------------------------------------
# 7. Layers of quality: `decode` reads them one after another, each the base of the next

MAX_LAYERS = 16


# ---------------------------------------------------------------------------------------------
# 8. Refinements

REFINEMENT_MAGIC = b"\x89LMSR\r\n\x1a"
REFINED = ("F64", "F32", "F16", "BF16")
ARRAY_KINDS = range(6)
VECTOR, SPECTRUM, LEFT, RIGHT, CORE, MATRIX = ARRAY_KINDS

Matrix = list[list[float]]


@dataclass
class Array:
    """An array of a record: its kind, its step and, later, its values."""

    kind: int
    size: int
    step: float = 0.0
    values: list[float] = field(default_factory=list)


@dataclass
class Change:
    """A record: how tensor `number` follows from the base."""

    number: int
    method: int
    fields: dict
    arrays: list[Array]


def decode_refinement(data: bytes, base: State | None, limits: Limits | None = None) -> State:
    """The new state. `base` is checked before anything else is read."""
    limits = limits or Limits()
    source = Cursor(data, "file")
    if source.take(8) != REFINEMENT_MAGIC:
        raise CorruptError("not a refinement")
    if source.uint(1) != 0:
        raise UnsupportedError("file, byte 8: an unknown version")
    body = Cursor(read_section(source, limits), "refinement")
    if source.left():
        raise CorruptError("bytes follow the refinement")
    wanted, promised, seed = body.take(32), body.take(32), body.varint()
    check_base(wanted, base)
    tensors = sorted(base.tensors, key=lambda tensor: tensor.name.encode())
    changes = read_changes(body, tensors, limits)
    new = {c.number: rebuilt(c, tensors, seed) for c in changes if c.method != 0}
    for change in changes:
        if change.method == 0:
            other = change.fields["other"]
            new[change.number] = new.get(other, tensors[other].data)
    numbers = {tensor.name: number for number, tensor in enumerate(tensors)}
    made = []
    for tensor in base.tensors:
        number = numbers[tensor.name]
        made.append(replace(tensor, data=new.get(number, tensor.data), digest=b""))
    return proved(State(made, base.sources, wanted, digest=promised))


def proved(state: State) -> State:
    """The state, if its digest is the promised one."""
    if blake3 is not None:
        whole = blake3()
        for tensor in sorted(state.tensors, key=lambda tensor: tensor.name.encode()):
            name = tensor.name.encode()
            whole.update(struct.pack("<I", len(name)) + name + tensor_digest(tensor))
        if whole.digest() != state.digest:
            raise ChecksumError("the new state is not what was promised")
        state.checked = True
    return state


def read_changes(body: Cursor, tensors: list[Tensor], limits: Limits) -> list[Change]:
    """The records with the values of their arrays."""
    count, number, changes = body.varint(), -1, []
    if count > limits.max_tensors:
        raise LimitError("too many records")
    if 2 * count > body.left():
        raise TruncatedError("more records than bytes")
    for _ in range(count):
        number += body.varint() + 1
        if number >= len(tensors):
            raise CorruptError("no such tensor")
        changes.append(read_record(body, number, tensors[number]))
    check_ties(changes, tensors)
    if sum(array.size for change in changes for array in change.arrays) > limits.max_elements:
        raise LimitError("too many levels")
    for kind in ARRAY_KINDS:
        arrays = [a for c in changes for a in c.arrays if a.kind == kind and a.step]
        total = sum(array.size for array in arrays)
        levels = adaptive_levels(body, Grid(total, 1, 0), False) if total else []
        at = 0
        for array in arrays:
            array.values = [level * array.step for level in levels[at : at + array.size]]
            at += array.size
    if body.left():
        raise CorruptError("bytes follow the levels")
    for change in changes:
        for array in change.arrays:
            array.values = array.values or [0.0] * array.size
    return changes


def check_ties(changes: list[Change], tensors: list[Tensor]) -> None:
    """A tied tensor follows one of equal shape that is not tied itself."""
    tied = {change.number for change in changes if change.method == 0}
    for change in changes:
        if change.method == 0:
            other = change.fields["other"]
            if other in tied or other >= len(tensors):
                raise CorruptError("a tie to a tied tensor, or to none")
            one, two = tensors[change.number], tensors[other]
            if (one.unit.name, one.shape) != (two.unit.name, two.shape):
                raise CorruptError("a tie of tensors that differ")


# 8.1 Methods


def read_record(body: Cursor, number: int, tensor: Tensor) -> Change:
    """A record without the values of its arrays."""
    method = body.uint(1)
    if method not in READERS:
        raise CorruptError("unknown method")
    if method in (1, 2, 3, 5) and tensor.unit.name not in REFINED:
        raise CorruptError("a dtype that this method does not take")
    fields, arrays = READERS[method](body, tensor)
    for array in arrays:
        code = body.uint(2)
        if code >= 0xFF00:
            raise CorruptError("a step that is not finite")
        (array.step,) = struct.unpack("<f", struct.pack("<I", code << 15))
    return Change(number, method, fields, arrays)


def elements_of(tensor: Tensor) -> int:
    """Elements of a tensor."""
    return math.prod(tensor.shape)


def element_kind(tensor: Tensor) -> int:
    """0 or 5."""
    return MATRIX if len(tensor.shape) > 1 else VECTOR


def read_tie(body: Cursor, tensor: Tensor):
    """Method 0."""
    return {"other": body.varint()}, []


def read_difference(body: Cursor, tensor: Tensor):
    """Method 1."""
    return {"scale": body.varint()}, [Array(element_kind(tensor), elements_of(tensor))]


def read_masked(body: Cursor, tensor: Tensor):
    """Method 2."""
    threshold, count = body.varint(), body.varint()
    if threshold > 2**32 or count > elements_of(tensor):
        raise CorruptError("an impossible mask")
    return {"threshold": threshold, "count": count}, [Array(element_kind(tensor), count)]


def read_rows(body: Cursor, tensor: Tensor):
    """Method 3."""
    zero, count = body.uint(1), body.varint()
    if zero > 1 or not tensor.shape or count > min(tensor.shape[0], body.left()):
        raise CorruptError("impossible rows")
    rows, last = [], -1
    for _ in range(count):
        last += body.varint() + 1
        rows.append(last)
    if last >= tensor.shape[0]:
        raise CorruptError("no such row")
    size = count * (elements_of(tensor) // max(tensor.shape[0], 1))
    return {"zero": zero, "rows": rows}, [Array(element_kind(tensor), size)]


def read_integers(body: Cursor, tensor: Tensor):
    """Method 4."""
    if tensor.unit.name[0] not in "IU" or elements_of(tensor) > body.left():
        raise CorruptError("impossible integers")
    return {"added": [unzigzag(body.varint()) for _ in range(elements_of(tensor))]}, []


def read_factors(body: Cursor, tensor: Tensor):
    """Method 5."""
    flags, p, n, r = body.uint(1), body.varint(), body.varint(), body.varint()
    rows = tensor.shape[0] if tensor.shape else 0
    if flags > 7 or not 0 < p <= rows or rows % p:
        raise CorruptError("impossible factors")
    o, i = rows // p, elements_of(tensor) // rows
    spectrum, learned, mapping = flags & 1, flags & 2, flags & 4
    if not i or max(n, r) > min(o, i) or (mapping and (spectrum or n)):
        raise CorruptError("impossible factors")
    each = [
        *([(SPECTRUM, min(o, i))] if spectrum else []),
        *([(LEFT, o * n)] if n else []),
        *([(RIGHT, n * i)] if n and learned else []),
        *([(CORE, r * r)] if r and not mapping else []),
        *([(LEFT, o * r)] if r and mapping else []),
        *([(RIGHT, r * i)] if r and mapping and learned else []),
    ]
    fields = {"flags": flags, "p": p, "n": n, "r": r, "o": o, "i": i}
    return fields, [Array(kind, size) for kind, size in each * p]


def read_exact(body: Cursor, tensor: Tensor):
    """Method 6."""
    return {"data": body.take(len(tensor.data))}, []


READERS = {
    0: read_tie, 1: read_difference, 2: read_masked, 3: read_rows, 4: read_integers,
    5: read_factors, 6: read_exact,
}  # fmt: skip


def rebuilt(change: Change, tensors: list[Tensor], seed: int) -> bytes:
    """The new bytes of a tensor that is not tied."""
    tensor, fields = tensors[change.number], change.fields
    if change.method == 6:
        return fields["data"]
    if change.method == 4:
        width = tensor.unit.width
        units = unpack(tensor.data, tensor.unit)
        moved = [(u + a) % 2**width for u, a in zip(units, fields["added"], strict=True)]
        return pack(moved, tensor.unit)
    if change.method == 5:
        return rebuilt_of_factors(change, tensor, seed)
    values, data = change.arrays[0].values, tensor.data
    if change.method == 1:
        scales = scales_of(fields["scale"], change.number, tensors)
        addends = [v * s for v, s in zip(values, scales, strict=True)]
        return add_to_units(data, addends if fields["scale"] else values, tensor.unit)
    if change.method == 2:
        words = philox_words(seed, (change.number, 0), elements_of(tensor))
        chosen = [e for e, word in enumerate(words) if word < fields["threshold"]]
        if len(chosen) != fields["count"]:
            raise CorruptError("the mask has another number of elements")
        addends = [0.0] * elements_of(tensor)
        for e, value in zip(chosen, values, strict=True):
            addends[e] = value
        return add_to_units(data, addends, tensor.unit)
    row = elements_of(tensor) // max(tensor.shape[0], 1)
    width = tensor.unit.width // 8
    addends, units = [0.0] * elements_of(tensor), bytearray(data)
    for number in range(tensor.shape[0]):
        if number in fields["rows"]:
            at = fields["rows"].index(number) * row
            addends[number * row : (number + 1) * row] = values[at : at + row]
        elif fields["zero"]:
            units[number * row * width : (number + 1) * row * width] = bytes(row * width)
    return add_to_units(bytes(units), addends, tensor.unit)


def scales_of(s: int, number: int, tensors: list[Tensor]) -> list[float]:
    """What the elements of a difference are multiplied by."""
    if s == 0:
        return [1.0] * elements_of(tensors[number])
    other = number if s == 1 else s - 2
    if other >= len(tensors) or tensors[other].shape != tensors[number].shape:
        raise CorruptError("a scale that does not fit")
    if tensors[other].unit.name not in REFINED:
        raise CorruptError("a scale that is no float")
    sizes = [abs(value) for value in floats_of(tensors[other])]
    return sizes if s == 1 else [math.sqrt(size) for size in sizes]


# 8.3 Random numbers


def philox_block(counter: Sequence[int], key: Sequence[int]) -> list[int]:
    """Four words."""
    c, (k0, k1) = list(counter), key
    for number in range(10):
        if number:
            k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
        h0, l0 = divmod(0xD2511F53 * c[0], 2**32)
        h1, l1 = divmod(0xCD9E8D57 * c[2], 2**32)
        c = [h1 ^ c[1] ^ k0, l1, h0 ^ c[3] ^ k1, l0]
    return c


def philox_words(seed: int, stream: tuple[int, int], count: int) -> list[int]:
    """The first words of a stream."""
    words: list[int] = []
    for block in range(-(-count // 4)):
        words += philox_block((block, 0, *stream), (seed % 2**32, seed >> 32))
    return words[:count]


# 8.4 Arithmetic


def floats_of(tensor: Tensor) -> list[float]:
    """The values of a float tensor."""
    E, M = tensor.unit.exponent, tensor.unit.mantissa
    return [to_float(unit, E, M) for unit in unpack(tensor.data, tensor.unit)]


def add_to_units(data: bytes, addends: Sequence[float], unit: Dtype) -> bytes:
    """Units with addends, rounded once."""
    E, M = unit.exponent, unit.mantissa
    units = unpack(data, unit)
    for e, addend in enumerate(addends):
        old = to_float(units[e], E, M)
        if addend != 0 and math.isfinite(old):
            total = old + addend
            nan = (2 ** (E + 1) - 1) << (M - 1)
            units[e] = nan if math.isnan(total) else to_unit(total, E, M)
    return pack(units, unit)


def rebuilt_of_factors(change: Change, tensor: Tensor, seed: int) -> bytes:
    """Method 5: each matrix of the stack in turn."""
    f = change.fields
    o, i, p = f["o"], f["i"], f["p"]
    each = len(change.arrays) // p
    values = [v if math.isfinite(v) else 0.0 for v in floats_of(tensor)]
    size = o * i * tensor.unit.width // 8
    parts = []
    for q in range(p):
        matrix = rows_of_list(values[q * o * i : (q + 1) * o * i], i)
        arrays = change.arrays[q * each : (q + 1) * each]
        a, b = factor_pair(f, matrix, arrays, seed, (change.number, q))
        addends = [total for row in product(a, b, i) for total in row]
        old = bytes(size) if f["flags"] & 4 else tensor.data[q * size : (q + 1) * size]
        parts.append(add_to_units(old, addends, tensor.unit))
    return b"".join(parts)


def factor_pair(
    f: dict, matrix: Matrix, arrays: list[Array], seed: int, stream: tuple[int, int]
) -> tuple[Matrix, Matrix]:
    """A, of o rows, and B, of i columns."""
    o, i, n, r = f["o"], f["i"], f["n"], f["r"]
    spectrum, learned, mapping = f["flags"] & 1, f["flags"] & 2, f["flags"] & 4
    rest = iter(arrays)
    a: Matrix = [[] for _ in range(o)]
    b: Matrix = []
    u, s, vt = svd(matrix) if mapping or spectrum or r else ([], [], [])
    if spectrum:
        ds = next(rest).values
        for k, row in enumerate(a):
            row += [x * y for x, y in zip(u[k], ds, strict=True)]
        b += vt
    if n:
        left = rows_of_list(next(rest).values, n)
        for k, row in enumerate(a):
            row += left[k]
        scale = 2.0 ** -((i - 1).bit_length() // 2)
        words = philox_words(seed, stream, n * i)
        drawn = [scale if word & 1 else -scale for word in words]
        if learned:
            drawn = [x + y for x, y in zip(drawn, next(rest).values, strict=True)]
        b += rows_of_list(drawn, i)
    if r:
        first = [row[:r] for row in u]
        right = [list(row) for row in vt[:r]]
        if mapping:
            moved = rows_of_list(next(rest).values, r)
            first = [[first[k][j] * s[j] + moved[k][j] for j in range(r)] for k in range(o)]
            if learned:
                turned = rows_of_list(next(rest).values, i)
                right = [
                    [x + y for x, y in zip(one, two, strict=True)]
                    for one, two in zip(right, turned, strict=True)
                ]
        else:
            first = product(first, rows_of_list(next(rest).values, r), r)
        for k, row in enumerate(a):
            row += first[k]
        b += right
    return a, b


def rows_of_list(values: Sequence[float], columns: int) -> Matrix:
    """A matrix from its values."""
    return [list(values[at : at + columns]) for at in range(0, len(values), columns)]


def product(a: Matrix, b: Matrix, columns: int) -> Matrix:
    """A product of matrices; each sum in ascending order."""
    result = []
    for row in a:
        sums = [0.0] * columns
        for x, other in zip(row, b, strict=True):
            sums = [total + x * y for total, y in zip(sums, other, strict=True)]
        result.append(sums)
    return result


# 8.5 Singular value decomposition


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    """A sum in eight lanes."""
    lane = [0.0] * 8
    for e, (x, y) in enumerate(zip(a, b, strict=True)):
        lane[e % 8] += x * y
    even = (lane[0] + lane[4]) + (lane[2] + lane[6])
    return even + ((lane[1] + lane[5]) + (lane[3] + lane[7]))


def svd(matrix: Matrix) -> tuple[Matrix, list[float], Matrix]:
    """U, the values, and V^T."""
    o, i = len(matrix), len(matrix[0])
    largest = max(abs(value) for row in matrix for value in row)
    x = math.frexp(largest)[1] - 1 if largest else 0
    b = [[math.ldexp(value, -x) for value in row] for row in matrix]
    if o > i:
        b = [list(column) for column in zip(*b, strict=True)]
    left, s, right = decompose(b)
    if o > i:
        left, right = right, left
    for k, row in enumerate(right):
        magnitudes = [abs(value) for value in row]
        if row[magnitudes.index(max(magnitudes))] < 0:
            right[k] = [-value for value in row]
            left[k] = [-value for value in left[k]]
    u = [list(column) for column in zip(*left, strict=True)]
    return u, [math.ldexp(value, x) for value in s], right


def decompose(b: Matrix) -> tuple[Matrix, list[float], Matrix]:
    """Of m rows of n, m <= n: left vectors, values, right vectors; a vector a row."""
    m = len(b)
    x = rotated(triangle(b))
    values = [math.sqrt(dot(row, row)) for row in x]
    order = sorted(range(m), key=lambda p: (-values[p], p))
    left, s, right = [], [], []
    for p in order:
        value = values[p]
        null = value < values[order[0]] * 2.0**-40 or value == 0
        s.append(0.0 if null else value)
        left.append([0.0] * m if null else [y / value for y in x[p]])
        sums = [0.0] * len(b[0])
        for y, row in zip(left[-1], b, strict=True):
            sums = [total + y * z for total, z in zip(sums, row, strict=True)]
        right.append([0.0] * len(sums) if null else [total / value for total in sums])
    return left, s, right


def triangle(b: Matrix) -> Matrix:
    """r."""
    m, w = len(b), [list(row) for row in b]
    r = [[0.0] * m for _ in range(m)]
    beta: list[float] = []
    for k in range(m):
        for j in range(k):
            if beta[j]:
                t = dot(w[j][j:], w[k][j:]) * beta[j]
                w[k][j:] = [y - t * v for y, v in zip(w[k][j:], w[j][j:], strict=True)]
            r[j][k] = w[k][j]
        g = dot(w[k][k:], w[k][k:])
        d = 0.0
        if g:
            d = -math.sqrt(g) if w[k][k] > 0 else math.sqrt(g)
        beta.append(1 / (g - w[k][k] * d) if g else 0.0)
        r[k][k] = d
        w[k][k] -= d
    return r


def rotated(x: Matrix) -> Matrix:
    """Rows that are orthogonal to each other."""
    m, moved, sweep = len(x), True, 0
    while moved and sweep < 40:
        moved, sweep = False, sweep + 1
        q = [dot(row, row) for row in x]
        for p in range(m - 1):
            for c in range(p + 1, m):
                g = dot(x[p], x[c])
                if q[p] * q[c] < 0 or not abs(g) > 2.0**-46 * math.sqrt(q[p] * q[c]):
                    continue
                moved = True
                z = (q[c] - q[p]) / (2 * g)
                t = 1 / (abs(z) + math.sqrt(1 + z * z))
                t = -t if z < 0 else t
                k = 1 / math.sqrt(1 + t * t)
                turn = k * t
                pairs = list(zip(x[p], x[c], strict=True))
                x[p] = [k * y - turn * z for y, z in pairs]
                x[c] = [turn * y + k * z for y, z in pairs]
                q[p], q[c] = max(0.0, q[p] - t * g), q[c] + t * g
    return x


# ---------------------------------------------------------------------------------------------
# 9. Features

FEATURE_MAGIC = b"\x89LMSF\r\n\x1a"
PROFILED_DTYPES = ("F64", "F32", "F16", "BF16")


@dataclass
class Feature:
    """The tensors of a feature as they are, and as they were coded."""

    state: State
    coded: State


def source_of(model: bytes, cut: str, profile: State | None = None) -> bytes:
    """9.1."""
    return blake3(model + (profile.digest if profile else b"") + cut.encode()).digest()[:8]


def decode_feature(
    data: bytes, wanted: bytes, before: Feature | None = None, profile: State | None = None
) -> Feature:
    """A feature of the source `wanted`."""
    limits = Limits()
    if len(data) < 32:
        raise TruncatedError("the feature is cut off")
    if data[:8] != FEATURE_MAGIC:
        raise CorruptError("not a feature")
    if data[8] != 0:
        raise UnsupportedError("feature, byte 8: an unknown version")
    if crc32c(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise ChecksumError("the crc32c of the feature is wrong")
    source = Cursor(data[:-12], "feature")
    source.take(9)
    found, _, flags = source.take(8), source.varint(), source.uint(1)
    if found != wanted:
        raise BaseMismatchError(f"a feature of {found.hex()}, expected {wanted.hex()}")
    source.require(flags < 8, f"flags {flags}")
    base = None
    if flags & 1:
        name = source.take(8)
        if before is None or before.state.digest[:8] != name:
            raise BaseMismatchError(f"needs the feature {name.hex()}")
        base = before.coded
    count = limits.check("max_tensors", source.varint(), "feature: tensors")
    source.require(count > 0, "no tensors")
    state = State([read_tensor_entry(source, limits) for _ in range(count)])
    names = [tensor.name for tensor in state.tensors]
    source.require(len(set(names)) == count, "two tensors have one name")
    for number, tensor in enumerate(state.tensors):
        tensor.base_name = tensor.name
        if base is not None and base.base_of(tensor) is None:
            raise BaseMismatchError(f"tensor {tensor.name!r} is not that of the feature before")
        if flags & 4:
            tensor.data = source.take(tensor.nbytes)
        else:
            read_tensor(source, state, number, base, limits)
    source.require(source.left() == 0, "bytes after the chunks")
    tensors = [channels_back(t, profile) if flags & 2 else t for t in state.tensors]
    made = State(tensors, digest=feature_digest(tensors))
    if made.digest[:8] != data[-12:-4]:
        raise ChecksumError("the feature is not what was promised")
    return Feature(made, state)


def feature_digest(tensors: list[Tensor]) -> bytes:
    """The state digest."""
    whole = blake3()
    for tensor in sorted(tensors, key=lambda tensor: tensor.name.encode()):
        name = tensor.name.encode()
        whole.update(struct.pack("<I", len(name)) + name + tensor_digest(tensor))
    return whole.digest()


def channels_back(tensor: Tensor, profile: State | None) -> Tensor:
    """9.2."""
    known = {t.name: t for t in profile.tensors} if profile else {}
    if f"{tensor.name}.order" not in known or tensor.unit.name not in PROFILED_DTYPES:
        return tensor
    (axis,) = struct.unpack("<i", known[f"{tensor.name}.axis"].data)
    order = unpack(known[f"{tensor.name}.order"].data, DTYPES[9])
    scale = [to_float(u, 8, 23) for u in unpack(known[f"{tensor.name}.scale"].data, DTYPES[1])]
    if axis >= len(tensor.shape) or tensor.shape[axis] != len(order):
        raise BaseMismatchError(f"tensor {tensor.name!r} has other channels than the profile")
    E, M = tensor.unit.exponent, tensor.unit.mantissa
    inner = math.prod(tensor.shape[axis + 1 :])
    units = unpack(tensor.data, tensor.unit)
    out = list(units)
    for i, unit in enumerate(units):
        outer, rest = divmod(i, inner * len(order))
        k, place = divmod(rest, inner)
        if (unit >> M) % 2**E != 2**E - 1:
            unit = rounded(to_float(unit, E, M) * scale[k], E, M)
        out[(outer * len(order) + order[k]) * inner + place] = unit
    return replace(tensor, data=pack(out, tensor.unit))


# ---------------------------------------------------------------------------------------------
# The command


def write_folder(state: State, folder: Path) -> None:
    """Tensors in numbered files, since a name can be anything, and tensors.json with the rest."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for i, t in enumerate(state.tensors):
        (folder / f"{i:06}.bin").write_bytes(t.data)
        entries.append({"name": t.name, "dtype": t.unit.name, "shape": t.shape})
    for i, s in enumerate(state.sources):
        (folder / f"source-{i:06}.skeleton").write_bytes(s.skeleton)
    sources = [[s.path, KINDS[s.kind], s.tensors] for s in state.sources]
    record = {"digest": state.digest.hex(), "tensors": entries, "sources": sources}
    (folder / "tensors.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def read_base(path: Path) -> State:
    """A .limosa file that needs no base itself, or a folder that -o wrote."""
    if path.is_file():
        return decode(path.read_bytes())
    record = json.loads((path / "tensors.json").read_text(encoding="utf-8"))
    codes = {dtype.name: code for code, dtype in enumerate(DTYPES)}
    state = State(digest=bytes.fromhex(record["digest"]))
    for i, entry in enumerate(record["tensors"]):
        data = (path / f"{i:06}.bin").read_bytes()
        shape = tuple(entry["shape"])
        state.tensors.append(Tensor(entry["name"], codes[entry["dtype"]], shape, data))
    return state


def print_state(state: State) -> None:
    """Tab-separated lines on standard output."""
    for t in state.tensors:
        digest = tensor_digest(t).hex() if blake3 is not None else t.digest.hex() + "..."
        shape = "x".join(map(str, t.shape)) or "scalar"
        print(f"{t.name}\t{t.unit.name}\t{shape}\t{crc32c(t.data):08x}\t{digest}")
    for s in state.sources:
        numbers = f"{len(s.tensors)} tensors, {len(s.skeleton)} bytes of skeleton"
        print(f"source {s.path!r}\t{KINDS[s.kind]}\t{numbers}")
    print(f"state\t{state.digest.hex()}\t{'verified' if state.checked else 'NOT verified'}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description="Decode a .limosa file, slowly.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--base", type=Path, help="a .limosa file, or a folder that -o wrote")
    parser.add_argument("-o", "--output", type=Path, help="folder for the bytes of the tensors")
    options = parser.parse_args(arguments)
    try:
        data = options.file.read_bytes()
        base = read_base(options.base) if options.base else None
        is_set = data.startswith(SET_MAGIC)
        if data.startswith(REFINEMENT_MAGIC):
            states = {"": decode_refinement(data, base)}
        else:
            states = decode_set(data, base) if is_set else {"": decode(data, base)}
    except ReferenceError as error:
        print(f"{error.kind}: {error}", file=sys.stderr)
        return 3 if isinstance(error, BaseMismatchError) else 1
    if blake3 is None:
        print("digests were not verified: `pip install blake3` for that", file=sys.stderr)
    for number, (name, state) in enumerate(states.items()):
        if name:
            print(f"model {name!r}")
        print_state(state)
        if options.output:
            write_folder(state, options.output / f"{number:06}" if name else options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
