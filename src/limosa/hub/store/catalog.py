"""Repositories, versions and tags."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from limosa.errors import ConflictError, NotFoundError
from limosa.hub.manifest import Manifest
from limosa.hub.store.database import Database
from limosa.hub.store.records import Node, RepositoryInfo, Tag, Version
from limosa.hub.store.rows import (
    NODE,
    lock_repository,
    node_of,
    put_tag,
    repository_id,
    touch,
)
from limosa.hub.store.schema import blobs, edges, nodes, repositories, tags, versions
from limosa.hub.trust import no_repository

#: Tells whether the caller may see a repository of that name.
Visible = Callable[[str], bool]


class Catalog:
    """What there is and what it is called.

    Args:
        database: where it stands.
        clock: seconds since 1970.
    """

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def repositories(self, visible: Visible) -> list[RepositoryInfo]:
        """All that the caller may see, by name; bytes are those of blobs that its edges need."""
        stored = (
            sa.select(edges.c.repository_id, edges.c.sha256, blobs.c.nbytes)
            .join(blobs, blobs.c.sha256 == edges.c.sha256)
            .distinct()
            .subquery()
        )
        sizes = sa.select(
            stored.c.repository_id, sa.func.sum(stored.c.nbytes).label("nbytes")
        ).group_by(stored.c.repository_id)
        counts = sa.select(
            versions.c.repository_id,
            sa.func.count().label("number"),
            sa.func.max(versions.c.created).label("updated"),
        ).group_by(versions.c.repository_id)
        size, count = sizes.subquery(), counts.subquery()
        query = (
            sa.select(repositories, size.c.nbytes, count.c.number, count.c.updated)
            .outerjoin(size, size.c.repository_id == repositories.c.id)
            .outerjoin(count, count.c.repository_id == repositories.c.id)
            .order_by(repositories.c.name)
        )
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return [
            RepositoryInfo(
                row.name, row.description, row.number or 0, int(row.nbytes or 0),
                row.updated or row.created,
            )
            for row in rows
            if visible(row.name)
        ]  # fmt: skip

    def description(self, repository: str) -> str:
        """What a repository says of itself.

        Raises:
            NotFoundError: there is none.
        """
        with self._database.read() as connection:
            found = connection.execute(
                sa.select(repositories.c.description).where(repositories.c.name == repository)
            ).scalar()
        if found is None:
            raise no_repository(repository)
        return str(found)

    def versions(self, repository: str) -> list[Version]:
        """All of a repository, oldest first; lossy copies are not among them."""
        with self._database.read() as connection:
            number = repository_id(connection, repository)
            query = _version_query().where(versions.c.repository_id == number)
            rows = connection.execute(query.order_by(versions.c.created, versions.c.id)).all()
        return [_version(row) for row in rows]

    def tags(self, repository: str) -> list[Tag]:
        """All of a repository, by name."""
        query = (
            sa.select(tags.c.name, versions.c.name.label("version"), nodes.c.digest, tags.c.moved)
            .join(versions, versions.c.id == tags.c.version_id)
            .join(nodes, nodes.c.id == versions.c.node_id)
        )
        with self._database.read() as connection:
            number = repository_id(connection, repository)
            rows = connection.execute(
                query.where(tags.c.repository_id == number).order_by(tags.c.name)
            ).all()
        return [Tag(row.name, row.version, row.digest, row.moved) for row in rows]

    def resolve(self, repository: str, reference: str) -> Version:
        """The version that a name, a tag or ``@DIGEST`` means; a copy has a digest only.

        Raises:
            NotFoundError: there is none.
        """
        with self._database.read() as connection:
            number = repository_id(connection, repository)
            if reference.startswith("@"):
                found = _by_digest(connection, number, reference[1:])
            else:
                found = _by_name(connection, number, reference)
        if found is None:
            raise NotFoundError(
                "no such version", where=f"{repository}:{reference}",
                remedy=f"limosa info {repository} shows what there is",
            )  # fmt: skip
        return found

    def manifest(self, repository: str, digest: str) -> Manifest:
        """The manifest of a node.

        Raises:
            NotFoundError: there is none.
        """
        with self._database.read() as connection:
            number = repository_id(connection, repository)
            found = connection.execute(
                sa.select(nodes.c.manifest).where(
                    nodes.c.repository_id == number, nodes.c.digest == digest
                )
            ).scalar()
        if found is None:
            raise NotFoundError("no such version", where=f"{repository}@{digest}")
        return Manifest.from_json(json.loads(zlib.decompress(found)))

    def nodes(self, repository: str) -> list[Node]:
        """All states that the repository's graph knows, oldest first."""
        with self._database.read() as connection:
            number = repository_id(connection, repository)
            rows = connection.execute(
                sa.select(*NODE).where(nodes.c.repository_id == number).order_by(nodes.c.id)
            ).all()
        return [node_of(row) for row in rows]

    def move_tag(self, repository: str, tag: str, version: str, expect: str | None = None) -> Tag:
        """Let *tag* mean *version*.

        Args:
            expect: the digest that it means now, "" if it is new; None: whatever it means.

        Raises:
            ConflictError: it means something else, or is the name of a version.
            NotFoundError: there is no such version.
        """
        with self._database.begin() as connection:
            number = lock_repository(connection, repository)
            put_tag(self._database, connection, number, tag, version, self._clock(), expect)
        return next(one for one in self.tags(repository) if one.name == tag)

    def remove_tag(self, repository: str, tag: str) -> None:
        """Forget a tag.

        Raises:
            NotFoundError: there is none.
        """
        with self._database.begin() as connection:
            number = lock_repository(connection, repository)
            gone = connection.execute(
                sa.delete(tags).where(tags.c.repository_id == number, tags.c.name == tag)
            )
            if not gone.rowcount:
                raise NotFoundError("no such tag", where=f"{repository}:{tag}")

    def remove_version(self, repository: str, name: str) -> None:
        """Forget a version; its blobs stay until ``gc`` finds that no other version needs them.

        Raises:
            NotFoundError: there is none.
            ConflictError: a tag means it.
        """
        with self._database.begin() as connection:
            number = lock_repository(connection, repository)
            found = _by_name(connection, number, name, tagged=False)
            if found is None:
                raise NotFoundError("no such version", where=f"{repository}:{name}")
            held = connection.execute(
                sa.select(tags.c.name)
                .join(versions, versions.c.id == tags.c.version_id)
                .where(versions.c.repository_id == number, versions.c.name == name)
            ).scalars()
            names = list(held)
            if names:
                raise ConflictError(
                    "a tag means this version", where=f"{repository}:{name}",
                    found=", ".join(names), remedy="move or remove the tag first",
                )  # fmt: skip
            connection.execute(
                sa.delete(versions).where(
                    versions.c.repository_id == number, versions.c.name == name
                )
            )
            touch(connection, number)


