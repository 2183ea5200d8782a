"""Blobs that nobody vouches for: decoded, and compared with what was said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limosa.codec.base import Base
from limosa.codec.inputs import Far, Memory, open_input
from limosa.codec.layers import layer_spans, open_layer
from limosa.codec.opening import Model, is_refinement, is_set, open_model
from limosa.errors import ChecksumError, ConfigError
from limosa.exchange import local
from limosa.exchange.forms import make_manifest, manifest_of
from limosa.exchange.workshop.compare import compare
from limosa.exchange.workshop.unpacked import base_of, unpack
from limosa.hub.manifest import Manifest
from limosa.limits import MIB, Limits
from limosa.tensors import TensorSpec

# A batch of tensors, the tables of the coder, and what Python itself takes.
_WORKING_BYTES = 64 * MIB


@dataclass(frozen=True)
class LayerEnd:
    """What the first layers of a blob give.

    Attributes:
        nbytes: of the prefix that holds them.
        manifest: of what it decodes to.
        bound: how far that is from the whole, ``quality``, ``snr`` and ``max_error``; None for
            the whole itself.
    """

    nbytes: int
    manifest: Manifest
    bound: Mapping[str, Any] | None


@dataclass(frozen=True)
class VerifiedBlob:
    """What a blob was found to hold.

    Attributes:
        manifest: of what it decodes to.
        base_state: of the base that it is coded against; "" for a whole model.
        memory: bytes that a receiver needs to apply it.
        layers: one for each layer of quality; none for a blob without.
    """

    manifest: Manifest
    base_state: str
    memory: int
    layers: tuple[LayerEnd, ...] = ()


@dataclass(frozen=True)
class ReadThrough:
    """The state that a blob was found to give, and the memory that it takes."""

    state: str
    memory: int


def verify_blob(
    blob: Path,
    base: Base | None,
    out: Path,
    *,
    expected: str | None = None,
    limits: Limits,
    threads: int | None = None,
) -> VerifiedBlob:
    """Decode *blob* into the folder *out* (:mod:`limosa.exchange.workshop.unpacked`).

    Args:
        blob: a whole model, an update, a refinement or a file with layers.
        base: the model that it was coded against.
        out: a folder, which is made.
        expected: the digest of the version that it should give.
        limits: what it may ask for.
        threads: to decode with.

    Raises:
        FormatError: it is damaged or hostile, or gives another version.
        BaseMismatchError: it was coded against another base.
        ConfigError: it is a set of models.
    """
    if is_set(blob):
        raise ConfigError("a set of models is no version", remedy="push its models one by one")
    model = open_model(blob, base=base, limits=limits, threads=threads, verify=True)
    base_state = "" if model.base_digest is None else model.base_digest.hex()
    memory = _memory(model.specs, base_state)
    unpack(model, out, limits)
    manifest = _manifest(model, out, limits, threads)
    if expected is not None and manifest.digest != expected:
        raise ChecksumError(
            "the blob gives another version than announced", where=f"state {manifest.state[:16]}",
            found=manifest.digest, allowed=expected,
        )  # fmt: skip
    layers = _layers(blob, base, out, manifest, limits, threads)
    if layers:
        # What the first layer starts from is what the whole starts from.
        first = open_layer(blob, 1, base=base, limits=limits, threads=threads)
        base_state = "" if first.base_digest is None else first.base_digest.hex()
    return VerifiedBlob(manifest, base_state, memory, layers)


def _manifest(model: Model, out: Path, limits: Limits, threads: int | None) -> Manifest:
    digests = getattr(model, "tensor_digests", None)
    if digests is None:  # a refinement knows the digest of the whole only
        decoded = base_of(out, limits, threads)
        assert decoded is not None
        return manifest_of(decoded)
    return make_manifest(model.digest, model.specs, digests, model.sources)


def _memory(specs: Sequence[TensorSpec], base_state: str) -> int:
    largest = max((spec.nbytes for spec in specs), default=0)
    return _WORKING_BYTES + largest * (2 if base_state else 1)


def _layers(
    blob: Path,
    base: Base | None,
    whole: Path,
    manifest: Manifest,
    limits: Limits,
    threads: int | None,
) -> tuple[LayerEnd, ...]:
    opened = open_input(blob)
    assert isinstance(opened, Memory | Far)
    if is_refinement(blob) or len(spans := layer_spans(opened, None, limits)) < 2:
        return ()
    target = base_of(whole, limits, threads)
    assert target is not None
    ends = []
    for number, (_, end) in enumerate(spans[:-1], 1):
        with open_layer(blob, number, base=base, limits=limits, threads=threads) as layer:
            layer.verify()  # or its sender could pass it off as any version
            found = make_manifest(layer.digest, layer.specs, layer.tensor_digests, layer.sources)
            distance = compare(target, layer.as_base())
        bound = {"quality": f"layer {number}", **vars(distance)}
        ends.append(LayerEnd(end, found, bound))
    return (*ends, LayerEnd(spans[-1][1], manifest, None))


def read_through(
    blob: Path, base: Base | None, *, limits: Limits, threads: int | None = None
) -> ReadThrough:
    """Decode a blob without keeping what it gives.

    Raises:
        FormatError, BaseMismatchError: as for :func:`verify_blob`.
    """
    state = local.verify(blob, base=base, limits=limits, threads=threads)
    model = open_model(blob, base=base, limits=limits, threads=threads)
    base_state = "" if model.base_digest is None else model.base_digest.hex()
    return ReadThrough(state.hex(), _memory(model.specs, base_state))


def check_state(found: str, wanted: str, where: str) -> None:
    """Refuse what gives another state than it should.

    Raises:
        ChecksumError: it does.
    """
    if found != wanted:
        raise ChecksumError(
            "it gives another state than it should", where=where, found=found, allowed=wanted
        )
