"""Outputs appear whole or not at all: written beside their place, then renamed into it."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from limosa.errors import ConfigError


def _beside(path: Path) -> Path:
    """A name in the same folder, so that renaming never crosses a file system."""
    return path.with_name(f".{path.name[:200]}.tmp-{secrets.token_hex(4)}")


class AtomicFile:
    """A file that takes its name only when :meth:`commit` is called.

    Leaving the ``with`` block without it removes what was written. :attr:`file` is open for
    binary writing. An existing file of that name is replaced.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # Through a link, as other programs write; the link itself stays.
        self._path = Path(os.path.realpath(path))
        if self._path.is_dir():
            raise ConfigError(
                "the output is a folder", where=str(path), remedy="name a file, or remove it"
            )
        # A device or a named pipe must be written to, never replaced: -o /dev/null.
        self._special = self._path.exists() and not self._path.is_file()
        self._temporary = self._path if self._special else _beside(self._path)
        try:
            self.file: BinaryIO = self._temporary.open("wb" if self._special else "xb")
        except FileNotFoundError:
            raise ConfigError(
                "the folder of the output does not exist",
                where=str(path),
                remedy=f"create {self._path.parent}",
            ) from None

    def commit(self) -> None:
        """Flush to the disk, close and rename."""
        self.file.flush()
        if self._special:
            self.file.close()
            return
        os.fsync(self.file.fileno())
        self.file.close()
        os.replace(self._temporary, self._path)

    def __enter__(self) -> AtomicFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()

    def discard(self) -> None:
        """Remove what was written; does nothing after :meth:`commit`."""
        self.file.close()
        if not self._special:
            self._temporary.unlink(missing_ok=True)


class AtomicFolder:
    """A folder that takes its name only when :meth:`commit` is called.

    Raises:
        ConfigError: the output exists and is not an empty folder: two folders cannot be swapped
            in one step, and mixing two models would be worse than stopping.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        if self._path.exists() and not _is_empty_folder(self._path):
            raise ConfigError(
                "the output exists and is not an empty folder",
                where=str(path),
                remedy="remove it, or name another",
            )
        self.path = _beside(self._path)
        try:
            self.path.mkdir()
        except FileNotFoundError:
            raise ConfigError(
                "the folder of the output does not exist",
                where=str(path),
                remedy=f"create {self._path.parent}",
            ) from None

    def open(self, relative: str) -> BinaryIO:
        """Open the new file *relative* (already checked by ``check_paths``) for writing."""
        target = self.path.joinpath(*relative.split("/"))
        target.parent.mkdir(parents=True, exist_ok=True)
        return target.open("xb")

    def commit(self) -> None:
        """Rename the folder to its name."""
        with contextlib.suppress(FileNotFoundError):
            self._path.rmdir()
        os.replace(self.path, self._path)

    def discard(self) -> None:
        """Remove what was written; does nothing after :meth:`commit`."""
        shutil.rmtree(self.path, ignore_errors=True)


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and next(path.iterdir(), None) is None
