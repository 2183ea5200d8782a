"""Bytes by key: in a folder, in S3-compatible storage, or in memory for tests."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
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
    from obstore.store import ClientConfig, RetryConfig

_PIECE = 2**20
# Larger files go to S3 in parts, which may be sent again one by one; so many are in memory at once.
_PART = 16 * 2**20
_PARTS_AT_ONCE = 4
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*")
# What a file is called while it is being written; what is killed then leaves it behind.
_UNFINISHED = re.compile(r".+#[0-9]+")
# A blob may take hours to a slow receiver: what is limited is a silence, not the whole answer.
_CLIENT: ClientConfig = {
    "allow_http": True,
    "connect_timeout": timedelta(seconds=10),
    "read_timeout": timedelta(seconds=60),
    "timeout": timedelta(days=1),
}
_RETRIES: RetryConfig = {"max_retries": 4, "retry_timeout": timedelta(seconds=30)}
#: What an address of S3 may say behind its "?", beside the environment's AWS_ variables.
_OPTIONS = {
    "endpoint",
    "region",
    "access_key_id",
    "secret_access_key",
    "virtual_hosted_style_request",
}
#: Secrets by the names that the environment gives them.
_SECRETS = {
    "AWS_ACCESS_KEY_ID": "access_key_id",
    "AWS_SECRET_ACCESS_KEY": "secret_access_key",
    "AWS_SESSION_TOKEN": "session_token",
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
    def open(cls, url: str, *, secrets: Mapping[str, str] | None = None) -> BlobStore:
        """The store at an address.

        Args:
            url: a folder, which is made if it is not there; ``s3://BUCKET/PREFIX`` with
                ``?endpoint=URL&region=R``, and ``&public=URL`` where receivers reach it by
                another name; ``memory://``.
            secrets: ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY`` and ``AWS_SESSION_TOKEN``;
                what is missing here is taken from the address, then from the environment.

        Raises:
            ConfigError: it is no such address.

        >>> BlobStore.open("memory://").size("blobs/none") is None
        True
        """
        parts = urlsplit(url)
        if parts.scheme == "memory":
            return cls(MemoryStore())
        if parts.scheme == "s3":
            options = dict(parse_qsl(parts.query))
            return cls._open_s3(parts.netloc, parts.path.strip("/"), options, secrets or {})
        if parts.scheme not in ("", "file"):
            raise ConfigError("no place for blobs", found=url, allowed="a folder, or s3://BUCKET")
        root = Path(unquote(parts.path) if parts.scheme else url).absolute()
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError("cannot make the folder", where=str(root), found=str(error)) from None
        return cls(LocalStore(root), root)

    @classmethod
    def _open_s3(
        cls, bucket: str, prefix: str, options: dict[str, str], secrets: Mapping[str, str]
    ) -> BlobStore:
        public = options.pop("public", None)
        unknown = sorted(set(options) - _OPTIONS)
        if not bucket or unknown:
            raise ConfigError(
                "no address in S3", found=", ".join(unknown) or "no bucket",
                allowed="s3://BUCKET/PREFIX?" + "&".join(sorted(_OPTIONS | {"public"})),
            )  # fmt: skip
        given = {ours: secrets[name] for name, ours in _SECRETS.items() if name in secrets}
        settings: dict[str, Any] = {
            **options, **given, "prefix": prefix or None,
            "client_options": _CLIENT, "retry_config": _RETRIES,
        }  # fmt: skip
        try:
            store = S3Store(bucket, **settings)
            signer = store
            if public is not None:
                signer = S3Store(bucket, **{**settings, "endpoint": public})
        except (exceptions.BaseError, ValueError) as error:
            raise ConfigError("no address in S3", where=bucket, found=_first(error)) from None
        return cls(store, signer=signer)

    def put_file(self, key: str, path: Path) -> None:
        """Store the bytes of a file.

        Raises:
            TransportError: there is no room, or the storage does not answer.
        """
        # A missing *path* is the caller's mistake, and no missing blob.
        path.stat()
        with self._answering(key):
            obstore.put(self._store, key, path, chunk_size=_PART, max_concurrency=_PARTS_AT_ONCE)
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
        """The bytes from *start* to *end*, as a slice gives them: fewer behind the last one.

        Raises:
            NotFoundError: there is no such key.
        """
        end = min(end, self._size_of(key))
        if start >= end:
            return b""
        with self._answering(key):
            return bytes(obstore.get_range(self._store, key, start=start, end=end))

    def stream(
        self, key: str, start: int = 0, end: int | None = None, chunk: int = _PIECE
    ) -> Iterator[bytes]:
        """The bytes from *start* to *end*, in pieces of *chunk* bytes and a last one.

        Raises:
            NotFoundError: there is no such key.
        """
        size = self._size_of(key)
        size = size if end is None else min(size, end)
        if start >= size:
            return
        path = self.local_path(key)
        with self._answering(key):
            if path is not None:
                # Fifteen times as fast as through obstore, which reads 8 KiB at a time.
                yield from _pieces(path, start, size, chunk)
                return
            found = obstore.get(self._store, key, options={"range": (start, size)})
            for piece in found.stream(min_chunk_size=chunk):
                for at in range(0, len(piece), chunk):
                    yield bytes(piece[at : at + chunk])

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
        """Key, bytes and time of all whose keys begin so; *prefix* ends in "/", or is "" for all.

        What is still being written, and what was left behind by a writer that died, is not there.
        """
        with self._answering(prefix.rstrip("/") or "all"):
            for batch in obstore.list(self._store, prefix, chunk_size=1000):
                for one in batch:
                    yield one["path"], one["size"], one["last_modified"]

    def sweep(self, before: datetime) -> int:
        """Remove what writers that died left behind, where the store is a folder.

        Args:
            before: only what was last written before; aware of its zone. A writer that still lives
                may be slow: leave it hours.

        Returns:
            Bytes freed. S3 does this itself, by a lifecycle rule for incomplete uploads.
        """
        freed = 0
        if self._root is None:
            return freed
        for path in self._root.rglob("*#*"):
            with suppress(OSError):
                status = path.stat()
                old = status.st_mtime < before.timestamp()
                if old and path.is_file() and _UNFINISHED.fullmatch(path.name):
                    path.unlink()
                    freed += status.st_size
        return freed

    def fetch(self, key: str, path: Path) -> None:
        """Write what lies there to *path*, which appears whole or not at all.

        Raises:
            NotFoundError: there is no such key.
            TransportError: there is no room for it.
        """
        beside = path.with_name(f"{path.name}.part-{os.getpid()}-{os.urandom(4).hex()}")
        try:
            with beside.open("xb") as file:
                for piece in self.stream(key):
                    file.write(piece)
            beside.replace(path)
        except OSError as error:
            raise _trouble(str(path), error) from error
        finally:
            beside.unlink(missing_ok=True)

    def local_path(self, key: str) -> Path | None:
        """The file, where the store is a folder."""
        _check(key)
        return None if self._root is None else self._root / key

    def presigned(self, key: str, seconds: int) -> str | None:
        """An address that anybody may read for a while; None where the store has none."""
        if self._signer is None:
            return None
        with self._answering(key):
            return str(obstore.sign(self._signer, "GET", key, timedelta(seconds=seconds)))

    def check(self) -> None:
        """See whether the storage answers, and has the folder or bucket.

        Raises:
            TransportError: it does not.
        """
        try:
            with self._answering("check"):
                if self._root is not None:
                    os.scandir(self._root).close()
                # Of a bucket that is not there S3 tells only who lists it.
                next(iter(obstore.list(self._store, "check", chunk_size=1)), None)
        except NotFoundError:
            raise TransportError(
                "the folder or bucket of the blobs is not there",
                where=None if self._root is None else str(self._root),
                remedy="make it, or mount it",
            ) from None

    def _size_of(self, key: str) -> int:
        with self._answering(key):
            return int(obstore.head(self._store, key)["size"])

    def _settle(self, key: str) -> None:
        """On the disk, not only on its way there: a row in the database will count on it."""
        path = self.local_path(key)
        if path is None or self._root is None:
            return
        folders = [folder for folder in path.parents if folder.is_relative_to(self._root)]
        for place in (path, *folders):
            number = os.open(place, os.O_RDONLY)
            try:
                os.fsync(number)
            finally:
                os.close(number)

    @contextmanager
    def _answering(self, key: str) -> Iterator[None]:
        _check(key)
        try:
            yield
        except (exceptions.NotFoundError, FileNotFoundError):
            raise _missing(key) from None
        except (OSError, exceptions.BaseError) as error:
            raise _trouble(key, error) from error


def _check(key: str) -> None:
    """A key stays inside its store, and is none of a file that is being written."""
    if not _KEY.fullmatch(key):
        raise ConfigError(
            "no key of a blob", found=repr(key)[:80],
            allowed="letters, digits, '.', '_', '-', and '/' between names",
        )  # fmt: skip


def _pieces(path: Path, start: int, end: int, chunk: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while start < end:
            piece = file.read(min(chunk, end - start))
            if not piece:
                raise OSError(errno.EIO, "the file ends early", str(path))
            start += len(piece)
            yield piece


def _missing(key: str) -> NotFoundError:
    return NotFoundError("no such blob", where=key, remedy="limosa fsck says what is missing")


def _trouble(key: str, error: Exception) -> TransportError:
    text = str(error)
    number = getattr(error, "errno", None)
    # obstore gives the text of the system's error, not its number.
    if number in (errno.ENOSPC, errno.EDQUOT) or "StorageFull" in text or "QuotaExceeded" in text:
        problem, remedy = "the disk is full", "free some room, try again"
    elif isinstance(error, (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)):
        problem, remedy = "the store of blobs refuses", "see whether its secrets are right"
    elif isinstance(error, OSError):
        problem, remedy = "cannot read or write", "see to the folder and its owner, try again"
    else:
        problem, remedy = "the store of blobs does not answer", "see whether it runs, try again"
    return TransportError(problem, where=key, found=_first(error), remedy=remedy)


def _first(error: Exception) -> str:
    # Behind the first paragraph follows a dump of the error's parts, over dozens of lines.
    return str(error).split("\n\n")[0][:300]
