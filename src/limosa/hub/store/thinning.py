"""Which edges may go: all but one route to each version, then the least used (no I/O)."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence

from limosa.hub.planner import NOTHING
from limosa.hub.store.records import StoredEdge

#: Blobs that a receiver of nothing has to apply at most, where there is a choice.
LONGEST_CHAIN = 8


def essential(stored: Sequence[StoredEdge], wanted: Collection[str]) -> set[int]:
    """The places in *stored* of edges that keep every wanted digest within reach.

    Grown from nothing: the cheapest edge into something new, again and again, as long as chains
    stay short; then what leads to nothing wanted is cut off. Where short chains do not reach all,
    longer ones are taken: no version is lost to a limit.

    >>> whole, update = StoredEdge("", "1", "s1", "a", 9), StoredEdge("s1", "2", "s2", "b", 2)
    >>> sorted(essential([whole, update, StoredEdge("", "2", "s2", "c", 9)], ["2"]))
    [0, 1]
    """
    into: dict[str, int] = {}
    for longest in (LONGEST_CHAIN, len(stored)):
        into = _grow(stored, longest)
        if all(digest in into for digest in wanted):
            break
    kept: set[int] = set()
    # Of the digests that have a state the first one reached is what an update starts from.
    first = _first_of_state(stored, into)
    for digest in wanted:
        place = into.get(digest)
        while place is not None and place not in kept:
            kept.add(place)
            base = stored[place].base
            place = None if base == NOTHING else into[first[base]]
    return kept


def _grow(stored: Sequence[StoredEdge], longest: int) -> dict[str, int]:
    """Digest -> the place of the edge that gives it."""
    leaving: dict[str, list[int]] = {}
    for place, edge in enumerate(stored):
        leaving.setdefault(edge.base, []).append(place)
    queue: list[tuple[int, int, int]] = []

    def reach(state: str, hops: int) -> None:
        for place in leaving.pop(state, ()):
            heapq.heappush(queue, (stored[place].nbytes, hops + 1, place))

    into: dict[str, int] = {}
    reach(NOTHING, 0)
    while queue:
        _, hops, place = heapq.heappop(queue)
        edge = stored[place]
        if edge.target in into or hops > longest:
            continue
        into[edge.target] = place
        reach(edge.target_state, hops)
    return into


def _first_of_state(stored: Sequence[StoredEdge], into: dict[str, int]) -> dict[str, str]:
    first: dict[str, str] = {}
    for digest, place in into.items():
        first.setdefault(stored[place].target_state, digest)
    return first


def surplus(
    stored: Sequence[StoredEdge], wanted: Collection[str], cache_bytes: int
) -> list[StoredEdge]:
    """The edges that go: not essential, and least recently used beyond *cache_bytes*."""
    kept = essential(stored, wanted)
    needed = {stored[place].sha256 for place in kept}
    rest = [edge for place, edge in enumerate(stored) if place not in kept]
    rest.sort(key=lambda edge: (-edge.used, edge.base, edge.target))
    size, counted, gone = 0, set(needed), []
    for edge in rest:
        if edge.sha256 in counted:
            continue  # it costs nothing: the blob stays for another edge
        if size + edge.nbytes > cache_bytes:
            gone.append(edge)
        else:
            size += edge.nbytes
            counted.add(edge.sha256)
    return gone
