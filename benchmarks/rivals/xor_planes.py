"""XOR with the base, byte planes, zstd 19: the smallest that general tools reach."""

from __future__ import annotations

import numpy as np
import zstandard

from benchmarks.rivals.interface import WORDS, Buffer, Rival, xor


class XorPlanes(Rival):
    """The n-th bytes of all elements together, zeros apart from noise."""

    name = "XOR + planes + zstd 19"
    needs_base = True
    slow = True

    def encode(self, raw: Buffer, dtype: str, base: bytes | None = None) -> bytes:
        assert base is not None
        difference = xor(raw, base).reshape(-1, WORDS[dtype].itemsize)
        planes = np.ascontiguousarray(difference.T)
        return zstandard.ZstdCompressor(level=19).compress(planes.reshape(-1))

    def decode(self, blob: bytes, dtype: str, base: bytes | None = None) -> np.ndarray:
        assert base is not None
        planes = np.frombuffer(zstandard.ZstdDecompressor().decompress(blob), np.uint8)
        difference = np.ascontiguousarray(planes.reshape(WORDS[dtype].itemsize, -1).T)
        return xor(difference.reshape(-1), base)
