"""Edges of the graph: which blob turns which state into which, and routes over them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from limosa.errors import NotFoundError, TransportError
from limosa.hub import planner
from limosa.hub.store.database import Database
from limosa.hub.store.records import Node, StoredEdge
from limosa.hub.store.rows import known, repository_id, touch
from limosa.hub.store.schema import blobs, edges, estimates, nodes, repositories

#: How long the blobs of a plan stay at least.
LEASE_S = 3600.0
# Made once: building a query takes longer than SQLite needs to answer it.
_BLOB = (
    sa.select(blobs.c.nbytes)
    .join(edges, edges.c.sha256 == blobs.c.sha256)
    .join(repositories, repositories.c.id == edges.c.repository_id)
    .where(
        repositories.c.name == sa.bindparam("repository"),
        blobs.c.sha256 == sa.bindparam("sha256"),
    )
    .limit(1)
)
# Graphs in memory, of one worker; each of the size of its repository.
_GRAPHS = 64


@dataclass(frozen=True)
class Step:
    """An edge of a route, stored or still to be made.

    Attributes:
        base: state that it starts from; "" for a whole model.
        target: digest of the version that it gives.
        nbytes: to fetch; an estimate where *edge* is None.
        edge: what is stored.
        seconds: that making it takes.
    """

    base: str
    target: str
    nbytes: int
    edge: StoredEdge | None
    seconds: float = 0.0


class _Graph:
    """The graph of a repository as one revision of it has it, or a later one that removed none."""

    def __init__(self, revision: int) -> None:
        self.revision = revision
        self.graph = planner.Graph()
        # By base and by what it gives, a version's digest or its state alone.
        self.by_ends: dict[tuple[str, str], StoredEdge] = {}

    def add(self, stored: Iterable[StoredEdge]) -> None:
        """More edges; a smaller one takes the place of a larger one. Others may plan meanwhile."""
        for edge in stored:
            for target in (edge.target, edge.target_state):
                best = self.by_ends.get((edge.base, target))
                if best is None or edge.nbytes < best.nbytes:
                    self.by_ends[edge.base, target] = edge
                self.graph.add(planner.Edge(edge.base, target, edge.nbytes, memory=edge.memory))


class EdgeTable:
    """The edges of all repositories.

    Args:
        database: where they stand.
        clock: seconds since 1970.
    """

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._graphs: OrderedDict[int, _Graph] = OrderedDict()
        self._lock = threading.Lock()

    def edges(self, repository: str) -> list[StoredEdge]:
        """All stored edges of a repository.

        Raises:
            NotFoundError: there is no such repository.
        """
        with self._database.read() as connection:
            return stored_edges(connection, repository_id(connection, repository))

    def find(self, repository: str, base: str, target: str) -> StoredEdge | None:
        """The stored edge from a state to a version."""
        with self._database.read() as connection:
            number = repository_id(connection, repository)
            row = connection.execute(
                _edge_query(number).where(edges.c.base == base, nodes.c.digest == target)
            ).first()
        return None if row is None else _edge(row)

    def bases(self, repository: str, target: str) -> set[str]:
        """States from which a stored edge leads to a version; of all edges only these are read."""
        with self._database.read() as connection:
            number = repository_id(connection, repository)
            node = connection.execute(
                sa.select(nodes.c.id).where(
                    nodes.c.repository_id == number, nodes.c.digest == target
                )
            ).scalar()
            # By the node alone: SQLite would look through all edges of the repository.
            query = sa.select(edges.c.base).where(edges.c.node_id == node)
            return set(connection.execute(query).scalars())

    def blob(self, repository: str, sha256: str) -> int:
        """The size of a blob that an edge of the repository needs.

        Raises:
            NotFoundError: none of its edges does, whoever else has such a blob.
        """
        with self._database.read() as connection:
            values = {"repository": repository, "sha256": sha256}
            found = connection.execute(_BLOB, values).scalar()
            if found is None:
                repository_id(connection, repository)
        if found is None:
            raise NotFoundError(
                "no such blob", where=f"{repository}, blob {sha256[:16]}",
                remedy="plan again: it may have been replaced",
            )  # fmt: skip
        return int(found)

    def known(self, repository: str, digests: Collection[str]) -> list[Node]:
        """Those of *digests*, of versions or of states, that the repository knows."""
        with self._database.read() as connection:
            return known(connection, repository_id(connection, repository), list(digests)[:1000])

    def plan(
        self,
        repository: str,
        held: Collection[str],
        target: str,
        limits: planner.RouteLimits | None = None,
        *,
        extra: Mapping[str, tuple[int, float]] | None = None,
    ) -> tuple[str, list[Step]]:
        """The cheapest route, and the state that it starts from.

        Args:
            held: digests and states that the receiver has.
            target: digest of the version that it wants.
            limits: what a route may ask for.
            extra: edges into *target* that could be made: state of the base -> bytes, seconds.

        Raises:
            NotFoundError: no route keeps the limits, or there is no such repository.
        """
        graph = self._graph(repository)
        could = [planner.Edge(b, target, n, s) for b, (n, s) in (extra or {}).items()]
        route = graph.graph.plan(held, target, limits, extra=could)
        steps = [_step(graph, edge) for edge in route.edges]
        self.lease(step.edge.sha256 for step in steps if step.edge is not None)
        return route.start, steps

    def lease(self, sha256s: Iterable[str], seconds: float = LEASE_S) -> None:
        """Keep blobs for a while whatever happens to their edges."""
        names = sorted(set(sha256s))
        if not names:
            return
        now = self._clock()
        with self._database.read() as connection:
            short = connection.execute(
                sa.select(blobs.c.sha256).where(
                    blobs.c.sha256.in_(names), blobs.c.leased < now + seconds / 2
                )
            ).scalars()
            due = list(short)
        # Most plans find a lease that is long enough, and so write nothing.
        if due:
            # Not worth a refusal: gc, which the lease is against, can do nothing either if the
            # database cannot be written.
            with suppress(TransportError), self._database.begin() as connection:
                connection.execute(
                    sa.update(blobs).where(blobs.c.sha256.in_(due)).values(leased=now + seconds)
                )

    def used(self, repository: str, base: str, target: str) -> None:
        """An edge was fetched: the cache keeps what was used last."""
        with self._database.begin() as connection:
            number = repository_id(connection, repository)
            node = sa.select(nodes.c.id).where(
                nodes.c.repository_id == number, nodes.c.digest == target
            )
            connection.execute(
                sa.update(edges)
                .where(edges.c.repository_id == number, edges.c.base == base)
                .where(edges.c.node_id.in_(node))
                .values(used=self._clock(), uses=edges.c.uses + 1)
            )

    def estimates(self, repository: str, target: str) -> dict[str, tuple[int, float]]:
        """What edges into *target* would take, so far as it was measured: bytes and seconds."""
        with self._database.read() as connection:
            number = repository_id(connection, repository)
            rows = connection.execute(
                sa.select(estimates).where(
                    estimates.c.repository_id == number, estimates.c.target == target
                )
            ).all()
        return {row.base: (row.nbytes, row.seconds) for row in rows}

    def keep_estimates(
        self, repository: str, target: str, found: Mapping[str, tuple[int, float]]
    ) -> None:
        """Remember what was measured."""
        with self._database.begin() as connection:
            number = repository_id(connection, repository)
            for base, (nbytes, seconds) in found.items():
                values = {
                    "repository_id": number, "base": base, "target": target, "nbytes": nbytes,
                    "seconds": seconds,
                }  # fmt: skip
                key = ["repository_id", "base", "target"]
                connection.execute(self._database.upsert(estimates, values, key))

    def _graph(self, repository: str) -> _Graph:
        """The graph, of which only what is new since is read, unless edges were removed."""
        query = sa.select(repositories.c.revision, repositories.c.removed)
        with self._database.read() as connection:
            number = repository_id(connection, repository)
            row = connection.execute(query.where(repositories.c.id == number)).one()
            with self._lock:
                kept = self._graphs.get(number)
                if kept is not None and kept.revision < row.removed:
                    kept = None
                if kept is not None:
                    if kept.revision < row.revision:
                        kept.add(stored_edges(connection, number, since=kept.revision))
                        kept.revision = row.revision
                    self._graphs.move_to_end(number)
                    return kept
            made = _Graph(row.revision)
            made.add(stored_edges(connection, number))
        with self._lock:
            self._graphs[number] = made
            while len(self._graphs) > _GRAPHS:
                self._graphs.popitem(last=False)
        return made


def put_edge(
    database: Database, connection: sa.Connection, number: int, edge: StoredEdge, now: float
) -> None:
    """Store an edge within a transaction; a smaller one takes the place of a larger one."""
    node = connection.execute(
        sa.select(nodes.c.id).where(nodes.c.repository_id == number, nodes.c.digest == edge.target)
    ).scalar()
    if node is None:
        raise NotFoundError(
            "the version was removed meanwhile", where=f"version {edge.target[:16]}",
            remedy="plan again",
        )  # fmt: skip
    same = (edges.c.repository_id == number, edges.c.base == edge.base, edges.c.node_id == node)
    found = connection.execute(sa.select(edges.c.nbytes).where(*same)).scalar()
    if found is not None and found <= edge.nbytes:
        return
    values: dict[str, Any] = {
        "repository_id": number, "base": edge.base, "node_id": node, "sha256": edge.sha256,
        "nbytes": edge.nbytes, "layer": edge.layer, "kind": edge.kind, "memory": edge.memory,
        "created": now, "used": now, "revision": touch(connection, number),
    }  # fmt: skip
    key = ["repository_id", "base", "node_id"]
    connection.execute(database.upsert(edges, values, key))


def stored_edges(
    connection: sa.Connection, number: int, *, since: int | None = None
) -> list[StoredEdge]:
    """All edges of a repository, or those stored after a revision, within a transaction."""
    query = _edge_query(number).order_by(edges.c.id)
    if since is not None:
        query = query.where(edges.c.revision > since)
    return [_edge(row) for row in connection.execute(query)]


def _edge_query(number: int) -> sa.Select[Any]:
    return (
        sa.select(
            edges.c.base, nodes.c.digest, nodes.c.state, edges.c.sha256, edges.c.nbytes,
            edges.c.layer, edges.c.kind, edges.c.memory, edges.c.used, edges.c.uses,
        )
        .join(nodes, nodes.c.id == edges.c.node_id)
        .where(edges.c.repository_id == number)
    )  # fmt: skip


def _edge(row: Any) -> StoredEdge:
    return StoredEdge(
        row.base, row.digest, row.state, row.sha256, row.nbytes, row.layer, row.kind, row.memory,
        row.used, row.uses,
    )  # fmt: skip


def _step(graph: _Graph, edge: planner.Edge) -> Step:
    stored = graph.by_ends.get((edge.base, edge.target))
    if stored is None or edge.seconds > 0 or stored.nbytes > edge.nbytes:
        return Step(edge.base, edge.target, edge.nbytes, None, edge.seconds)
    return Step(edge.base, stored.target, stored.nbytes, stored)
