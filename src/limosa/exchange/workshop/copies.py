"""Lossy copies of a version, with how far they are from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limosa.codec.encoder import encode
from limosa.errors import ConfigError
from limosa.exchange.qualities import parse_quality
from limosa.exchange.workshop.compare import compare
from limosa.exchange.workshop.unpacked import base_of, open_unpacked
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
    limits: Limits,
    threads: int | None = None,
) -> Copy:
    """Encode *target* with loss to *blob*, decode that to *out*, and measure the difference.

    *target* and *out* are folders of decoded versions (:mod:`limosa.exchange.workshop.unpacked`).

    Raises:
        ConfigError: *quality* says nothing, or nothing that can be had.
        FormatError: a file is damaged.
    """
    with open_unpacked(target, limits) as bundle, blob.open("wb") as file:
        encode(bundle, file.write, quality=parse_quality(quality), threads=threads)
    found = verify_blob(blob, None, out, limits=limits, threads=threads)
    one, two = base_of(target, limits, threads), base_of(out, limits, threads)
    assert one is not None
    assert two is not None
    distance = compare(one, two)
    if distance.max_error == 0.0:
        raise ConfigError(
            "nothing is lost at this quality", found=quality, remedy="ask for the version itself"
        )
    return Copy(found.manifest, {"quality": quality, **vars(distance)}, found.memory)
