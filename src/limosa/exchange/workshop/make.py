"""Edges: a version encoded against another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from limosa.codec.base import Base
from limosa.codec.encoder import EncodeResult, encode
from limosa.exchange.workshop.unpacked import open_unpacked
from limosa.limits import Limits


def make_edge(
    base: Base | None,
    target: Path,
    sink: Callable[[bytes], object],
    *,
    limits: Limits,
    threads: int | None = None,
) -> EncodeResult:
    """Encode what was decoded into *target* against *base*, or whole, into *sink*.

    Raises:
        FormatError: somebody changed what was decoded.
    """
    with open_unpacked(target, limits) as bundle:
        return encode(bundle, sink, base=base, threads=threads)
