"""Paths inside a folder: POSIX, relative, and never out of it."""

from __future__ import annotations

from collections.abc import Iterable

from limosa.errors import CorruptError, LimitError
from limosa.limits import Limits

# The longest file name on the usual file systems, in bytes.
MAX_COMPONENT = 255

# Names that Windows gives to devices, with or without a suffix.
_DEVICES = {"con", "prn", "aux", "nul"} | {f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10)}


def check_path(path: str, limits: Limits) -> None:
    """Refuse a path that could leave its folder, on this system or on another.

    >>> check_path("text_encoder/model.safetensors", Limits())
    >>> check_path("../model.safetensors", Limits())  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    limosa.errors.CorruptError: path '../model.safetensors': ...

    Raises:
        CorruptError: the path is absolute, empty, not Unicode, or has a component that is empty,
            ``.``, ``..``, too long, a device, or holds a control character, ``\\`` or ``:``.
        LimitError: the path is longer than ``limits.max_name_bytes``.
    """
    where = f"path {path[:80]!r}"
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        raise CorruptError(
            "the path is not valid Unicode", where=where, remedy="rename the file"
        ) from None
    if size > limits.max_name_bytes:
        raise LimitError(
            "the path is too long",
            where=where,
            found=f"{size} bytes",
            allowed=f"max_name_bytes {limits.max_name_bytes}",
            remedy="pass a larger Limits to read it",
        )
    for part in path.split("/"):
        if not _is_plain(part):
            raise CorruptError(
                "the path could leave its folder or fail on another system",
                where=where,
                found=f"component {part[:80]!r}",
                allowed="relative POSIX paths of plain names",
                remedy="rename the file",
            )


def _is_plain(part: str) -> bool:
    return (
        part not in ("", ".", "..")
        and len(part.encode()) <= MAX_COMPONENT
        and not any(char in "\\:" or ord(char) < 32 for char in part)
        and part.split(".")[0].lower() not in _DEVICES
    )


def check_paths(paths: Iterable[str], limits: Limits) -> None:
    """Check every path, and that no path is another's folder or repeated.

    Raises:
        CorruptError: a path is unsafe, comes twice, or is both a file and a folder.
        LimitError: there are more than ``limits.max_sources``, or one is too long.
    """
    files: set[str] = set()
    folders: set[str] = set()
    for path in paths:
        check_path(path, limits)
        if path in files:
            raise CorruptError("the path comes twice", where=f"path {path!r}")
        files.add(path)
        if len(files) > limits.max_sources:
            raise LimitError(
                "too many files",
                found=f"more than {limits.max_sources}",
                allowed=f"max_sources {limits.max_sources}",
                remedy="pass a larger Limits to read them",
            )
        parts = path.split("/")
        folders.update("/".join(parts[:n]) for n in range(1, len(parts)))
    both = files & folders
    if both:
        raise CorruptError("the path is both a file and a folder", where=f"path {min(both)!r}")
