"""What a hub calls a model by: its manifest, made of its tensors and of the files around them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from limosa.codec.opening import BaseLike, open_base
from limosa.files.bundle import Source
from limosa.hub.manifest import FileEntry, Manifest, TensorEntry
from limosa.limits import Limits
from limosa.tensors import TensorSpec

_FORM = b"limosa form\0"


def form_of(sources: Iterable[Source]) -> str:
    """The digest of the files around tensors (docs/hub-protocol.md), 64 hexadecimal digits.

    >>> form_of([]) == form_of([Source("", "safetensors", b"", ())])
    False
    """
    from blake3 import blake3

    digest = blake3(_FORM)
    for source in sources:
        texts = [source.path.encode(), source.kind.encode(), source.skeleton]
        for part in (*texts, *(name.encode() for name in source.tensors)):
            digest.update(len(part).to_bytes(8, "little") + part)
        digest.update(len(source.tensors).to_bytes(8, "little"))
    return digest.hexdigest()


def manifest_of(
    model: BaseLike, *, limits: Limits | None = None, threads: int | None = None
) -> Manifest:
    """The manifest of a model: a path, arrays by name, or a base that was opened before.

    Every tensor is read once.

    Raises:
        FormatError: a file is damaged.
        ConfigError: there is no such file.

    >>> import numpy as np
    >>> [entry.name for entry in manifest_of({"w": np.zeros(2, np.float32)}).tensors]
    ['w']
    """
    base = open_base(model, limits=limits, threads=threads)
    return make_manifest(base.digest, list(base.specs.values()), base.digests, base.sources)


def make_manifest(
    state: bytes,
    specs: Sequence[TensorSpec],
    digests: Mapping[str, bytes],
    sources: Sequence[Source],
) -> Manifest:
    """A manifest from what a reader or a base knows.

    Args:
        state: the state digest.
        specs: of the tensors, in order.
        digests: the first eight bytes of each tensor's digest.
        sources: the files around them.
    """
    return Manifest(
        state.hex(),
        form_of(sources),
        sum(spec.nbytes for spec in specs),
        tuple(
            TensorEntry(spec.name, spec.dtype, tuple(spec.shape), digests[spec.name].hex())
            for spec in specs
        ),
        tuple(FileEntry(source.path, source.kind) for source in sources),
    )
