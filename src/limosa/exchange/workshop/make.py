"""Edges: a version encoded against another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from limosa.codec.encoder import EncodeResult, encode
from limosa.codec.opening import open_base
from limosa.codec.quality import Quality
from limosa.files import read


def make_edge(
    base: Path | None,
    target: Path,
    sink: Callable[[bytes], object],
    *,
    quality: Quality | None = None,
    threads: int | None = None,
) -> EncodeResult:
    """Encode *target* against *base*, or whole, into *sink*, piece by piece.

    Raises:
        FormatError: a file is damaged.
        ConfigError: a setting is impossible.
    """
    held = None if base is None else open_base(base, threads=threads)
    with read(target) as bundle:
        return encode(bundle, sink, base=held, quality=quality, threads=threads)
