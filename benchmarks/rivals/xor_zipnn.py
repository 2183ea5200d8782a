"""ZipNN on the XOR with the base: ZipNN's own way with differences."""

from __future__ import annotations

import numpy as np

from benchmarks.rivals.interface import Buffer, Rival, xor
from benchmarks.rivals.zipnn_ import zipnn_codec


class XorZipnn(Rival):
    """The XOR taken for floats."""

    name = "ZipNN on XOR"
    needs_base = True
    threaded = True

    def encode(self, raw: Buffer, dtype: str, base: bytes | None = None) -> bytes:
        assert base is not None
        return zipnn_codec(dtype, self.threads).compress(xor(raw, base).data)

    def decode(self, blob: bytes, dtype: str, base: bytes | None = None) -> np.ndarray:
        assert base is not None
        return xor(zipnn_codec(dtype, self.threads).decompress(blob), base)
