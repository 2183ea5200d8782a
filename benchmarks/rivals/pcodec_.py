"""pcodec at its default level. It has no BF16, so BF16 goes in as 16-bit integers."""

from __future__ import annotations

import numpy as np
from pcodec import ChunkConfig, standalone

from benchmarks.rivals.interface import Buffer, Rival

_TYPES = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}


class Pcodec(Rival):
    """Bins with tANS, offsets packed."""

    name = "pcodec 8"

    def encode(self, raw: Buffer, dtype: str, base: bytes | None = None) -> bytes:
        return standalone.simple_compress(np.frombuffer(raw, _TYPES[dtype]), ChunkConfig())

    def decode(self, blob: bytes, dtype: str, base: bytes | None = None) -> np.ndarray:
        numbers: np.ndarray = standalone.simple_decompress(blob)
        return numbers.view(np.uint8)
