"""Blosc2: a byte or bit shuffle before zstd."""

from __future__ import annotations

from typing import ClassVar

import blosc2

from benchmarks.rivals.interface import WORDS, Buffer, Rival


class _Blosc2(Rival):
    filter: ClassVar[blosc2.Filter]
    threaded = True

    def encode(self, raw: Buffer, dtype: str, base: bytes | None = None) -> bytes:
        settings = {
            "codec": blosc2.Codec.ZSTD,
            "clevel": 5,
            "typesize": WORDS[dtype].itemsize,
            "filters": [self.filter],
            "filters_meta": [0],
            "nthreads": self.threads,
        }
        return bytes(blosc2.compress2(raw, cparams=settings))

    def decode(self, blob: bytes, dtype: str, base: bytes | None = None) -> bytes:
        return bytes(blosc2.decompress2(blob, dparams={"nthreads": self.threads}))


class Blosc2Shuffle(_Blosc2):
    """The n-th bytes of all elements together."""

    name = "blosc2 shuffle + zstd 5"
    filter = blosc2.Filter.SHUFFLE


class Blosc2Bitshuffle(_Blosc2):
    """The n-th bits of all elements together."""

    name = "blosc2 bitshuffle + zstd 5"
    filter = blosc2.Filter.BITSHUFFLE
