"""bzip2 at its default level, 9."""

from __future__ import annotations

import bz2

from benchmarks.rivals.interface import Buffer, Rival


class Bzip2(Rival):
    """Block sorting and Huffman."""

    name = "bzip2 9"
    slow = True

    def encode(self, raw: Buffer, dtype: str, base: bytes | None = None) -> bytes:
        return bz2.compress(raw)

    def decode(self, blob: bytes, dtype: str, base: bytes | None = None) -> bytes:
        return bz2.decompress(blob)
