"""Two workers on one database: what one stores or removes, the other plans with."""

import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from limosa.errors import NotFoundError
from limosa.hub.store import schema
from limosa.hub.store.graph import EdgeTable, put_edge
from limosa.hub.store.records import StoredEdge
from limosa.hub.store.rows import touch
from limosa.hub.store.store import Store

REPOSITORY = "a/b"


def digest(kind: str, number: int) -> str:
    return f"{kind}{number:03}".ljust(64, "0")


@pytest.fixture
def store(tmp_path: Path):
    made = Store(f"sqlite:///{tmp_path / 'hub.db'}", "memory://")
    with made.database.begin() as connection:
        connection.execute(sa.insert(schema.repositories).values(id=1, name=REPOSITORY, created=0))
        for i in range(4):
            connection.execute(
                sa.insert(schema.nodes).values(
                    repository_id=1, digest=digest("d", i), state=digest("a", i), nbytes=1,
                    manifest=b"", created=0,
                )
            )  # fmt: skip
    yield made
    made.close()


@pytest.fixture
def other(store: Store) -> EdgeTable:
    return EdgeTable(store.database, time.time)


def put(store: Store, base: int | None, target: int, nbytes: int, blob: int) -> None:
    with store.database.begin() as connection:
        row = {"sha256": digest("b", blob), "nbytes": nbytes, "created": 0.0}
        connection.execute(store.database.insert_missing(schema.blobs, row, ["sha256"]))
        edge = StoredEdge(
            "" if base is None else digest("a", base), digest("d", target), digest("a", target),
            digest("b", blob), nbytes, 0, "made", 0, 0.0, 0,
        )  # fmt: skip
        put_edge(store.database, connection, 1, edge, 0.0)


def plan(table: EdgeTable, held: int | None, target: int) -> list[str]:
    have = [] if held is None else [digest("a", held)]
    _, steps = table.plan(REPOSITORY, have, digest("d", target))
    return [step.edge.sha256[:4] for step in steps if step.edge is not None]


def test_new_edges_are_planned_with(store: Store, other: EdgeTable) -> None:
    put(store, None, 0, 100, 0)
    assert plan(other, None, 0) == ["b000"]
    with pytest.raises(NotFoundError):
        plan(other, 0, 1)
    put(store, 0, 1, 10, 1)
    assert plan(other, 0, 1) == ["b001"]
    put(store, 1, 2, 10, 2)
    put(store, 2, 3, 10, 3)
    assert plan(other, None, 3) == ["b000", "b001", "b002", "b003"]
    assert plan(store.graph, None, 3) == plan(other, None, 3)


def test_a_smaller_edge_takes_the_place_of_a_larger_one(store: Store, other: EdgeTable) -> None:
    put(store, None, 0, 100, 0)
    put(store, 0, 1, 50, 1)
    assert plan(other, 0, 1) == ["b001"]
    put(store, 0, 1, 20, 2)
    assert plan(other, 0, 1) == ["b002"]
    put(store, 0, 1, 30, 3)
    assert plan(other, 0, 1) == ["b002"]


def test_removed_edges_are_planned_with_no_more(store: Store, other: EdgeTable) -> None:
    put(store, None, 0, 100, 0)
    put(store, 0, 1, 10, 1)
    put(store, None, 1, 90, 2)
    assert plan(other, 0, 1) == ["b001"]
    with store.database.begin() as connection:
        connection.execute(sa.delete(schema.edges).where(schema.edges.c.sha256 == digest("b", 1)))
        touch(connection, 1, removed=True)
    assert plan(other, 0, 1) == ["b002"]
    put(store, 0, 1, 30, 3)
    assert plan(other, 0, 1) == ["b003"]


def test_what_grew_is_read_alone(store: Store, other: EdgeTable) -> None:
    put(store, None, 0, 100, 0)
    plan(other, None, 0)
    put(store, 0, 1, 10, 1)
    read: list[int] = []

    @sa.event.listens_for(store.database.engine, "before_cursor_execute")
    def count(connection, cursor, statement, parameters, context, many) -> None:
        if "edges.revision >" in statement:
            read.append(1)
        elif "FROM edges JOIN nodes" in statement:
            read.append(0)

    plan(other, 0, 1)
    plan(other, 0, 1)
    assert read == [1]


def test_bases_are_those_of_one_version(store: Store) -> None:
    put(store, None, 0, 100, 0)
    put(store, 0, 1, 10, 1)
    put(store, None, 1, 90, 2)
    assert store.graph.bases(REPOSITORY, digest("d", 1)) == {"", digest("a", 0)}
    assert store.graph.bases(REPOSITORY, digest("d", 3)) == set()
