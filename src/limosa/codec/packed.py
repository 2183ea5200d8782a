"""Packed chunks (docs/format.md 3.16): tensors that repeat themselves, through LZMA.

Weights are noise to a compressor of text, and the core codes them far better. Indices, masks and
ids are not: positions of windows repeat, rows of a causal mask look like those before, offsets of
rows rise evenly. Such tensors are small beside the weights, so this is the standard library.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limosa import _core
from limosa.codec.constants import (
    CHUNK_UNITS,
    FLOAT_DTYPES,
    FRAME_HEAD_BYTES,
    MODE_PACKED,
    UNIT_BYTES,
    core_dtype,
)
from limosa.codec.cursor import Cursor, put_varint
from limosa.codec.lzma_decimal import decompress
from limosa.codec.sections import frame
from limosa.errors import CorruptError
from limosa.tensors import Bytes, TensorSpec

PLAIN, DIFFERENCES = 0, 1

_INTEGERS = frozenset({"I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"})
# A chunk has at most so many bytes: nothing further back could be referred to.
_DICTIONARY = 2**21
_LEAST_DICTIONARY = 2**12
# Less saves nothing beside the head of the stream.
_LEAST_BYTES = 256
# Of a long tensor so many bytes are tried first, and have to be so much smaller.
_PROBE_BYTES, _PROBE_SHARE = 2**14, 0.9
# What deflate, which is quick, makes so much more of than the core is no matter for LZMA either,
# nor what it leaves as long as it was.
_HOPE, _NOISE = 1.25, 0.97
# Floats of so few values, at so many places, are masks and not weights.
_MASK_VALUES, _MASK_PLACES = 4, 1024

#: Appends the frames of tensors from one place of a run to another, by the core.
Core = Callable[[int, int, _core.OutputBuffer], NDArray[np.uint32]]


def encode_run(
    out: _core.OutputBuffer,
    run: Sequence[tuple[TensorSpec, Bytes]],
    exact: Sequence[bool],
    core: Core,
    threads: int,
) -> NDArray[np.uint32]:
    """Append the frames of a run of tensors; return the lengths of their payloads.

    Args:
        out: for the frames.
        run: the tensors.
        exact: of which of them the data alone are to be coded, without base or loss: these are
            packed where that is smaller.
        core: codes the others.
        threads: for packing.
    """
    lengths, start = [], 0
    for place, ((spec, data), is_exact) in enumerate(zip(run, exact, strict=True)):
        if not is_exact or not _may_repeat(spec, data):
            continue
        alone = _core.OutputBuffer()
        core(place, place + 1, alone)
        payloads = _packed(spec, data, len(alone), threads)
        if payloads is None:
            continue
        if start < place:
            lengths.append(core(start, place, out))
        for payload in payloads:
            out.append(frame(payload))
        lengths.append(np.array([len(payload) for payload in payloads], np.uint32))
        start = place + 1
    if start < len(run):
        lengths.append(core(start, len(run), out))
    return np.concatenate(lengths)


def decode_payload(payload: bytes, out: Bytes, dtype: str, where: str) -> None:
    """Decode one chunk into *out*, whose size says how many units there are.

    Raises:
        TruncatedError, CorruptError: the payload is not such a chunk.
    """
    width = UNIT_BYTES[dtype]
    cursor = Cursor(payload, where)
    mode, count, transform = cursor.u8(), cursor.varint(), cursor.u8()
    if mode != MODE_PACKED or count not in (0, out.nbytes // width):
        raise CorruptError("the block is not the whole chunk", where=where, found=f"count {count}")
    if transform > DIFFERENCES or (transform and width not in (1, 2, 4, 8)):
        raise CorruptError("no such transform", where=where, found=str(transform))
    raw = _unpack(cursor.take(cursor.varint()), out.nbytes, cursor.place())
    cursor.finish()
    if transform == PLAIN:
        out[:] = raw
        return
    units = raw.view(f"<u{width}")
    out[:] = np.cumsum(units, dtype=units.dtype).view(np.uint8)


def _may_repeat(spec: TensorSpec, data: Bytes) -> bool:
    if data.nbytes < _LEAST_BYTES:
        return False
    if spec.dtype in _INTEGERS:
        return True
    if spec.dtype not in FLOAT_DTYPES or spec.dtype == "C64":
        return False
    units = data.view(f"<u{UNIT_BYTES[spec.dtype]}")
    return len(np.unique(units[:: max(1, units.size // _MASK_PLACES)])) <= _MASK_VALUES


def _packed(spec: TensorSpec, data: Bytes, size: int, threads: int) -> list[bytes] | None:
    """The payloads of all chunks, if their frames are smaller than *size*."""
    width = UNIT_BYTES[spec.dtype]
    if not _worth_it(spec, data, width, size):
        return None
    length = CHUNK_UNITS * width
    chunks = [data[start : start + length] for start in range(0, data.nbytes, length)]
    if len(chunks) == 1 or threads == 1:
        payloads = [_pack(chunk, width) for chunk in chunks]
    else:
        with ThreadPoolExecutor(threads) as pool:
            payloads = list(pool.map(lambda chunk: _pack(chunk, width), chunks))
    total = sum(FRAME_HEAD_BYTES + len(payload) for payload in payloads)
    return payloads if total < size else None


def _worth_it(spec: TensorSpec, data: Bytes, width: int, size: int) -> bool:
    """Whether to try all: deflate is quick to say no, and LZMA on a sample of what is long."""
    if data.nbytes <= 4 * _PROBE_BYTES:
        return _may_gain(data, width, size)
    middle = data.nbytes // 2 // width * width
    sample = data[middle : middle + _PROBE_BYTES]
    alone = _core.OutputBuffer()
    _core.encode_tensors(
        [sample], [None], [core_dtype(spec.dtype)], digits=-1, threads=1, out=alone
    )
    if not _may_gain(sample, width, len(alone)):
        return False
    return len(_pack(sample, width)) < _PROBE_SHARE * len(alone)


def _may_gain(data: Bytes, width: int, size: int) -> bool:
    deflated = min(len(zlib.compress(one.tobytes(), 1)) for one in _ways(data, width))
    return deflated < min(_HOPE * size, _NOISE * data.nbytes)


def _ways(chunk: Bytes, width: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The units, and their differences."""
    units = chunk.view(f"<u{width}")
    differences = units.copy()
    differences[1:] -= units[:-1]
    return units, differences


