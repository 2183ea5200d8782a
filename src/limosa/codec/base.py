"""A base: the tensors that the receiver already holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from limosa.codec.config import thread_count
from limosa.codec.constants import BATCH_BYTES, BATCH_TENSORS, INDEX_DIGEST_BYTES
from limosa.codec.digests import digests_of
from limosa.errors import BaseMismatchError, ConfigError
from limosa.files.bundle import Bundle, Source
from limosa.files.safetensors import bundle_from_tensors
from limosa.tensors import Bytes, Tensor, TensorSpec, state_digest


class Base:
    """Tensors that coding may start from, and the digest that names them.

    Args:
        get: gives the tensor of a name, or None.
        digest: the state digest (docs/format.md 4), 32 bytes.
        specs: dtype and shape of each tensor; needed to recognise renamed tensors.
        digests: the first 8 bytes of each tensor's digest; needed for the same.
        sources: the files that the tensors came from; needed to write such files again.

    Computing the digest reads every tensor once, so keep a ``Base`` that is used again.
    """

    def __init__(
        self,
        get: Callable[[str], Tensor | None],
        digest: bytes,
        *,
        specs: Mapping[str, TensorSpec] | None = None,
        digests: Mapping[str, bytes] | None = None,
        sources: Sequence[Source] = (),
    ) -> None:
        self._get = get
        self.digest = digest
        self.specs: Mapping[str, TensorSpec] = specs or {}
        self.digests: Mapping[str, bytes] = digests or {}
        self.sources = tuple(sources)

    @classmethod
    def from_bundle(cls, bundle: Bundle, *, threads: int | None = None) -> Base:
        """The tensors of a bundle with random access, as a base.

        Raises:
            ConfigError: the bundle reads from a pipe.
        """
        if not bundle.random_access:
            raise ConfigError("a base cannot come from a pipe", remedy="write it to a file first")
        specs = {spec.name: spec for spec in bundle.specs}
        digests = _digest_all(bundle, thread_count(threads))

        def get(name: str) -> Tensor | None:
            return bundle.get(name) if name in specs else None

        return cls(
            get,
            state_digest(digests),
            specs=specs,
            digests=_shortened(digests),
            sources=bundle.sources,
        )

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], *, threads: int | None = None) -> Base:
        """Tensors in memory, as a base; they must not change while it is used.

        >>> import numpy as np
        >>> tensor = Tensor("U8", (2,), np.array([1, 2], np.uint8))
        >>> len(Base.from_tensors({"w": tensor}).digest)
        32
        """
        specs = {name: tensor.spec(name) for name, tensor in tensors.items()}
        pairs = [(specs[name], tensor.data) for name, tensor in tensors.items()]
        digests = dict(zip(specs, digests_of(pairs, thread_count(threads)), strict=True))
        held = dict(tensors)
        return cls(
            held.get,
            state_digest(digests),
            specs=specs,
            digests=_shortened(digests),
            sources=bundle_from_tensors(held).sources,
        )

    def check(self, wanted: bytes) -> None:
        """Refuse to serve an update that was made from another base.

        Raises:
            BaseMismatchError: *wanted* is not the digest of this base.
        """
        if self.digest != wanted:
            raise BaseMismatchError(
                "this is not the base that the update was made from",
                found=self.digest.hex(),
                allowed=wanted.hex(),
                remedy="pass the model that the update was made from",
            )

    def data(self, name: str | None, spec: TensorSpec) -> Bytes | None:
        """The bytes of base tensor *name*, if it has the dtype and shape of *spec*."""
        tensor = None if name is None else self._get(name)
        if tensor is None or tensor.dtype != spec.dtype or tensor.shape != spec.shape:
            return None
        return tensor.data


def no_base(wanted: bytes) -> BaseMismatchError:
    """The error for an update without its base."""
    return BaseMismatchError(
        "this is an update, and it needs its base",
        found="no base",
        allowed=wanted.hex(),
        remedy="pass the model that the update was made from as base",
    )


def _digest_all(bundle: Bundle, threads: int) -> dict[str, bytes]:
    """Digests of all tensors, a batch at a time so that few are in memory together."""
    digests: dict[str, bytes] = {}
    batch: list[tuple[TensorSpec, Bytes]] = []
    size = 0

    def flush() -> None:
        found = digests_of(batch, threads)
        digests.update(zip([spec.name for spec, _ in batch], found, strict=True))
        batch.clear()

    for spec, data in bundle:
        batch.append((spec, data))
        size += data.nbytes
        if size >= BATCH_BYTES or len(batch) >= BATCH_TENSORS:
            flush()
            size = 0
    flush()
    return digests


def _shortened(digests: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name: digest[:INDEX_DIGEST_BYTES] for name, digest in digests.items()}
