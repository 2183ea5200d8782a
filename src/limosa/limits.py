"""Caps on what a file may ask of its reader, checked before memory is allocated."""

from __future__ import annotations

from dataclasses import dataclass, fields

from limosa.errors import ConfigError

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """Upper bounds for everything that a file counts. All are inclusive.

    The defaults admit every published model and stop a file of a few bytes that asks for
    terabytes. A service that reads files from strangers should pass smaller ones.

    Attributes:
        max_elements: elements in one tensor.
        max_tensors: tensors in one file or folder.
        max_name_bytes: UTF-8 bytes in the name of a tensor or in a path.
        max_rank: dimensions of one tensor.
        max_header_bytes: bytes of a header, an index or a skeleton, once decompressed.
        max_total_bytes: decoded bytes of all tensors together.
        max_chunk_bytes: decoded bytes of one chunk.
        max_sources: files in one folder.

    Raises:
        ConfigError: a bound is negative or not an integer.

    >>> Limits(max_tensors=10).max_tensors
    10
    """

    max_elements: int = 2**34
    max_tensors: int = 2**20
    max_name_bytes: int = 4096
    max_rank: int = 32
    max_header_bytes: int = 100 * MIB
    max_total_bytes: int = 2**42
    max_chunk_bytes: int = 64 * MIB
    max_sources: int = 2**16

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ConfigError(
                    "a limit must be a whole number",
                    where=f"Limits.{field.name}",
                    found=repr(value),
                    allowed="0 or more",
                )