def _version_query() -> sa.Select[Any]:
    whole = (
        sa.select(sa.func.min(edges.c.nbytes))
        .where(edges.c.node_id == nodes.c.id, edges.c.base == "")
        .correlate(nodes)
        .scalar_subquery()
        .label("blob_nbytes")
    )
    return sa.select(
        versions.c.name, versions.c.created, versions.c.by, versions.c.notes, versions.c.metrics,
        versions.c.parents, *NODE, whole,
    ).join(nodes, nodes.c.id == versions.c.node_id)  # fmt: skip


def _by_name(
    connection: sa.Connection, number: int, name: str, *, tagged: bool = True
) -> Version | None:
    query = _version_query().where(versions.c.repository_id == number)
    row = connection.execute(query.where(versions.c.name == name)).first()
    if row is None and tagged:
        meant = query.join(tags, tags.c.version_id == versions.c.id).where(tags.c.name == name)
        row = connection.execute(meant).first()
    return None if row is None else _version(row)


def _by_digest(connection: sa.Connection, number: int, digest: str) -> Version | None:
    query = _version_query().where(versions.c.repository_id == number, nodes.c.digest == digest)
    row = connection.execute(query.order_by(versions.c.created)).first()
    if row is not None:
        return _version(row)
    whole = (
        sa.select(sa.func.min(edges.c.nbytes))
        .where(edges.c.node_id == nodes.c.id, edges.c.base == "")
        .correlate(nodes)
        .scalar_subquery()
        .label("blob_nbytes")
    )
    found = connection.execute(
        sa.select(*NODE, nodes.c.created, whole).where(
            nodes.c.repository_id == number, nodes.c.digest == digest, nodes.c.copy_of.is_not(None)
        )
    ).first()
    if found is None:
        return None
    return Version(node_of(found), "", found.created, "hub", blob_nbytes=found.blob_nbytes)


def _version(row: Any) -> Version:
    return Version(
        node_of(row), row.name, row.created, row.by, row.notes, json.loads(row.metrics),
        tuple(json.loads(row.parents)), row.blob_nbytes,
    )  # fmt: skip
