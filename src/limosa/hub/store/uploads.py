"""Uploads, which may stop and go on, and the one step that makes a version of one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa

from limosa.errors import ConflictError, LimosaError, NotFoundError
from limosa.hub.manifest import Manifest
from limosa.hub.problems import to_problem
from limosa.hub.store.blob_table import adopt
from limosa.hub.store.database import Database
from limosa.hub.store.graph import put_edge
from limosa.hub.store.records import Bound, StoredEdge, iso
from limosa.hub.store.rows import lock_repository, put_node, put_tag, touch
from limosa.hub.store.schema import nodes, repositories, tags, uploads, versions

#: How long an upload may pause.
KEPT_S = 24 * 3600.0


@dataclass(frozen=True)
class Announced:
    """What a sender says that it will send.

    Attributes:
        version: name that it shall have.
        digest, state: of the version.
        base: state that the blob is coded against; "" for a whole model.
        nbytes, sha256: of the blob.
        notes, metrics, parents: for people.
        tags: to move to it.
    """

    version: str
    digest: str
    state: str
    base: str
    nbytes: int
    sha256: str
    notes: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    parents: Sequence[str] = ()
    tags: Sequence[str] = ()


@dataclass(frozen=True)
class Upload:
    """An upload.

    Attributes:
        id: random; who does not know it cannot go on with it.
        repository: where to.
        announced: what the sender said.
        received: bytes so far.
        status: open, verifying, done or failed.
        problem: why it failed (RFC 9457).
        token_id, by: whose it is.
        expires: seconds since 1970.
    """

    id: str
    repository: str
    announced: Announced
    received: int
    status: str
    problem: Mapping[str, Any] | None
    token_id: int
    by: str
    expires: float

    def to_json(self) -> dict[str, Any]:
        """As docs/hub-protocol.md has it."""
        return {
            "id": self.id,
            "version": self.announced.version,
            "digest": self.announced.digest,
            "nbytes": self.announced.nbytes,
            "received": self.received,
            "state": self.status,
            "problem": self.problem,
            "expires": iso(self.expires),
        }


@dataclass(frozen=True)
class Layer:
    """What a prefix of a blob gives: a lossy copy of the whole.

    Attributes:
        number: from 1 on.
        nbytes: of the prefix.
        manifest: of what it decodes to.
        bound: how far that is from the whole.
    """

    number: int
    nbytes: int
    manifest: Manifest
    bound: Bound | None


class UploadTable:
    """Uploads under way.

    Args:
        database: where they stand.
        clock: seconds since 1970.
    """

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def begin(
        self, number: str, repository: str, announced: Announced, *, token_id: int, by: str
    ) -> Upload:
        """Begin an upload, or find the one of the same blob and version that is under way.

        A version that is here already is done at once; one whose digest is here under another
        name needs no bytes.

        Raises:
            ConflictError: the version exists with another digest.
            NotFoundError: the base is unknown.
        """
        now = self._clock()
        with self._database.begin() as connection:
            upload = Upload(
                number, repository, announced, 0, "open", None, token_id, by, now + KEPT_S
            )
            if self._known(connection, upload):
                return replace(upload, announced=replace(announced, nbytes=0), status="done")
            found = connection.execute(
                sa.select(uploads).where(
                    uploads.c.repository == repository,
                    uploads.c.version == announced.version,
                    uploads.c.digest == announced.digest,
                    uploads.c.base == announced.base,
                    uploads.c.sha256 == announced.sha256,
                    uploads.c.token_id == token_id,
                    uploads.c.status.in_(["open", "verifying"]),
                    uploads.c.expires > now,
                )
            ).first()
            if found is not None:
                # Its notes and tags are those that were said last.
                details = _row(upload)["details"]
                connection.execute(
                    sa.update(uploads).where(uploads.c.id == found.id).values(details=details)
                )
                return replace(_upload(found), announced=announced)
            connection.execute(sa.insert(uploads).values(**_row(upload), created=now))
        return upload

    def _known(self, connection: sa.Connection, upload: Upload) -> bool:
        """Whether the digest is here already, and is now called as announced."""
        try:
            inside = lock_repository(connection, upload.repository)
        except NotFoundError:
            # It is made when its first version is visible.
            if upload.announced.base:
                raise _no_base(upload.announced) from None
            return False
        _check_version(connection, inside, upload.announced)
        if _has_node(connection, inside, upload.announced.digest):
            self._name_version(connection, inside, upload)
            return True
        _check_base(connection, inside, upload.announced)
        return False

    def get(self, repository: str, number: str, token_id: int) -> Upload:
        """An upload of the caller.

        Raises:
            NotFoundError: the caller has none of that number.
        """
        with self._database.read() as connection:
            row = connection.execute(
                sa.select(uploads).where(
                    uploads.c.id == number,
                    uploads.c.repository == repository,
                    uploads.c.token_id == token_id,
                )
            ).first()
        if row is None:
            raise NotFoundError(
                "no such upload", where=number[:40], remedy="begin another: they end after a day"
            )
        return _upload(row)

    def advance(self, upload: Upload, offset: int, count: int) -> None:
        """*count* bytes from *offset* on are stored.

        Raises:
            ConflictError: another request was faster.
        """
        with self._database.begin() as connection:
            done = connection.execute(
                sa.update(uploads)
                .where(
                    uploads.c.id == upload.id,
                    uploads.c.received == offset,
                    uploads.c.status == "open",
                )
                .values(received=offset + count, expires=self._clock() + KEPT_S)
            )
            if done.rowcount != 1:
                raise ConflictError(
                    "another request sent these bytes", where=f"upload {upload.id}",
                    found=f"offset {offset}", remedy="ask for the offset, and go on from there",
                )  # fmt: skip

    def set_status(self, upload: Upload, status: str, problem: LimosaError | None = None) -> None:
        """The upload is verified, or failed."""
        told = None if problem is None else json.dumps(to_problem(problem))
        with self._database.begin() as connection:
            connection.execute(
                sa.update(uploads)
                .where(uploads.c.id == upload.id)
                .values(status=status, problem=told)
            )

    def remove(self, upload: Upload) -> None:
        """Give it up."""
        with self._database.begin() as connection:
            connection.execute(sa.delete(uploads).where(uploads.c.id == upload.id))

    def ended(self, kept_s: float = KEPT_S) -> list[Upload]:
        """Those whose parts may go: expired ones, and what ended long ago."""
        now = self._clock()
        over = (uploads.c.status.in_(["done", "failed"]) & (uploads.c.created < now - kept_s)) | (
            uploads.c.expires < now
        )
        with self._database.read() as connection:
            return [_upload(row) for row in connection.execute(sa.select(uploads).where(over))]

    def unfinished(self) -> list[Upload]:
        """Those that may go on, and whose parts take room until then."""
        under_way = uploads.c.status.in_(["open", "verifying"])
        with self._database.read() as connection:
            return [_upload(row) for row in connection.execute(sa.select(uploads).where(under_way))]

    def numbers(self) -> set[str]:
        """All that are known."""
        with self._database.read() as connection:
            return set(connection.execute(sa.select(uploads.c.id)).scalars())

    def publish(
        self,
        upload: Upload,
        manifest: Manifest,
        edge: StoredEdge,
        layers: Sequence[Layer],
        stored: Callable[[], bool],
    ) -> None:
        """Make the version visible, with its blob and its tags: all of it, or nothing.

        Args:
            upload: what was announced.
            manifest: what the blob was found to give.
            edge: the blob.
            layers: prefixes of it.
            stored: whether the blob is in its place; asked while nobody can remove it.

        Raises:
            ConflictError: somebody else made the version, or removed the base, or the blob.
        """
        now = self._clock()
        with self._database.begin() as connection:
            made = {"name": upload.repository, "created": now}
            connection.execute(self._database.insert_missing(repositories, made, ["name"]))
            inside = lock_repository(connection, upload.repository)
            _check_version(connection, inside, upload.announced)
            _check_base(connection, inside, upload.announced)
            adopt(self._database, connection, edge.sha256, edge.nbytes, now, stored)
            put_node(self._database, connection, inside, manifest, now)
            put_edge(self._database, connection, inside, edge, now)
            for layer in layers:
                put_node(
                    self._database, connection, inside, layer.manifest, now,
                    copy_of=manifest.digest, bound=layer.bound,
                )  # fmt: skip
                prefix = replace(
                    edge, target=layer.manifest.digest, target_state=layer.manifest.state,
                    nbytes=layer.nbytes, layer=layer.number, kind="copy",
                )  # fmt: skip
                put_edge(self._database, connection, inside, prefix, now)
            self._name_version(connection, inside, upload)
            done = sa.update(uploads).where(uploads.c.id == upload.id)
            connection.execute(done.values(status="done", problem=None))

    def _name_version(self, connection: sa.Connection, number: int, upload: Upload) -> None:
        announced, now = upload.announced, self._clock()
        node = connection.execute(
            sa.select(nodes.c.id).where(
                nodes.c.repository_id == number, nodes.c.digest == announced.digest
            )
        ).scalar_one()
        values = {
            "repository_id": number,
            "node_id": node,
            "name": announced.version,
            "created": now,
            "by": upload.by,
            "notes": announced.notes,
            "metrics": json.dumps(dict(announced.metrics)),
            "parents": json.dumps(list(announced.parents)),
        }
        key = ["repository_id", "name"]
        connection.execute(self._database.insert_missing(versions, values, key))
        _check_version(connection, number, announced)
        for tag in announced.tags:
            put_tag(self._database, connection, number, tag, announced.version, now)
        touch(connection, number)


def _check_version(connection: sa.Connection, number: int, announced: Announced) -> None:
    found = connection.execute(
        sa.select(nodes.c.digest)
        .join(versions, versions.c.node_id == nodes.c.id)
        .where(versions.c.repository_id == number, versions.c.name == announced.version)
    ).scalar()
    if found is not None and found != announced.digest:
        raise ConflictError(
            "the version exists, and versions never change", where=announced.version,
            found=announced.digest, allowed=found, remedy="push it under another name",
        )  # fmt: skip
    tagged = connection.execute(
        sa.select(tags.c.id).where(tags.c.repository_id == number, tags.c.name == announced.version)
    ).scalar()
    if tagged is not None:
        raise ConflictError(
            "a tag has that name", where=announced.version, remedy="push it under another name"
        )


def _check_base(connection: sa.Connection, number: int, announced: Announced) -> None:
    if announced.base == "":
        return
    found = connection.execute(
        sa.select(nodes.c.id).where(
            nodes.c.repository_id == number, nodes.c.state == announced.base
        )
    ).first()
    if found is None:
        raise _no_base(announced)


def _no_base(announced: Announced) -> NotFoundError:
    return NotFoundError(
        "the hub does not have the base of this update", where=announced.version,
        found=announced.base, remedy="push it against another version, or whole",
    )  # fmt: skip


def _has_node(connection: sa.Connection, number: int, digest: str) -> bool:
    """Whether a version, and not only a copy or a base, is of that digest."""
    return (
        connection.execute(
            sa.select(nodes.c.id)
            .join(versions, versions.c.node_id == nodes.c.id)
            .where(nodes.c.repository_id == number, nodes.c.digest == digest)
        ).first()
        is not None
    )


def _row(upload: Upload) -> dict[str, Any]:
    announced = upload.announced
    details = {
        "notes": announced.notes,
        "metrics": dict(announced.metrics),
        "parents": list(announced.parents),
        "tags": list(announced.tags),
    }
    return {
        "id": upload.id, "repository": upload.repository, "version": announced.version,
        "digest": announced.digest, "state": announced.state, "base": announced.base,
        "nbytes": announced.nbytes, "sha256": announced.sha256, "received": upload.received,
        "status": upload.status, "problem": None, "details": json.dumps(details),
        "token_id": upload.token_id, "by": upload.by, "expires": upload.expires,
    }  # fmt: skip


def _upload(row: Any) -> Upload:
    announced = Announced(
        row.version, row.digest, row.state, row.base, row.nbytes, row.sha256,
        **json.loads(row.details),
    )  # fmt: skip
    problem = None if row.problem is None else json.loads(row.problem)
    return Upload(
        row.id, row.repository, announced, row.received, row.status, problem, row.token_id,
        row.by, row.expires,
    )  # fmt: skip
