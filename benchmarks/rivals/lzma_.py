"""lzma (xz) at its default preset, 6."""

from __future__ import annotations

import lzma

from benchmarks.rivals.interface import Buffer, Rival


class Lzma(Rival):
    """Dictionary matches and a range coder."""

    name = "lzma 6"
    slow = True

    def encode(self, raw: Buffer, dtype: str, base: bytes | None = None) -> bytes:
        return lzma.compress(raw)

    def decode(self, blob: bytes, dtype: str, base: bytes | None = None) -> bytes:
        return lzma.decompress(blob)
