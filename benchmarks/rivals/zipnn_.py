"""ZipNN with the type of the data told, the way its users call it."""

from __future__ import annotations

from zipnn import ZipNN

from benchmarks.rivals.interface import Buffer, Rival

_TYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def zipnn_codec(dtype: str, threads: int) -> ZipNN:
    """Return a ZipNN for bytes of ``dtype``."""
    return ZipNN(input_format="byte", bytearray_dtype=_TYPES[dtype], threads=threads)


class Zipnn(Rival):
    """Exponents in Huffman codes, the rest by byte planes."""

    name = "ZipNN"
    threaded = True

    def prepare(self, raw: bytes) -> bytearray:
        # ZipNN reorders bits inside the buffer that it is given.
        return bytearray(raw)

    def encode(self, raw: Buffer, dtype: str, base: bytes | None = None) -> bytes:
        return zipnn_codec(dtype, self.threads).compress(raw)

    def decode(self, blob: bytes, dtype: str, base: bytes | None = None) -> Buffer:
        return zipnn_codec(dtype, self.threads).decompress(blob)
