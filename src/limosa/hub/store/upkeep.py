"""Keeping the store small and sound: ``gc`` and ``fsck``."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone

import sqlalchemy as sa

from limosa.errors import ConflictError, LimosaError
from limosa.hub.planner import NOTHING
from limosa.hub.store.blobs import blob_key
from limosa.hub.store.graph import stored_edges
from limosa.hub.store.records import StoredEdge
from limosa.hub.store.rows import lock_repository, touch
from limosa.hub.store.schema import blobs, edges, nodes, repositories, versions
from limosa.hub.store.store import Store
from limosa.hub.store.thinning import surplus

#: A blob that nobody needs goes so much later: nothing under way may still count on it.
GRACE_S = 3600.0
_PREFIX = "blobs/"
# What a writer that was killed left in a folder of blobs.
_UNFINISHED_S = 3600.0


@dataclass
class Freed:
    """What a run of ``gc`` removed, or would have.

    Attributes:
        edges: that are not essential, and beyond the cache's size.
        blobs: that nobody needed.
        nbytes: of these, and of the parts of uploads.
        uploads: that ended, or were given up.
    """

    edges: int = 0
    blobs: int = 0
    nbytes: int = 0
    uploads: int = 0


@dataclass
class Checked:
    """What ``fsck`` looked at, and what is wrong."""

    blobs: int = 0
    nbytes: int = 0
    versions: int = 0
    problems: list[str] = field(default_factory=list)


def gc(
    store: Store,
    *,
    cache_bytes: int,
    thin: bool = False,
    uploads: bool = False,
    grace_s: float = GRACE_S,
    dry_run: bool = False,
) -> Freed:
    """Remove what nobody needs. A route to every version always stays.

    Args:
        store: whose.
        cache_bytes: that edges beyond the essential ones of all repositories may take, together.
        thin: keep none of these.
        uploads: give up those that are not finished, too, as where a full disk ended them; who
            sends one begins anew. One that is being verified goes on.
        grace_s: how long a blob must have been of no use.
        dry_run: only say what would go.

    Raises:
        ConflictError: another run is under way.
    """
    freed = Freed()
    with store.locks.hold("gc") as mine:
        if not mine:
            raise ConflictError("another gc is under way", remedy="wait for it")
        left = 0 if thin else cache_bytes
        for name in _repositories(store):
            left -= _thin(store, name, max(0, left), freed, dry_run)
        _drop_uploads(store, freed, dry_run, uploads)
        _sweep(store, grace_s, freed, dry_run)
    return freed


def _repositories(store: Store) -> list[str]:
    with store.database.read() as connection:
        return list(connection.execute(sa.select(repositories.c.name)).scalars())


def _thin(store: Store, repository: str, cache_bytes: int, freed: Freed, dry_run: bool) -> int:
    """Remove surplus edges; returns the bytes of those that stay beyond the essential."""
    with store.database.begin() as connection:
        number = lock_repository(connection, repository)
        stored = stored_edges(connection, number)
        wanted = _wanted(connection, number)
        leased = _leased(connection, store.clock())
        # Who was told of a route may still fetch it.
        gone = [e for e in surplus(stored, wanted, cache_bytes) if e.sha256 not in leased]
        freed.edges += len(gone)
        for edge in () if dry_run else gone:
            _remove(connection, number, edge)
        if gone and not dry_run:
            _forget_nodes(connection, number)
            touch(connection, number, removed=True)
    return _extra_bytes(stored, wanted, gone)


def _leased(connection: sa.Connection, now: float) -> set[str]:
    return set(connection.execute(sa.select(blobs.c.sha256).where(blobs.c.leased > now)).scalars())


def _wanted(connection: sa.Connection, number: int) -> set[str]:
    """Digests of versions, and of bases that open uploads are coded against."""
    from limosa.hub.store.schema import uploads

    named = connection.execute(
        sa.select(nodes.c.digest)
        .join(versions, versions.c.node_id == nodes.c.id)
        .where(versions.c.repository_id == number)
    ).scalars()
    bases = sa.select(uploads.c.base).where(uploads.c.status.in_(["open", "verifying"]))
    pushed = connection.execute(
        sa.select(nodes.c.digest).where(nodes.c.repository_id == number, nodes.c.state.in_(bases))
    ).scalars()
    return {*named, *pushed}


def _extra_bytes(stored: list[StoredEdge], wanted: Collection[str], gone: list[StoredEdge]) -> int:
    all_surplus = surplus(stored, wanted, 0)
    went = {(edge.base, edge.target) for edge in gone}
    stays = {e.sha256: e.nbytes for e in all_surplus if (e.base, e.target) not in went}
    return sum(stays.values())


def _remove(connection: sa.Connection, number: int, edge: StoredEdge) -> None:
    node = sa.select(nodes.c.id).where(
        nodes.c.repository_id == number, nodes.c.digest == edge.target
    )
    connection.execute(
        sa.delete(edges).where(
            edges.c.repository_id == number,
            edges.c.base == edge.base,
            edges.c.node_id.in_(node),
        )
    )


def _forget_nodes(connection: sa.Connection, number: int) -> None:
    """Nodes that no version names and no edge reaches."""
    connection.execute(
        sa.delete(nodes).where(
            nodes.c.repository_id == number,
            nodes.c.id.not_in(sa.select(versions.c.node_id)),
            nodes.c.id.not_in(sa.select(edges.c.node_id)),
        )
    )


def _drop_uploads(store: Store, freed: Freed, dry_run: bool, unfinished: bool) -> None:
    gone = {upload.id: upload for upload in store.uploads.ended()}
    if unfinished:
        for upload in store.uploads.unfinished():
            if not store.locks.is_held(f"upload {upload.id}"):
                gone[upload.id] = upload
    for upload in gone.values():
        freed.uploads += 1
        # The parts first: where the disk is full, the row can be removed only then.
        freed.nbytes += store.drop_parts(upload.id, dry_run=dry_run)
        if not dry_run:
            store.uploads.remove(upload)
    # Listed before it is asked which are known: an upload has its row before it has bytes.
    parts = list(store.blobs.list("uploads/"))
    known = store.uploads.numbers()
    for key, size, _ in parts:
        if key.split("/")[1] not in known:
            freed.nbytes += size
            if not dry_run:
                store.blobs.delete(key)


def _sweep(store: Store, grace_s: float, freed: Freed, dry_run: bool) -> None:
    known = store.blob_table.all()
    lying = {key.rsplit("/", 1)[1]: size for key, size, _ in store.blobs.list(_PREFIX)}
    orphans = [(sha256, size) for sha256, size in lying.items() if sha256 not in known]
    store.blob_table.condemn(orphans, dry_run=dry_run)
    if not dry_run:
        freed.nbytes += store.blobs.sweep(_long_ago(store.clock() - _UNFINISHED_S))
    for sha256, nbytes in store.blob_table.due(grace_s):

        def remove(key: str = blob_key(sha256)) -> None:
            store.blobs.delete(key)

        if dry_run or store.blob_table.sweep(sha256, grace_s, remove):
            freed.blobs += 1
            freed.nbytes += nbytes


def _long_ago(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def fsck(store: Store, *, read_data: bool = False) -> Checked:
    """See whether every version can be reached over blobs that are there.

    Args:
        store: whose.
        read_data: also read every blob and compare its SHA-256.
    """
    checked = Checked()
    # Of others some may be gone: those that were just removed when a gc was killed.
    sizes = store.blob_table.needed()
    bad: set[str] = set()
    for sha256, nbytes in sorted(sizes.items()):
        checked.blobs += 1
        checked.nbytes += nbytes
        for problem in _wrong(store, sha256, nbytes, read_data):
            checked.problems.append(f"blob {sha256}: {problem}")
            bad.add(sha256)
    for repository in _repositories(store):
        for name in _lost(store, repository, bad, checked):
            checked.problems.append(f"version {repository}:{name}: no route over sound blobs")
    return checked


def _wrong(store: Store, sha256: str, nbytes: int, read_data: bool) -> Iterator[str]:
    key = blob_key(sha256)
    try:
        size = store.blobs.size(key)
        if size is None:
            yield "missing"
        elif size != nbytes:
            yield f"{size} bytes instead of {nbytes}"
        elif read_data:
            digest = hashlib.sha256()
            for data in store.blobs.stream(key):
                digest.update(data)
            if digest.hexdigest() != sha256:
                yield "its bytes changed"
    except LimosaError as error:
        yield str(error)


def _lost(store: Store, repository: str, bad: set[str], checked: Checked) -> list[str]:
    stored = [edge for edge in store.graph.edges(repository) if edge.sha256 not in bad]
    reached, states = set(), {NOTHING}
    grew = True
    while grew:
        grew = False
        for edge in stored:
            if edge.base in states and edge.target not in reached:
                reached.add(edge.target)
                states.add(edge.target_state)
                grew = True
    found = store.catalog.versions(repository)
    checked.versions += len(found)
    return [version.name for version in found if version.node.digest not in reached]
