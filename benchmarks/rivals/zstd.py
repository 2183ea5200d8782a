"""Zstandard at levels 3 (its default) and 19 (its highest without --ultra)."""

from __future__ import annotations

from typing import ClassVar

import zstandard

from benchmarks.rivals.interface import Buffer, Rival


class _Zstd(Rival):
    level: ClassVar[int]
    threaded = True

    def encode(self, raw: Buffer, dtype: str, base: bytes | None = None) -> bytes:
        # 0 is zstd's word for "no worker threads": 1 would start one beside the caller.
        workers = self.threads if self.threads > 1 else 0
        return zstandard.ZstdCompressor(level=self.level, threads=workers).compress(raw)

    def decode(self, blob: bytes, dtype: str, base: bytes | None = None) -> bytes:
        return zstandard.ZstdDecompressor().decompress(blob)


class Zstd3(_Zstd):
    """Level 3: quick."""

    name = "zstd 3"
    level = 3


class Zstd19(_Zstd):
    """Level 19: small."""

    name = "zstd 19"
    level = 19
    slow = True
