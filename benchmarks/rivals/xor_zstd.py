"""XOR with the base, then zstd 3: what BitX in ZipLLM does."""

from __future__ import annotations

import numpy as np
import zstandard

from benchmarks.rivals.interface import Buffer, Rival, xor


class XorZstd(Rival):
    """Zeros where nothing changed, found by zstd."""

    name = "XOR + zstd 3"
    needs_base = True
    threaded = True

    def encode(self, raw: Buffer, dtype: str, base: bytes | None = None) -> bytes:
        assert base is not None
        workers = self.threads if self.threads > 1 else 0
        return zstandard.ZstdCompressor(level=3, threads=workers).compress(xor(raw, base))

    def decode(self, blob: bytes, dtype: str, base: bytes | None = None) -> np.ndarray:
        assert base is not None
        return xor(zstandard.ZstdDecompressor().decompress(blob), base)
