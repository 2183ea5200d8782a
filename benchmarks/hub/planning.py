"""Plans among ten thousand versions and a hundred thousand edges, asked for over HTTP."""

from __future__ import annotations

import hashlib
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from limosa.exchange.hub_server import HubServer
from limosa.hub.client import HubClient
from limosa.hub.planner import NOTHING
from limosa.hub.server.settings import HubSettings
from limosa.hub.store import schema
from limosa.hub.store.graph import put_edge
from limosa.hub.store.records import StoredEdge
from limosa.hub.store.rows import touch

REPOSITORY = "bench/history"
MOST_S = 0.050
WHOLE, STEP = 10_000_000, 180_000
# A version is reached from those so far before it (or behind it): a receiver of a release, of a
# nightly build, one that goes back.
_BACK = (1, 2, 3, 5, 10, 30, 100, 300, -1, -10)


@dataclass(frozen=True)
class Plans:
    """Seconds of plans.

    Attributes:
        versions, edges: in the repository.
        warm: of requests over HTTP, one after the other.
        inner: of the same without HTTP: the table of edges alone.
        grown: of the first request after an edge was added.
        shrunk: of the first request after edges were removed.
    start: of the first request of a new hub.
        hops: of the routes.
    """

    versions: int
    edges: int
    warm: list[float]
    inner: list[float]
    grown: list[float]
    shrunk: list[float]
    start: float
    hops: list[int]


def plan(folder: Path, versions: int, plans: int, changes: int) -> Plans:
    """Ask a hub for routes between versions that are chosen by chance."""
    settings = HubSettings(folder)
    chance = random.Random(1)
    asked = [
        (
            [_digest("state", chance.randrange(versions)) for _ in range(3)],
            chance.randrange(versions),
        )
        for _ in range(plans)
    ]  # fmt: skip
    with HubServer(settings) as server:
        assert server.admin_token is not None
        edges = _fill(server, versions, asked)
        store = server.hub.store
        with HubClient(server.url, server.admin_token) as client:

            def ask(held: list[str], want: int) -> tuple[float, int]:
                started = time.perf_counter()
                found = client.plan(REPOSITORY, f"v{want}", held)
                return time.perf_counter() - started, len(found["route"])

            start, _ = ask(*asked[0])
            warm, hops = zip(*(ask(*one) for one in asked), strict=True)
            inner, grown, shrunk = [], [], []
            for held, want in asked:
                started = time.perf_counter()
                store.graph.plan(REPOSITORY, held, _digest("version", want))
                inner.append(time.perf_counter() - started)
            for number in range(changes):
                _add_edge(server, number)
                grown.append(ask(*asked[number % plans])[0])
            for number in range(3):
                _remove_edge(server)
                shrunk.append(ask(*asked[number % plans])[0])
    return Plans(versions, edges, list(warm), inner, grown, shrunk, start, list(hops))


def _digest(kind: str, number: int) -> str:
    return hashlib.sha256(f"{kind} {number}".encode()).hexdigest()


def _add_edge(server: HubServer, number: int) -> None:
    """One more update between versions: the graph in memory is not the last any more."""
    store, now = server.hub.store, time.time()
    with store.database.begin() as connection:
        sha256 = _digest("more", number)
        connection.execute(sa.insert(schema.blobs).values(sha256=sha256, nbytes=STEP, created=now))
        edge = StoredEdge(
            _digest("state", 40 + number), _digest("version", number),
            _digest("state", number), sha256, STEP, 0, "made", 0, now, 0,
        )  # fmt: skip
        put_edge(store.database, connection, 1, edge, now)


def _remove_edge(server: HubServer) -> None:
    """As ``gc`` leaves a repository: what is in memory may be gone."""
    with server.hub.store.database.begin() as connection:
        touch(connection, 1, removed=True)


def _fill(server: HubServer, versions: int, asked: list[tuple[list[str], int]]) -> int:
    """Rows as pushes would have left them; the count of edges."""
    chance, now = random.Random(0), time.time()
    with server.hub.store.database.begin() as connection:

        def insert(table: sa.Table, rows: list[dict[str, Any]]) -> None:
            connection.execute(sa.insert(table), rows)

        insert(schema.repositories, [{"id": 1, "name": REPOSITORY, "created": now}])
        insert(schema.nodes, [
            {"id": i + 1, "repository_id": 1, "digest": _digest("version", i),
             "state": _digest("state", i), "nbytes": 2 * WHOLE, "manifest": b"",
             "created": now}
            for i in range(versions)
        ])  # fmt: skip
        insert(schema.versions, [
            {"repository_id": 1, "node_id": i + 1, "name": f"v{i}", "created": now, "by": "bench",
             "notes": "", "metrics": "{}", "parents": "[]"}
            for i in range(versions)
        ])  # fmt: skip
        ends = list(_ends(versions))
        sizes = [int(_nbytes(*one) * chance.uniform(0.8, 1.2)) for one in ends]
        insert(schema.blobs, [
            {"sha256": _digest("blob", n), "nbytes": nbytes, "created": now}
            for n, nbytes in enumerate(sizes)
        ])  # fmt: skip
        insert(schema.edges, [
            {"repository_id": 1, "base": NOTHING if base is None else _digest("state", base),
             "node_id": target + 1, "sha256": _digest("blob", n), "nbytes": sizes[n],
             "kind": "pushed", "memory": 0, "created": now, "used": now}
            for n, (base, target) in enumerate(ends)
        ])  # fmt: skip
        # What could be made was measured when somebody asked first; that is no part of planning.
        wanted = {
            (base, _digest("version", want))
            for held, want in asked for base in (NOTHING, *held)
        }  # fmt: skip
        insert(schema.estimates, [
            {"repository_id": 1, "base": base, "target": target, "seconds": 2.0,
             "nbytes": WHOLE if base == NOTHING else WHOLE // 3}
            for base, target in sorted(wanted)
        ])  # fmt: skip
    return len(ends)


def _ends(versions: int) -> list[tuple[int | None, int]]:
    found: list[tuple[int | None, int]] = []
    for target in range(versions):
        found += [(target - b, target) for b in _BACK if 0 <= target - b < versions]
        if target % 20 == 0:
            found.append((None, target))
    return found


def _nbytes(base: int | None, target: int) -> float:
    return WHOLE if base is None else STEP * abs(target - base) ** 0.6
