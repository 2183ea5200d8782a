"""What an edge would take, before it is made."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from limosa.codec.base import Base
from limosa.codec.config import Lossless, thread_count
from limosa.codec.constants import CHUNK_UNITS, UNIT_BYTES, chunk_count
from limosa.codec.encoder import encode
from limosa.codec.measure import Slice, coded_bytes
from limosa.codec.plan import match_names
from limosa.exchange.workshop.unpacked import base_of, open_unpacked
from limosa.files import Bundle
from limosa.limits import MIB, Limits
from limosa.tensors import Bytes, TensorSpec

# Up to here the whole is encoded: that is as fast as planning a sample, and exact.
_SMALL = 16 * MIB
# Chunks that are coded of a larger one.
_PLACES = 48
# Bytes of a header, an index and a footer, beside what each tensor takes there.
_FIXED = 94
_PER_TENSOR = 24


@dataclass(frozen=True)
class _Stratum:
    """Slices of one tensor, which stand for so many bytes of the model."""

    stands_for: float
    slices: list[Slice]


def estimate(
    bases: Sequence[Path | None], target: Path, *, limits: Limits, threads: int | None = None
) -> list[int]:
    """Bytes of *target* against each of *bases*; None stands for nothing, a whole model.

    All are folders of decoded versions (:mod:`limosa.exchange.workshop.unpacked`).

    Models of more than 16 MiB are judged by chunks that are spread over all of their bytes; on
    a model of 160 MiB that was within 1 % of what encoding took.

    Raises:
        FormatError: a file is damaged.
    """
    with open_unpacked(target, limits) as bundle:
        sampled = None if bundle.nbytes <= _SMALL else _strata(bundle)
        return [_one(bundle, sampled, base_of(base, limits, threads), threads) for base in bases]


def _one(
    bundle: Bundle, sampled: list[_Stratum] | None, held: Base | None, threads: int | None
) -> int:
    if sampled is None:
        return encode(bundle, lambda data: None, base=held, threads=threads).bytes_out
    count = thread_count(threads)
    found = None if held is None else match_names(bundle, held, Lossless(), count)
    own = [spec.name for spec in bundle.specs]
    names = dict(zip(own, own if found is None else found, strict=True))
    nbytes = float(_FIXED + sum(len(name) // 4 + _PER_TENSOR for name in own))
    for part in sampled:
        against = [names[piece.spec.name] for piece in part.slices]
        coded = coded_bytes(part.slices, held, against, Lossless(), count)
        nbytes += part.stands_for * coded / sum(len(piece.data) for piece in part.slices)
    return round(nbytes)


def _strata(bundle: Bundle) -> list[_Stratum]:
    """Each large tensor by chunks of its own; all others together by some of them."""
    step = bundle.nbytes / _PLACES
    large = [spec for spec in bundle.specs if spec.nbytes >= step]
    strata = []
    for spec in large:
        data, count = bundle.get(spec.name).data, chunk_count(spec)
        places = min(count, math.ceil(spec.nbytes / step))
        chosen = [count * (2 * i + 1) // (2 * places) for i in range(places)]
        strata.append(_Stratum(spec.nbytes, [_chunk(spec, data, one) for one in chosen]))
    small = [spec for spec in bundle.specs if 0 < spec.nbytes < step]
    ends = list(accumulate(spec.nbytes for spec in small))
    places = math.ceil(ends[-1] / step) if ends else 0
    for i in range(places):
        # With a chance as large as they are: so each stands for as many bytes.
        spec = small[bisect_right(ends, ends[-1] * (2 * i + 1) // (2 * places))]
        piece = _chunk(spec, bundle.get(spec.name).data, i % chunk_count(spec))
        strata.append(_Stratum(ends[-1] / places, [piece]))
    return strata


def _chunk(spec: TensorSpec, data: Bytes, number: int) -> Slice:
    size = CHUNK_UNITS * UNIT_BYTES[spec.dtype]
    begin = number * size
    end = min(begin + size, spec.nbytes)
    return Slice(spec, begin, end, data[begin:end])
