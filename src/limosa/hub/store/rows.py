"""Rows within a transaction: repositories, nodes and tags."""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from limosa.errors import ConflictError, NotFoundError
from limosa.hub.manifest import Manifest
from limosa.hub.store.database import Database
from limosa.hub.store.records import Bound, Node
from limosa.hub.store.schema import nodes, repositories, tags, versions
from limosa.hub.trust import no_repository

#: The columns of a node, as :func:`node_of` reads them.
NODE = (
    nodes.c.id.label("node_id"), nodes.c.digest, nodes.c.state, nodes.c.nbytes, nodes.c.copy_of,
    nodes.c.bound,
)  # fmt: skip


def repository_id(connection: sa.Connection, repository: str) -> int:
    """The number of a repository.

    Raises:
        NotFoundError: there is none.
    """
    found = connection.execute(
        sa.select(repositories.c.id).where(repositories.c.name == repository)
    ).scalar()
    if found is None:
        raise no_repository(repository)
    return int(found)


def lock_repository(connection: sa.Connection, repository: str) -> int:
    """The number of a repository whose versions and edges nobody else changes until the end of the
    transaction: what ``gc`` found to be of no use stays so, and what a push starts from is there.

    Raises:
        NotFoundError: there is none.
    """
    found = connection.execute(
        sa.select(repositories.c.id).where(repositories.c.name == repository).with_for_update()
    ).scalar()
    if found is None:
        raise no_repository(repository)
    return int(found)


def touch(connection: sa.Connection, number: int, *, removed: bool = False) -> int:
    """The graph of a repository changed, which nobody else does before this transaction ends.

    Args:
        removed: whether edges went.

    Returns:
        The number of the change.
    """
    here = repositories.c.id == number
    values = {"revision": repositories.c.revision + 1}
    if removed:
        values["removed"] = repositories.c.revision + 1
    connection.execute(sa.update(repositories).where(here).values(values))
    return int(connection.execute(sa.select(repositories.c.revision).where(here)).scalar_one())


def put_node(
    database: Database,
    connection: sa.Connection,
    number: int,
    manifest: Manifest,
    now: float,
    *,
    copy_of: str | None = None,
    bound: Bound | None = None,
) -> int:
    """The number of a manifest's node, which is made if it is new."""
    values: dict[str, Any] = {
        "repository_id": number,
        "digest": manifest.digest,
        "state": manifest.state,
        "nbytes": manifest.nbytes,
        "manifest": zlib.compress(json.dumps(manifest.to_json()).encode()),
        "copy_of": copy_of,
        "bound": None if bound is None else json.dumps(vars(bound)),
        "created": now,
    }
    key = ["repository_id", "digest"]
    connection.execute(database.insert_missing(nodes, values, key))
    return int(
        connection.execute(
            sa.select(nodes.c.id).where(
                nodes.c.repository_id == number, nodes.c.digest == manifest.digest
            )
        ).scalar_one()
    )


def put_tag(
    database: Database,
    connection: sa.Connection,
    number: int,
    tag: str,
    version: str,
    now: float,
    expect: str | None = None,
) -> None:
    """Within a transaction, as :meth:`Catalog.move_tag`."""
    wanted = connection.execute(
        sa.select(versions.c.id, versions.c.name).where(
            versions.c.repository_id == number, versions.c.name.in_([version, tag])
        )
    ).all()
    if any(row.name == tag for row in wanted):
        raise ConflictError("a version has that name", where=f"tag {tag}", remedy="use another")
    if not wanted:
        raise NotFoundError("no such version", where=version)
    now_at = connection.execute(
        sa.select(nodes.c.digest)
        .join(versions, versions.c.node_id == nodes.c.id)
        .join(tags, tags.c.version_id == versions.c.id)
        .where(tags.c.repository_id == number, tags.c.name == tag)
        # The row stays ours until the end, or two that expect the same would both go on.
        .with_for_update(of=tags)
    ).scalar()
    if expect is not None and (now_at or "") != expect:
        raise ConflictError(
            "the tag moved", where=f"tag {tag}", found=now_at or "none", allowed=expect or "none",
            remedy="look at what it means now, then try again",
        )  # fmt: skip
    values = {
        "repository_id": number, "name": tag, "version_id": wanted[0].id, "moved": now,
    }  # fmt: skip
    if expect == "":
        if not database.is_inserted(connection, tags, values, ["repository_id", "name"]):
            raise ConflictError("the tag was made by another", where=f"tag {tag}")
        return
    connection.execute(database.upsert(tags, values, ["repository_id", "name"]))


def node_of(row: Any) -> Node:
    """What a row with :data:`NODE` holds."""
    bound = None if row.bound is None else Bound(**json.loads(row.bound))
    return Node(row.node_id, row.digest, row.state, row.nbytes, row.copy_of, bound)


def known(connection: sa.Connection, number: int, digests: Collection[str]) -> list[Node]:
    """Those of *digests*, of versions or of states, that the repository knows."""
    if not digests:
        return []
    either = nodes.c.digest.in_(digests) | nodes.c.state.in_(digests)
    rows = connection.execute(
        sa.select(*NODE).where(nodes.c.repository_id == number, either).order_by(nodes.c.id)
    )
    return [node_of(row) for row in rows]
