"""zstd --patch-from: the base as a prefix that matches may point into, level 19."""

from __future__ import annotations

import zstandard

from benchmarks.rivals.interface import Buffer, Rival


class PatchFrom(Rival):
    """Matches into the base."""

    name = "zstd --patch-from 19"
    needs_base = True
    slow = True

    def encode(self, raw: Buffer, dtype: str, base: bytes | None = None) -> bytes:
        assert base is not None
        size = memoryview(raw).nbytes
        # As the command does: a window over base and input, and long-distance matching.
        settings = zstandard.ZstdCompressionParameters.from_level(
            19, source_size=size, dict_size=len(base), enable_ldm=True,
            window_log=(size + len(base)).bit_length(),
        )  # fmt: skip
        compressor = zstandard.ZstdCompressor(dict_data=_prefix(base), compression_params=settings)
        return compressor.compress(raw)

    def decode(self, blob: bytes, dtype: str, base: bytes | None = None) -> bytes:
        assert base is not None
        decompressor = zstandard.ZstdDecompressor(dict_data=_prefix(base), max_window_size=2**31)
        return decompressor.decompress(blob)


def _prefix(base: bytes) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
