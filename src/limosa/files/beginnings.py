"""What a file is by its first bytes, for messages: files are given under wrong names every day."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from limosa.errors import CorruptError, FormatError

#: As many bytes as :func:`recognise` looks at.
HEAD_BYTES: Final = 64

_LFS = b"version https://git-lfs.github.com/spec/v1"
#: No pointer of Git LFS is longer.
_LFS_BYTES = 1024
#: A header of safetensors is never this long, and random bytes nearly always say so.
_LONGEST_HEADER = 2**40


class Beginning(NamedTuple):
    """A kind of file, and what to do with one that was not expected.

    Attributes:
        name: with an article.
        remedy: what the reader of a message can do.
    """

    name: str
    remedy: str


POINTER: Final = Beginning("a pointer of Git LFS", "run git lfs pull, which fetches the file")
SAFETENSORS: Final = Beginning("a safetensors model", "name it so, *.safetensors")

_UNPACK = "unpack it first"
_BEGINNINGS: Final[tuple[tuple[bytes, Beginning], ...]] = (
    (b"\x89LMS", Beginning("a .limosa file", "restore it first, with limosa decompress")),
    (b"PK\x03\x04", Beginning("a zip archive", "name it as what it is, such as *.npz or *.pt")),
    (b"\x1f\x8b", Beginning("a gzip file", _UNPACK)),
    (b"\x28\xb5\x2f\xfd", Beginning("a zstd file", _UNPACK)),
    (b"\x89HDF", Beginning("an HDF5 file", "save the model as safetensors")),
    (b"GGUF", Beginning("a GGUF model", "compress the model that it was made from")),
    (b"\x93NUMPY", Beginning("a NumPy array", "save it with numpy.savez, as *.npz")),
    (
        b"<!doctype html",
        Beginning("a web page", "fetch the file itself, and see what the page says"),
    ),
    (b"<html", Beginning("a web page", "fetch the file itself, and see what the page says")),
)


def recognise(head: bytes) -> Beginning | None:
    """What a file is whose first bytes are *head*, at least nine of them; None if nobody knows.

    >>> recognise(b"PK\\x03\\x04\\0\\0\\0\\0\\0").name
    'a zip archive'
    >>> recognise((2).to_bytes(8, "little") + b"{}").name
    'a safetensors model'
    """
    if len(head) < 9:
        return None
    if _LFS.startswith(head[: len(_LFS)]):
        return POINTER
    for begin, known in _BEGINNINGS:
        if head[: len(begin)].lower() == begin.lower():
            return known
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < _LONGEST_HEADER:
        return SAFETENSORS
    return None


def head_of(path: str | os.PathLike[str]) -> bytes:
    """The first bytes of a file, for :func:`recognise`."""
    with open(path, "rb") as file:
        return file.read(HEAD_BYTES)


def is_pointer(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a pointer of Git LFS, which stands for a file that was not fetched."""
    return os.path.getsize(path) <= _LFS_BYTES and recognise(head_of(path)) == POINTER


def refuse_pointer(path: str | os.PathLike[str]) -> None:
    """Refuse a pointer of Git LFS, whatever the name of the file says.

    Raises:
        CorruptError: it is one.
    """
    if is_pointer(path):
        raise CorruptError(
            "this is a pointer of Git LFS, not the file that it stands for",
            where=os.fspath(path),
            remedy=POINTER.remedy,
        )


@contextmanager
def in_file(path: str | os.PathLike[str]) -> Iterator[None]:
    """Put the file before the place in what is found wrong inside; the innermost file is told.

    >>> with in_file("m.limosa"):
    ...     raise CorruptError("the index is cut off", where="last 24 bytes")
    Traceback (most recent call last):
    limosa.errors.CorruptError: m.limosa: last 24 bytes: the index is cut off
    """
    try:
        yield
    except FormatError as error:
        name, where = os.fspath(path), error.where or ""
        named = where == name or where.startswith(f"{name}: ")
        if not named and not getattr(error, "in_file", False):
            error.where = f"{name}: {where}" if where else name
        error.in_file = True  # type: ignore[attr-defined]  # whoever is further out sees it
        raise
