"""bsdiff 4: suffix sorting, byte differences, bzip2."""

from __future__ import annotations

import bsdiff4

from benchmarks.rivals.interface import Buffer, Rival


class Bsdiff(Rival):
    """A patch in the format of bsdiff 4."""

    name = "bsdiff"
    needs_base = True
    slow = True

    def encode(self, raw: Buffer, dtype: str, base: bytes | None = None) -> bytes:
        return bsdiff4.diff(base, raw)

    def decode(self, blob: bytes, dtype: str, base: bytes | None = None) -> bytes:
        return bsdiff4.patch(base, blob)
