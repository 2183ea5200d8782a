"""zlib, the library behind gzip and .npz, at its default level."""

from __future__ import annotations

import zlib

from benchmarks.rivals.interface import Buffer, Rival


class Zlib(Rival):
    """gzip's and .npz's codec."""

    name = "zlib 6"

    def encode(self, raw: Buffer, dtype: str, base: bytes | None = None) -> bytes:
        return zlib.compress(raw)

    def decode(self, blob: bytes, dtype: str, base: bytes | None = None) -> bytes:
        return zlib.decompress(blob)
