"""Chunks of a feature to tensors: what the decoder does, and the encoder to know what it got."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from limosa.codec.config import Lossless
from limosa.codec.constants import FEATURE_DIGEST_BYTES
from limosa.codec.feature.channels import PROFILED_DTYPES, from_coded
from limosa.codec.feature.source import FeatureSource
from limosa.codec.feature.wire import FeatureHeader, frame_lengths
from limosa.codec.frames import Frames, Piece, decode_pieces
from limosa.codec.layout import Layout
from limosa.errors import BaseMismatchError, ConfigError, CorruptError
from limosa.tensors import Bytes, Tensor, TensorMap, map_digest


@dataclass(frozen=True, eq=False)
class Held:
    """The last feature.

    Attributes:
        digest: 8 bytes.
        coded: its tensors as they were coded.
        predicted: whether it needed the one before.
    """

    digest: bytes
    coded: TensorMap
    predicted: bool


def copies_of(tensors: TensorMap) -> TensorMap:
    """The same in memory of its own."""
    return {name: Tensor(one.dtype, one.shape, one.data.copy()) for name, one in tensors.items()}


def feature_digest(tensors: TensorMap) -> bytes:
    """The beginning of the state digest of a decoded feature."""
    return map_digest(tensors)[:FEATURE_DIGEST_BYTES]


def decode_chunks(
    header: FeatureHeader, chunks: memoryview, base: TensorMap | None, threads: int
) -> TensorMap:
    """The tensors as they were coded.

    Raises:
        FormatError: the chunks are damaged.
        BaseMismatchError: the base has other tensors.
    """
    if header.raw:
        return _raw(header, chunks)
    lengths = frame_lengths(chunks, header.specs)
    pieces = []
    for number, spec in enumerate(header.specs):
        start = None
        if base is not None:
            held = base.get(spec.name)
            if held is None or held.spec(spec.name) != spec:
                raise BaseMismatchError(
                    "predicted from a feature of another shape", where=f"tensor {spec.name!r}",
                    found=str(spec.shape), remedy="ask the sender for a key feature",
                )  # fmt: skip
            start = held.data
        pieces.append(Piece(number, spec, np.empty(spec.nbytes, np.uint8), start))
    frames = Frames(np.frombuffer(chunks, np.uint8), np.array(lengths, np.uint32), 0)
    layout = Layout(specs=header.specs, sources=(), quality=Lossless())
    full = [piece for piece in pieces if piece.out.size]
    if full:
        decode_pieces(layout, full, frames, _no_copy, set(), threads)
    return {
        spec.name: Tensor(spec.dtype, spec.shape, piece.out)
        for spec, piece in zip(header.specs, pieces, strict=True)
    }


def restored(header: FeatureHeader, coded: TensorMap, source: FeatureSource) -> TensorMap:
    """The tensors with their channels in place.

    Raises:
        BaseMismatchError: the profile has no such tensor.
    """
    if not header.profiled:
        return coded
    out = {}
    for name, tensor in coded.items():
        known = None if source.profile is None else source.profile.channels.get(name)
        if known is None or tensor.dtype not in PROFILED_DTYPES:
            out[name] = tensor
            continue
        try:
            known.check(name, tensor.shape)
        except ConfigError as error:
            raise BaseMismatchError(str(error)) from None
        out[name] = from_coded(tensor, known)
    return out


def _raw(header: FeatureHeader, chunks: memoryview) -> TensorMap:
    out = {}
    at = 0
    for spec in header.specs:
        data = np.frombuffer(chunks[at : at + spec.nbytes], np.uint8)
        if data.size != spec.nbytes:
            raise CorruptError("raw data are cut off", where=f"tensor {spec.name!r}")
        out[spec.name] = Tensor(spec.dtype, spec.shape, data.copy())
        at += spec.nbytes
    if at != len(chunks):
        raise CorruptError("bytes behind the last tensor", found=f"{len(chunks) - at} bytes")
    return out


def _no_copy(number: int) -> Bytes:
    raise CorruptError("a feature copies no tensors", where=f"tensor number {number}")
