"""The tables of a set of models (docs/format.md 6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from limosa.codec.constants import MIN_FILE_BYTES, SET_END_MAGIC, SET_MAGIC, VERSION
from limosa.codec.cursor import Cursor, put_text, put_varint
from limosa.codec.index import write_footer
from limosa.codec.layout import check_magic
from limosa.codec.sections import read_section, write_section
from limosa.errors import CorruptError
from limosa.files.paths import check_paths
from limosa.limits import Limits

# A decoder goes down the chain of bases by recursion.
MAX_CHAIN = 64


class Member(NamedTuple):
    """One model of a set: its name, and the number of the earlier one that is its base."""

    name: str
    base: int | None


def write_set_header(members: Sequence[Member]) -> bytes:
    """Magic, version and the set table."""
    out = bytearray()
    put_varint(out, len(members))
    for member in members:
        put_text(out, member.name)
        put_varint(out, 0 if member.base is None else 1 + member.base)
    return SET_MAGIC + bytes([VERSION]) + write_section(bytes(out))


def read_set_header(read: Callable[[int], bytes], limits: Limits) -> tuple[list[Member], int]:
    """The models, and the bytes that the header took.

    Raises:
        CorruptError, UnsupportedVersionError, LimitError: as for a single model.
    """
    head = read(len(SET_MAGIC) + 1)
    check_magic(head, SET_MAGIC)
    content, size = read_section(read, "set table", limits)
    cursor = Cursor(content, "set table")
    # A model takes at least three bytes: name length, a letter, base.
    count = cursor.count("models", limits.max_sources, "max_sources", 3)
    members: list[Member] = []
    depths: list[int] = []
    for number in range(count):
        name = cursor.text("bytes in a model name", limits.max_name_bytes)
        base = cursor.varint() - 1
        depth = 1 + (depths[base] if 0 <= base < number else 0)
        if base >= number or depth > MAX_CHAIN:
            raise CorruptError(
                "a base that is not earlier, or too long a chain of bases",
                where=f"model {name!r}",
                found=f"model number {base}, chain of {depth}",
                allowed=f"below {number}, at most {MAX_CHAIN}",
            )
        members.append(Member(name, base if base >= 0 else None))
        depths.append(depth)
    cursor.finish()
    if not members:
        raise CorruptError("a set without models", where="set table")
    check_paths([member.name for member in members], limits)
    return members, len(head) + size


def write_set_index(sizes: Sequence[int], offset: int) -> bytes:
    """The set index at *offset* in the file, and the footer."""
    out = bytearray()
    for size in sizes:
        put_varint(out, size)
    section = write_section(bytes(out))
    return section + write_footer(offset, len(section), SET_END_MAGIC)


def read_set_index(
    read: Callable[[int], bytes], count: int, limits: Limits
) -> tuple[list[int], int]:
    """The sizes of *count* models, and the bytes that the section took.

    Raises:
        CorruptError, TruncatedError, ChecksumError: the section is damaged.
    """
    content, used = read_section(read, "set index", limits)
    cursor = Cursor(content, "set index")
    sizes = [cursor.varint() for _ in range(count)]
    cursor.finish()
    if min(sizes) < MIN_FILE_BYTES:
        raise CorruptError("a model is too short", where="set index", found=str(min(sizes)))
    return sizes, used
