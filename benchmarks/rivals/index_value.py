"""An int32 index and the new value for every changed element: what RL weight sync ships."""

from __future__ import annotations

import numpy as np

from benchmarks.rivals.interface import WORDS, Buffer, Rival


class IndexValue(Rival):
    """The indices, then the values."""

    name = "int32 index + value"
    needs_base = True

    def encode(self, raw: Buffer, dtype: str, base: bytes | None = None) -> bytes:
        assert base is not None
        new, old = np.frombuffer(raw, WORDS[dtype]), np.frombuffer(base, WORDS[dtype])
        where = np.flatnonzero(new != old)
        return where.astype("<i4").tobytes() + new[where].tobytes()

    def decode(self, blob: bytes, dtype: str, base: bytes | None = None) -> np.ndarray:
        assert base is not None
        count = len(blob) // (4 + WORDS[dtype].itemsize)
        out = np.frombuffer(base, WORDS[dtype]).copy()
        out[np.frombuffer(blob, "<i4", count)] = np.frombuffer(blob, WORDS[dtype], offset=4 * count)
        return out.view(np.uint8)
