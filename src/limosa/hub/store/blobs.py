"""Bytes by key: in a folder, in S3-compatible storage, or in memory for tests."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from limosa.errors import ConfigError, MissingExtraError, NotFoundError, TransportError

try:
    import obstore
    from obstore import exceptions
    from obstore.store import LocalStore, MemoryStore, S3Store
except ModuleNotFoundError:
    raise MissingExtraError.for_extra("hub", "a store of blobs") from None

if TYPE_CHECKING:
    from obstore.store import ClientConfig

_PIECE = 2**20
# Larger files go to S3 in parts, which may be sent again one by one.
_PART = 16 * 2**20
#: What an address of S3 may say behind its "?", beside the environment's AWS_ variables.
_OPTIONS = {
    "endpoint",
    "region",
    "access_key_id",
    "secret_access_key",
    "virtual_hosted_style_request",
}


def blob_key(sha256: str) -> str:
    """Where a blob lies.

    >>> blob_key("ab" * 32)[:12]
    'blobs/ab/aba'
    """
    return f"blobs/{sha256[:2]}/{sha256}"


def part_key(upload: str, offset: int) -> str:
    """Where the bytes of an upload from *offset* on lie.

    >>> part_key("7f", 10)
    'uploads/7f/000000000000000010'
    """
    return f"uploads/{upload}/{offset:018}"


class BlobStore:
    """Bytes by key; what is put appears whole or not at all. Safe to use from several threads.

    Args:
        store: one of obstore's.
        root: the folder, where it is one.
        signer: what makes addresses for others, where these reach the storage by another name.
    """

    def __init__(self, store: Any, root: Path | None = None, signer: Any = None) -> None:
        self._store, self._root, self._signer = store, root, signer

    @classmethod
    def open(cls, url: str) -> BlobStore:
        """The store at an address.

        Args:
            url: a folder, which is made if it is not there; ``s3://BUCKET/PREFIX`` with
                ``?endpoint=URL&region=R``, and ``&public=URL`` where receivers reach it by
                another name; ``memory://``. Credentials for S3 are taken from ``AWS_ACCESS_KEY_ID``
                and ``AWS_SECRET_ACCESS_KEY``.

        Raises:
            ConfigError: it is no such address.

        >>> BlobStore.open("memory://").size("blobs/none") is None
        True
        """
        parts = urlsplit(url)
        if parts.scheme == "memory":
            return cls(MemoryStore())
        if parts.scheme == "s3":
            return cls._open_s3(parts.netloc, parts.path.strip("/"), dict(parse_qsl(parts.query)))
        if parts.scheme not in ("", "file"):
            raise ConfigError("no place for blobs", found=url, allowed="a folder, or s3://BUCKET")
        root = Path(unquote(parts.path) if parts.scheme else url).absolute()
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError("cannot make the folder", where=str(root), found=str(error)) from None
        return cls(LocalStore(root), root)

    @classmethod
    def _open_s3(cls, bucket: str, prefix: str, options: dict[str, str]) -> BlobStore:
        public = options.pop("public", None)
        unknown = sorted(set(options) - _OPTIONS)
        if not bucket or unknown:
            raise ConfigError(
                "no address in S3", found=", ".join(unknown) or "no bucket",
                allowed="s3://BUCKET/PREFIX?" + "&".join(sorted(_OPTIONS | {"public"})),
            )  # fmt: skip
        settings: dict[str, Any] = {**options, "prefix": prefix or None}
        plain: ClientConfig = {"allow_http": True, "timeout": timedelta(seconds=60)}
        store = S3Store(bucket, **settings, client_options=plain)
        signer = store
        if public is not None:
            signer = S3Store(bucket, **{**settings, "endpoint": public}, client_options=plain)
        return cls(store, signer=signer)

    def put_file(self, key: str, path: Path) -> None:
        """Store the bytes of a file.

        Raises:
            TransportError: there is no room, or the storage does not answer.
        """
        with self._answering(key):
            with path.open("rb") as file:
                obstore.put(self._store, key, file, chunk_size=_PART)
            self._settle(key)

    def put_bytes(self, key: str, data: bytes) -> None:
        """Store bytes.

        Raises:
            TransportError: as for :meth:`put_file`.
        """
        with self._answering(key):
            obstore.put(self._store, key, data, use_multipart=False)
            self._settle(key)

    def get_range(self, key: str, start: int, end: int) -> bytes:
        """The bytes from *start* to *end*.

        Raises:
            NotFoundError: there is no such key.
        """
        if start == end:
            return b""
        with self._answering(key):
            return bytes(obstore.get_range(self._store, key, start=start, end=end))

    def stream(
        self, key: str, start: int = 0, end: int | None = None, chunk: int = _PIECE
    ) -> Iterator[bytes]:
        """The bytes from *start* to *end*, piece by piece.

        Raises:
            NotFoundError: there is no such key.
        """
        size = self.size(key) if end is None else end
        if size is None:
            raise _missing(key)
        if start >= size:
            return
        with self._answering(key):
            found = obstore.get(self._store, key, options={"range": (start, size)})
            for piece in found.stream(min_chunk_size=chunk):
                yield bytes(piece)

    def size(self, key: str) -> int | None:
        """How many bytes lie there; None if there is no such key."""
        try:
            with self._answering(key):
                return int(obstore.head(self._store, key)["size"])
        except NotFoundError:
            return None

    def delete(self, key: str) -> None:
        """Remove what lies there, if anything does."""
        try:
            with self._answering(key):
                obstore.delete(self._store, key)
        except NotFoundError:
            return

    def list(self, prefix: str) -> Iterator[tuple[str, int, datetime]]:
        """Key, bytes and time of all whose keys begin so; *prefix* ends in "/"."""
        with self._answering(prefix):
            for batch in obstore.list(self._store, prefix):
                for one in batch:
                    # A file that is still being written has "#" in its name.
                    if "#" not in one["path"]:
                        yield one["path"], one["size"], one["last_modified"]

    def fetch(self, key: str, path: Path) -> None:
        """Write what lies there to *path*.

        Raises:
            NotFoundError: there is no such key.
            TransportError: there is no room for it.
        """
        try:
            with path.open("wb") as file:
                for piece in self.stream(key):
                    file.write(piece)
        except OSError as error:
            raise _no_room(key, error) from error

    def local_path(self, key: str) -> Path | None:
        """The file, where the store is a folder."""
        return None if self._root is None else self._root / key

    def presigned(self, key: str, seconds: int) -> str | None:
        """An address that anybody may read for a while; None where the store has none."""
        if self._signer is None:
            return None
        with self._answering(key):
            return str(obstore.sign(self._signer, "GET", key, timedelta(seconds=seconds)))

    def check(self) -> None:
        """See whether the storage answers.

        Raises:
            TransportError: it does not.
        """
        self.size("blobs/check")

    def _settle(self, key: str) -> None:
        """On the disk, not only on its way there: a row in the database will count on it."""
        path = self.local_path(key)
        if path is None:
            return
        for place in (path, path.parent):
            number = os.open(place, os.O_RDONLY)
            try:
                os.fsync(number)
            finally:
                os.close(number)

    @contextmanager
    def _answering(self, key: str) -> Iterator[None]:
        try:
            yield
        except (exceptions.NotFoundError, FileNotFoundError):
            raise _missing(key) from None
        except OSError as error:
            raise _no_room(key, error) from error
        except exceptions.BaseError as error:
            raise TransportError(
                "the store of blobs does not answer", where=key, found=str(error)[:300],
                remedy="see whether it runs and has room, try again",
            ) from error  # fmt: skip


def _missing(key: str) -> NotFoundError:
    return NotFoundError("no such blob", where=key, remedy="limosa fsck says what is missing")


def _no_room(key: str, error: OSError) -> TransportError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return TransportError(
        "the disk is full" if full else "cannot read or write", where=key, found=str(error),
        remedy="free some room, try again",
    )  # fmt: skip
