"""Digests of many tensors (docs/format.md 4), on several threads where that pays."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from limosa.tensors import Bytes, TensorSpec, tensor_digest

# Handing a tensor to another thread costs about as much as hashing this many bytes.
_WORTH_A_THREAD = 2**18


def digest_of(spec: TensorSpec, data: Bytes, threads: int = 1) -> bytes:
    """The digest of one tensor; several threads share a large one."""
    if threads == 1 or data.nbytes < 8 * _WORTH_A_THREAD:
        return tensor_digest(spec.dtype, spec.shape, data)
    from blake3 import blake3

    rank = len(spec.shape)
    head = spec.dtype.encode() + b"\0" + struct.pack(f"<I{rank}Q", rank, *spec.shape)
    return blake3(head, max_threads=threads).update(data.data).digest()


def digests_of(tensors: Sequence[tuple[TensorSpec, Bytes]], threads: int) -> list[bytes]:
    """The digests of a batch, in order: threads over tensors, or within a few large ones."""
    large = sum(data.nbytes >= _WORTH_A_THREAD for _, data in tensors)
    if threads == 1 or large < 2 * threads:
        return [digest_of(spec, data, threads) for spec, data in tensors]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda pair: digest_of(*pair), tensors, chunksize=1))
