"""Lossy copies of a version, with how far they are from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limosa.codec.opening import open_base
from limosa.errors import ConfigError
from limosa.exchange import local
from limosa.exchange.qualities import parse_quality
from limosa.exchange.workshop.compare import compare
from limosa.exchange.workshop.verify import verify_blob
from limosa.hub.manifest import Manifest
from limosa.limits import Limits


@dataclass(frozen=True)
class Copy:
    """A lossy copy.

    Attributes:
        manifest: of what it decodes to.
        bound: ``quality`` as asked for, ``snr`` in dB and ``max_error`` as measured.
        memory: bytes that a receiver needs to decode it.
    """

    manifest: Manifest
    bound: Mapping[str, Any]
    memory: int


def make_copy(
    target: Path,
    quality: str,
    blob: Path,
    out: Path,
    *,
    limits: Limits | None = None,
    threads: int | None = None,
) -> Copy:
    """Encode *target* with loss to *blob*, decode that to *out*, and measure the difference.

    Raises:
        ConfigError: *quality* says nothing, or nothing that can be had.
        FormatError: a file is damaged.
    """
    local.compress(target, blob, quality=parse_quality(quality), limits=limits, threads=threads)
    found = verify_blob(blob, None, out, limits=limits, threads=threads)
    distance = compare(
        open_base(target, limits=limits, threads=threads),
        open_base(out, limits=limits, threads=threads),
    )
    if distance.max_error == 0.0:
        raise ConfigError(
            "nothing is lost at this quality", found=quality, remedy="ask for the version itself"
        )
    return Copy(found.manifest, {"quality": quality, **vars(distance)}, found.memory)
