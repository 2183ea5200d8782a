"""All that a hub keeps, in one place."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from limosa.errors import (
    ChecksumError,
    ConflictError,
    CorruptError,
    LimitError,
    NotFoundError,
    TransportError,
)
from limosa.hub.manifest import Manifest
from limosa.hub.store.accounts import Accounts
from limosa.hub.store.blob_table import BlobTable, adopt
from limosa.hub.store.blobs import BlobStore, blob_key, part_key
from limosa.hub.store.catalog import Catalog
from limosa.hub.store.database import Database
from limosa.hub.store.graph import EdgeTable, put_edge
from limosa.hub.store.ledger import Ledger
from limosa.hub.store.locks import Locks
from limosa.hub.store.records import Bound, StoredEdge
from limosa.hub.store.rows import lock_repository, put_node
from limosa.hub.store.uploads import Announced, Layer, Upload, UploadTable

_TRIES = 3


class Store:
    """The database and the blobs of a hub.

    Args:
        database: an address, as SQLAlchemy writes it.
        blobs: a folder, or ``s3://bucket/prefix``.
        clock: seconds since 1970.

    Raises:
        ConfigError: an address is none.
        TransportError: the database or the blobs do not answer.
    """

    def __init__(
        self, database: str, blobs: str, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.database = Database(database)
        self.database.migrate()
        self.blobs = BlobStore.open(blobs)
        self.clock = clock
        self.catalog = Catalog(self.database, clock)
        self.graph = EdgeTable(self.database, clock)
        self.uploads = UploadTable(self.database, clock)
        self.accounts = Accounts(self.database, clock)
        self.blob_table = BlobTable(self.database, clock)
        self.ledger = Ledger(self.database, clock)
        self.locks = Locks(self.database, clock)

    def first_token(self) -> str | None:
        """An admin's token, where there is no token yet; of many workers one gets it."""
        with self.locks.hold("first token") as mine:
            return self.accounts.first_token() if mine else None

    def begin_upload(
        self, repository: str, announced: Announced, *, token_id: int, by: str
    ) -> Upload:
        """As :meth:`UploadTable.begin`, with a number that nobody can guess."""
        number = secrets.token_hex(16)
        return self.uploads.begin(number, repository, announced, token_id=token_id, by=by)

    def receive(self, upload: Upload, offset: int, data: bytes) -> None:
        """Store the bytes of an upload from *offset* on.

        Raises:
            LimitError: they are more than was announced.
            ConflictError: another request was faster.
        """
        if offset + len(data) > upload.announced.nbytes:
            raise LimitError(
                "more bytes than announced", where=f"upload {upload.id}",
                found=str(offset + len(data)), allowed=str(upload.announced.nbytes),
            )  # fmt: skip
        if data:
            self.blobs.put_bytes(part_key(upload.id, offset), data)
            self.uploads.advance(upload, offset, len(data))

    def assemble(self, upload: Upload, path: Path) -> None:
        """Write the parts of an upload to *path*, and check them.

        Raises:
            ChecksumError: they are not what was announced.
            CorruptError: bytes are missing.
        """
        digest, size = hashlib.sha256(), 0
        with path.open("wb") as file:
            for data in self._parts(upload):
                file.write(data)
                digest.update(data)
                size += len(data)
        if size != upload.announced.nbytes:
            raise CorruptError(
                "the upload is not whole", where=f"upload {upload.id}", found=f"{size} bytes",
                allowed=str(upload.announced.nbytes), remedy="send the rest first",
            )  # fmt: skip
        if digest.hexdigest() != upload.announced.sha256:
            raise ChecksumError(
                "the bytes are not those that were announced", where=f"upload {upload.id}",
                found=digest.hexdigest(), allowed=upload.announced.sha256, remedy="send it again",
            )  # fmt: skip

    def _parts(self, upload: Upload) -> Iterator[bytes]:
        """In order. A part that two requests sent is taken as far as the next one begins."""
        prefix = part_key(upload.id, 0).rsplit("/", 1)[0] + "/"
        found = sorted((key, size) for key, size, _ in self.blobs.list(prefix))
        offset = 0
        for key, size in found:
            begin = int(key.rsplit("/", 1)[1])
            if begin != offset or offset >= upload.received:
                continue
            taken = min(size, upload.received - begin)
            yield from self.blobs.stream(key, 0, taken)
            offset += taken

    def drop_parts(self, upload_id: str, *, dry_run: bool = False) -> int:
        """Remove the parts of an upload, unless only asked for; returns their bytes."""
        prefix, gone = part_key(upload_id, 0).rsplit("/", 1)[0] + "/", 0
        for key, size, _ in list(self.blobs.list(prefix)):
            if not dry_run:
                self.blobs.delete(key)
            gone += size
        return gone

    def publish(
        self,
        upload: Upload,
        manifest: Manifest,
        blob: Path,
        *,
        memory: int = 0,
        layers: Sequence[Layer] = (),
    ) -> None:
        """Store a blob that was verified, and make its version visible.

        Raises:
            ConflictError: as for :meth:`UploadTable.publish`.
        """
        announced = upload.announced
        edge = StoredEdge(
            announced.base, manifest.digest, manifest.state, announced.sha256, announced.nbytes,
            memory=memory,
        )  # fmt: skip
        self.put_blob(edge.sha256, blob)
        self.uploads.publish(upload, manifest, edge, layers, lambda: self._is_there(edge))
        # From here on it is done, whatever happens; what cannot be removed now, ``gc`` removes.
        with suppress(TransportError):
            self.drop_parts(upload.id)

    def add_edge(
        self,
        repository: str,
        edge: StoredEdge,
        blob: Path,
        *,
        manifest: Manifest | None = None,
        copy_of: str | None = None,
        bound: Bound | None = None,
    ) -> None:
        """Store a blob that the hub made, and its edge.

        Args:
            repository: whose.
            edge: with the SHA-256 of *blob*.
            blob: its bytes.
            manifest: of the target, where the graph does not know it yet.
            copy_of, bound: of a lossy copy.

        Raises:
            NotFoundError: there is no such repository.
        """
        self.put_blob(edge.sha256, blob)
        now = self.clock()
        with self.database.begin() as connection:
            number = lock_repository(connection, repository)
            adopt(
                self.database, connection, edge.sha256, blob.stat().st_size, now,
                lambda: self._is_there(edge),
            )  # fmt: skip
            if manifest is not None:
                put_node(
                    self.database, connection, number, manifest, now, copy_of=copy_of, bound=bound
                )
            put_edge(self.database, connection, number, edge, now)

    def share_edge(self, repository: str, edge: StoredEdge, manifest: Manifest) -> None:
        """Let a repository use a blob that another one has, and know what it gives.

        Raises:
            ConflictError: the blob was removed meanwhile.
        """
        now = self.clock()
        with self.database.begin() as connection:
            number = lock_repository(connection, repository)
            size = self.blobs.size(blob_key(edge.sha256)) or 0
            adopt(self.database, connection, edge.sha256, size, now, lambda: self._is_there(edge))
            put_node(self.database, connection, number, manifest, now)
            put_edge(self.database, connection, number, edge, now)

    def put_blob(self, sha256: str, path: Path) -> None:
        """Put bytes in their place, where they do not lie yet."""
        key = blob_key(sha256)
        for _ in range(_TRIES):
            if self.blobs.size(key) == path.stat().st_size:
                return
            # A sweep of the same blob may take it away before it is settled.
            with suppress(NotFoundError):
                self.blobs.put_file(key, path)
                return
        raise ConflictError("the blob was removed meanwhile", where=key, remedy="try again")

    def check(self) -> None:
        """See whether the database and the blobs answer.

        Raises:
            TransportError: one does not.
        """
        self.database.check()
        self.blobs.check()

    def close(self) -> None:
        """End all connections."""
        self.database.close()

    def _is_there(self, edge: StoredEdge) -> bool:
        return self.blobs.size(blob_key(edge.sha256)) is not None
