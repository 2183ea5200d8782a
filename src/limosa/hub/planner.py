"""The fewest bytes from what a receiver holds to what it wants (no I/O, no clock).

Versions are nodes, named by the digests of their tensors; blobs are edges: a whole model comes
from nothing, an update from the version that it was made against. A lossy copy of a version is a
node of its own. The cheapest route is a shortest path with limits (a label-setting search;
M. Desrochers and F. Soumis, "A generalized permanent labelling algorithm", 1988), walked from what
is wanted backwards, since receivers are mostly near.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from limosa.errors import NotFoundError

#: What an intra blob starts from.
NOTHING = ""


@dataclass(frozen=True, slots=True)
class Edge:
    """A blob, or one that could be made.

    Attributes:
        base: digest of the version that it starts from; :data:`NOTHING` for a whole model.
        target: digest of the version that it gives.
        nbytes: of the blob; an estimate where it is not made yet.
        seconds: that the hub needs to make it; 0 for one that is stored.
        memory: bytes that the receiver needs to apply it.
    """

    base: str
    target: str
    nbytes: int
    seconds: float = 0.0
    memory: int = 0


@dataclass(frozen=True)
class RouteLimits:
    """What a route may ask for; None: anything.

    Attributes:
        hops: blobs.
        seconds: of the hub, for all blobs that are still to be made.
        memory: bytes at the receiver, for each blob.
    """

    hops: int | None = None
    seconds: float | None = None
    memory: int | None = None


@dataclass(frozen=True)
class Route:
    """Blobs to fetch and apply, in order.

    Attributes:
        start: what it starts from: a digest that the receiver holds, or :data:`NOTHING`.
        edges: none if the receiver holds what it wants.
    """

    start: str
    edges: tuple[Edge, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all blobs."""
        return sum(edge.nbytes for edge in self.edges)

    @property
    def seconds(self) -> float:
        """Seconds of the hub."""
        return sum(edge.seconds for edge in self.edges)


class _Label(NamedTuple):
    """A way from a node to what is wanted; ordered by bytes, then hops, then seconds."""

    nbytes: int
    hops: int
    seconds: float
    number: int  # so that equal ones are not compared further, and the first one wins
    node: str
    edge: Edge | None
    next: _Label | None


class Graph:
    """Edges by what they give; made once, planned on often.

    >>> graph = Graph([
    ...     Edge("", "v1", 1000), Edge("", "v3", 1000), Edge("v1", "v2", 100), Edge("v2", "v3", 120)
    ... ])
    >>> route = graph.plan({"v1"}, "v3")
    >>> [edge.target for edge in route.edges], route.nbytes
    (['v2', 'v3'], 220)
    >>> graph.plan(set(), "v3").nbytes
    1000
    """

    def __init__(self, edges: Iterable[Edge] = ()) -> None:
        self._into: dict[str, list[Edge]] = defaultdict(list)
        for edge in edges:
            self.add(edge)

    def add(self, edge: Edge) -> None:
        """One more edge.

        Raises:
            ValueError: a number is below 0, or it gives nothing.
        """
        if edge.target == NOTHING or edge.nbytes < 0 or edge.seconds < 0 or edge.memory < 0:
            raise ValueError(f"no edge: {edge}")
        self._into[edge.target].append(edge)

    def plan(
        self,
        held: Collection[str],
        wanted: str,
        limits: RouteLimits | None = None,
        *,
        extra: Iterable[Edge] = (),
    ) -> Route:
        """The route of the fewest bytes; of equal ones that of fewer hops, then of less time.

        Args:
            held: digests of what the receiver has, whole or lossy; what the graph does not know,
                such as a damaged file, is of no use and does no harm.
            wanted: the digest that it wants.
            limits: what a route may ask for.
            extra: edges for this receiver alone, such as one that is not made yet.

        Raises:
            NotFoundError: no route keeps the limits.
        """
        bounds = limits or RouteLimits()
        more = defaultdict(list)
        for edge in extra:
            more[edge.target].append(edge)
        ends = {*held, NOTHING}
        queue = [_Label(0, 0, 0.0, 0, wanted, None, None)]
        settled: dict[str, list[tuple[int, float]]] = defaultdict(list)
        limited = bounds.hops is not None or bounds.seconds is not None
        number = 0
        while queue:
            label = heapq.heappop(queue)
            if label.node in ends:
                return _route(label)
            ways = settled[label.node]
            # Whoever came before had no more bytes; with no more hops and time either it is better.
            if ways and (
                not limited or any(h <= label.hops and s <= label.seconds for h, s in ways)
            ):
                continue
            ways.append((label.hops, label.seconds))
            if bounds.hops is not None and label.hops >= bounds.hops:
                continue
            for edge in (*self._into.get(label.node, ()), *more.get(label.node, ())):
                seconds = label.seconds + edge.seconds
                if bounds.memory is not None and edge.memory > bounds.memory:
                    continue
                if bounds.seconds is not None and seconds > bounds.seconds:
                    continue
                number += 1
                nbytes = label.nbytes + edge.nbytes
                new = _Label(nbytes, label.hops + 1, seconds, number, edge.base, edge, label)
                heapq.heappush(queue, new)
        raise NotFoundError(
            "no route", where=f"version {wanted[:16]}", found=f"{len(held)} versions held",
            allowed=str(bounds), remedy="allow more hops, time or memory, or publish it whole",
        )  # fmt: skip


def _route(label: _Label) -> Route:
    start, edges = label.node, []
    while label.edge is not None:
        edges.append(label.edge)
        assert label.next is not None
        label = label.next
    return Route(start, tuple(edges))