def _pack(chunk: Bytes, width: int) -> bytes:
    """The payload of a chunk: its bytes, or the differences of its units, whichever is smaller."""
    streams = [_compress(one.tobytes(), width) for one in _ways(chunk, width)]
    transform = PLAIN if len(streams[0]) <= len(streams[1]) else DIFFERENCES
    out = bytearray([MODE_PACKED, 0, transform])
    put_varint(out, len(streams[transform]))
    return bytes(out) + streams[transform]


def _compress(data: bytes, width: int) -> bytes:
    # A dictionary no larger than the data is set up in no time; places of a unit are told apart.
    size = max(_LEAST_DICTIONARY, min(_DICTIONARY, 1 << (len(data) - 1).bit_length()))
    bits = width.bit_length() - 1
    chosen = {
        "id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": size,
        "lc": min(3, 4 - bits), "lp": bits, "pb": bits,
    }  # fmt: skip
    return lzma.compress(data, lzma.FORMAT_RAW, filters=[chosen])


def _unpack(stream: bytes, size: int, where: str) -> Bytes:
    given = [{"id": lzma.FILTER_LZMA2, "dict_size": _DICTIONARY}]
    decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=given)
    return np.frombuffer(decompress(decoder, stream, size, "LZMA2", where), np.uint8)
