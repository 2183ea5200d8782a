"""Files that limosa does not look into: configurations, tokenizers, pickles in a folder.

The skeleton is ``form: u8``: 0 and the content as a packed block, or 1 where the content is the
one U8 tensor of the source. The second is for content that the general compressors cannot shrink
and for what is too large to hold in memory.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import BinaryIO

from limosa.errors import CorruptError
from limosa.files.bundle import Namer, Source
from limosa.files.pack import pack, unpack
from limosa.limits import MIB, Limits
from limosa.tensors import Bytes, TensorSpec

_INLINE, _TENSOR = 0, 1

# Below this, searching for the better way costs more than it can save.
_SMALL = MIB
# LZMA takes a third of a second for each MiB: above this, nobody would wait for it.
_LARGE = 64 * MIB
# Of the sampled bytes; weights stay above, text far below.
_INCOMPRESSIBLE = 0.85


def describe(
    data: Bytes, path: str, name: Namer, limits: Limits
) -> tuple[Source, list[TensorSpec]]:
    """The source of a file's content, and its spec where the content travels as a tensor."""
    if not _worth_packing(data, limits):
        spec = TensorSpec(name(path, path), "U8", (data.size,))
        return Source(path, "bytes", bytes([_TENSOR]), (spec.name,)), [spec]
    return Source(path, "bytes", bytes([_INLINE]) + pack(data.tobytes()), ()), []


def _worth_packing(data: Bytes, limits: Limits) -> bool:
    if data.size > min(_LARGE, limits.max_header_bytes):
        return False
    if data.size <= _SMALL:
        return True
    size = 2**16
    starts = (0, (data.size - size) // 2, data.size - size)
    sample = b"".join(data[start : start + size].tobytes() for start in starts)
    return len(zlib.compress(sample, 1)) < _INCOMPRESSIBLE * len(sample)


class OpaqueWriter:
    """Writes the content, from the skeleton or from the tensor."""

    def __init__(
        self, file: BinaryIO, source: Source, specs: Sequence[TensorSpec], limits: Limits
    ) -> None:
        self._file = file
        form = source.skeleton[:1]
        if form == bytes([_INLINE]) and not specs:
            file.write(unpack(source.skeleton[1:], limits.max_header_bytes))
        elif source.skeleton != bytes([_TENSOR]) or [s.dtype for s in specs] != ["U8"]:
            raise CorruptError(
                "bad skeleton of an opaque file",
                where=f"path {source.path!r}",
                found=f"form {form.hex() or 'none'}, {len(specs)} tensors",
                allowed="00 without tensors, 01 with one U8 tensor",
            )

    def write(self, spec: TensorSpec, data: Bytes) -> None:
        """Write the content."""
        self._file.write(data.data)

    def finish(self) -> None:
        """Nothing is left to write."""
