"""Decoded tensors: memory for them, and the digests that prove them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from limosa.codec.constants import INDEX_DIGEST_BYTES
from limosa.codec.digests import digest_of, digests_of
from limosa.codec.index import Index
from limosa.errors import ChecksumError, ConfigError, LimitError
from limosa.tensors import Bytes, TensorSpec, state_digest


class DigestCheck:
    """Digests of what was decoded, compared with the index once it is known."""

    def __init__(self, specs: tuple[TensorSpec, ...], threads: int) -> None:
        self._specs = specs
        self._threads = threads
        self._digests: list[bytes] = []

    def add(self, tensors: Sequence[tuple[TensorSpec, Bytes]]) -> None:
        """The next tensors, in order."""
        self._digests += digests_of(tensors, self._threads)

    def finish(self, index: Index) -> None:
        """Compare all.

        Raises:
            ChecksumError: the digest of a tensor, or of the state, differs.
        """
        for spec, found, expected in zip(self._specs, self._digests, index.digests, strict=True):
            if found[:INDEX_DIGEST_BYTES] != expected:
                raise _digest_error(f"tensor {spec.name!r}", found, expected)
        names = [spec.name for spec in self._specs]
        state = state_digest(zip(names, self._digests, strict=True))
        if state != index.state:
            raise _digest_error("state", state, index.state)


def check_digest(spec: TensorSpec, data: Bytes, expected: bytes, threads: int) -> None:
    """Compare the digest of one tensor with the beginning that the index has."""
    found = digest_of(spec, data, threads)
    if found[:INDEX_DIGEST_BYTES] != expected:
        raise _digest_error(f"tensor {spec.name!r}", found, expected)


def _digest_error(where: str, found: bytes, expected: bytes) -> ChecksumError:
    return ChecksumError(
        "the digest differs from what the encoder promised",
        where=where,
        found=found[: len(expected)].hex(),
        allowed=expected.hex(),
        remedy="fetch the file again; if it stays so, the file or its base is wrong",
    )


def allocate(spec: TensorSpec) -> Bytes:
    """Memory for a tensor.

    Raises:
        LimitError: there is not enough.
    """
    try:
        return np.empty(spec.nbytes, np.uint8)
    except MemoryError:
        raise LimitError(
            "not enough memory",
            where=f"tensor {spec.name!r}",
            found=f"{spec.nbytes} bytes",
            remedy="read it by get_slice, or pass smaller Limits to refuse such files",
        ) from None


def check_out(spec: TensorSpec, out: Bytes) -> Bytes:
    """The memory that a caller supplied for a tensor, if it fits.

    Raises:
        ConfigError: it does not.
    """
    fits = (
        out.dtype == np.uint8
        and out.ndim == 1
        and out.nbytes == spec.nbytes
        and out.flags.c_contiguous
        and out.flags.writeable
    )
    if not fits:
        raise ConfigError(
            "the array to decode into does not fit",
            where=f"tensor {spec.name!r}",
            found=f"{out.dtype} {out.shape}",
            allowed=f"contiguous writable memory of {spec.nbytes} bytes",
        )
    return out
