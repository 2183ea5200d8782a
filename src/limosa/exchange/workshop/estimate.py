"""What an edge would take, before it is made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from limosa.codec.base import Base
from limosa.codec.encoder import encode
from limosa.codec.joint import sampled_bytes
from limosa.codec.measure import sample
from limosa.exchange.workshop.unpacked import base_of, open_unpacked
from limosa.files import Bundle
from limosa.limits import MIB, Limits

# Up to here the whole is encoded: that is as fast as planning a sample, and exact.
_SMALL = 16 * MIB
# Bytes of a header, an index and a footer, beside what each tensor takes there.
_FIXED = 94
_PER_TENSOR = 24


def estimate(
    bases: Sequence[Path | None], target: Path, *, limits: Limits, threads: int | None = None
) -> list[int]:
    """Bytes of *target* against each of *bases*; None stands for nothing, a whole model.

    All are folders of decoded versions (:mod:`limosa.exchange.workshop.unpacked`).

    Large models are judged by a sample that is spread over all of their bytes.

    Raises:
        FormatError: a file is damaged.
    """
    with open_unpacked(target, limits) as bundle:
        return [_one(bundle, base_of(base, limits, threads), threads) for base in bases]


def _one(bundle: Bundle, held: Base | None, threads: int | None) -> int:
    if bundle.nbytes <= _SMALL:
        return encode(bundle, lambda data: None, base=held, threads=threads).bytes_out
    slices = sample(bundle)
    taken = sum(piece.end - piece.begin for piece in slices)
    found = sampled_bytes(bundle, slices, held, threads=threads)
    around = _FIXED + sum(len(spec.name) // 4 + _PER_TENSOR for spec in bundle.specs)
    return round(found * bundle.nbytes / taken) + around
