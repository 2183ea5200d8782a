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
    digests = [b""] * len(tensors)

    def run(share: Sequence[int]) -> None:
        for number in share:
            digests[number] = digest_of(*tensors[number])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(run, _shares([data.nbytes for _, data in tensors], threads)))
    return digests


def _shares(sizes: Sequence[int], count: int) -> list[list[int]]:
    """The numbers of *sizes* in *count* parts of about the same sum."""
    shares: list[list[int]] = [[] for _ in range(count)]
    sums = [0] * count
    for number in sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True):
        least = sums.index(min(sums))
        shares[least].append(number)
        sums[least] += sizes[number]
    return shares
