"""How many bytes a coding would take, from a spread sample of real chunks."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from limosa import _core
from limosa.codec.base import Base
from limosa.codec.config import Digits, Lossless
from limosa.codec.constants import UNIT_BYTES
from limosa.codec.lossy import encode_lossy
from limosa.codec.quality import Quality, Target
from limosa.files.bundle import Bundle
from limosa.tensors import Bytes, TensorSpec

# 48 places of up to 32 Ki units: 6 MiB of F32, a few milliseconds for each candidate.
_PLACES = 48
_UNITS = 32 * 1024


class Slice(NamedTuple):
    """Bytes *begin* to *end* of a tensor, on unit boundaries."""

    spec: TensorSpec
    begin: int
    end: int
    data: Bytes


def sample(bundle: Bundle) -> list[Slice]:
    """Slices spread evenly over the bytes of a bundle with random access."""
    ends = list(accumulate(spec.nbytes for spec in bundle.specs))
    total = ends[-1] if ends else 0
    slices = []
    seen: set[tuple[str, int]] = set()
    for place in range(_PLACES):
        offset = (2 * place + 1) * total // (2 * _PLACES)
        if offset >= total:
            break
        number = bisect_right(ends, offset)
        spec = bundle.specs[number]
        piece = cut(spec, offset - (ends[number] - spec.nbytes), bundle.get(spec.name).data)
        if (spec.name, piece.begin) not in seen:
            seen.add((spec.name, piece.begin))
            slices.append(piece)
    return slices


def cut(spec: TensorSpec, offset: int, data: Bytes) -> Slice:
    """A slice of sample length around byte *offset*; the whole tensor if it is shorter."""
    unit = UNIT_BYTES[spec.dtype]
    length = min(_UNITS * unit, spec.nbytes)
    begin = max(0, min(offset - length // 2, spec.nbytes - length)) // unit * unit
    return Slice(spec, begin, begin + length, data[begin : begin + length])


def coded_bytes(
    slices: Sequence[Slice],
    base: Base | None,
    names: Sequence[str | None] | None,
    quality: Quality,
    threads: int,
) -> int:
    """Bytes that *slices* take, each against the tensor of *base* named in *names*.

    *names* None means the tensor of the same name.
    """
    bases: list[Bytes | None] = []
    for position, piece in enumerate(slices):
        name = piece.spec.name if names is None else names[position]
        whole = None if base is None else base.data(name, piece.spec)
        bases.append(None if whole is None else whole[piece.begin : piece.end])
    return coded_against(slices, bases, quality, threads)


def coded_against(
    slices: Sequence[Slice], bases: Sequence[Bytes | None], quality: Quality, threads: int
) -> int:
    """Bytes that *slices* take against these bytes of their bases."""
    if not slices:
        return 0
    frames = _core.OutputBuffer()
    # A target has no step yet, and lzma is slow: which base is best hardly depends on either.
    if isinstance(quality, Target):
        quality = Lossless()
    elif isinstance(quality, Digits):
        quality = Digits(quality.p)
    encode_lossy(frames, [(piece.spec, piece.data) for piece in slices], bases, quality, threads)
    return len(frames)
