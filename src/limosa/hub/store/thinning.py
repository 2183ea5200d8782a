"""Which edges may go: all but one route to each version, then the least used (no I/O)."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
from typing import NamedTuple

from limosa.hub.planner import NOTHING
from limosa.hub.store.branching import Arc, cheapest_branching
from limosa.hub.store.records import StoredEdge

#: Blobs that a receiver of nothing has to apply at most, where there is a choice.
LONGEST_CHAIN = 8


def essential(stored: Sequence[StoredEdge], wanted: Collection[str]) -> set[int]:
    """The places in *stored* of edges that keep every wanted digest within reach.

    Two trees are compared by the bytes of what leads to something wanted: one that is grown from
    nothing by the cheapest edge into something new, again and again, as long as chains stay short;
    and the cheapest of all, if its chains are short. Where short chains do not reach all, longer
    ones are taken: no version is lost to a limit.

    >>> whole, update = StoredEdge("", "1", "s1", "a", 9), StoredEdge("s1", "2", "s2", "b", 2)
    >>> sorted(essential([whole, update, StoredEdge("", "2", "s2", "c", 9)], ["2"]))
    [0, 1]
    """
    reached = _grow(stored, len(stored))
    within = [digest for digest in wanted if digest in reached.into]
    found: set[int] | None = None
    for tree in (_grow(stored, LONGEST_CHAIN), _cheapest(stored, reached)):
        if all(digest in tree.into for digest in within):
            kept, hops = _paths(stored, tree, within)
            if hops <= LONGEST_CHAIN and (
                found is None or _nbytes(stored, kept) < _nbytes(stored, found)
            ):
                found = kept
    return _paths(stored, reached, within)[0] if found is None else found


class _Tree(NamedTuple):
    """A way to each digest.

    Attributes:
        into: digest -> the place of the edge that gives it.
        first: state -> of the digests that have it, the one that updates start from.
    """

    into: dict[str, int]
    first: dict[str, str]


def _paths(
    stored: Sequence[StoredEdge], tree: _Tree, wanted: Collection[str]
) -> tuple[set[int], int]:
    """The edges on the ways to *wanted*, and how many the longest way has."""
    kept: set[int] = set()
    longest = 0
    for digest in wanted:
        place: int | None = tree.into[digest]
        hops = 0
        while place is not None:
            kept.add(place)
            hops += 1
            base = stored[place].base
            place = None if base == NOTHING else tree.into[tree.first[base]]
        longest = max(longest, hops)
    return kept, longest


def _nbytes(stored: Sequence[StoredEdge], places: Collection[int]) -> int:
    """Bytes of the blobs of edges; a prefix and its whole are one blob."""
    sizes: dict[str, int] = {}
    for place in places:
        edge = stored[place]
        sizes[edge.sha256] = max(sizes.get(edge.sha256, 0), edge.nbytes)
    return sum(sizes.values())


def _cheapest(stored: Sequence[StoredEdge], reached: _Tree) -> _Tree:
    """The cheapest tree of all that can be reached, however long its chains are.

    Digests and states are its nodes: an edge leads from a state to a digest, and from each digest
    an arc that costs nothing leads to its state.
    """
    numbers: dict[tuple[str, str], int] = {("state", NOTHING): 0}

    def number(kind: str, name: str) -> int:
        return numbers.setdefault((kind, name), len(numbers))

    arcs: list[Arc] = []
    digests = dict.fromkeys(reached.into)
    states = {stored[place].target_state for place in reached.into.values()} | {NOTHING}
    ends = [place for place, edge in enumerate(stored) if edge.base in states]
    for place in ends:
        edge = stored[place]
        arcs.append(Arc(number("state", edge.base), number("digest", edge.target), edge.nbytes))
    for digest in digests:
        state = stored[reached.into[digest]].target_state
        arcs.append(Arc(number("digest", digest), number("state", state), 0))
    names = {value: key for key, value in numbers.items()}
    into, first = {}, {}
    for node, place in cheapest_branching(0, arcs).items():
        kind, name = names[node]
        if kind == "digest":
            into[name] = ends[place]
        else:
            first[name] = names[arcs[place].base][1]
    return _Tree(into, first)


def _grow(stored: Sequence[StoredEdge], longest: int) -> _Tree:
    """Grown by the cheapest edge into something new, as far as so long chains reach."""
    leaving: dict[str, list[int]] = {}
    for place, edge in enumerate(stored):
        leaving.setdefault(edge.base, []).append(place)
    queue: list[tuple[int, int, int]] = []

    def reach(state: str, hops: int) -> None:
        for place in leaving.pop(state, ()):
            heapq.heappush(queue, (stored[place].nbytes, hops + 1, place))

    into: dict[str, int] = {}
    first: dict[str, str] = {}
    reach(NOTHING, 0)
    while queue:
        _, hops, place = heapq.heappop(queue)
        edge = stored[place]
        if edge.target in into or hops > longest:
            continue
        into[edge.target] = place
        first.setdefault(edge.target_state, edge.target)
        reach(edge.target_state, hops)
    return _Tree(into, first)


def surplus(
    stored: Sequence[StoredEdge], wanted: Collection[str], cache_bytes: int
) -> list[StoredEdge]:
    """The edges that go: not essential, and least recently used beyond *cache_bytes*."""
    kept = essential(stored, wanted)
    needed = {stored[place].sha256 for place in kept}
    rest = [edge for place, edge in enumerate(stored) if place not in kept]
    sizes: dict[str, int] = {}
    for edge in stored:  # of a blob with layers some edges are prefixes
        sizes[edge.sha256] = max(sizes.get(edge.sha256, 0), edge.nbytes)
    rest.sort(key=lambda edge: (-edge.used, edge.base, edge.target))
    size, counted, gone = 0, set(needed), []
    for edge in rest:
        if edge.sha256 in counted:
            continue  # it costs nothing: the blob stays for another edge
        if size + sizes[edge.sha256] > cache_bytes:
            gone.append(edge)
        else:
            size += sizes[edge.sha256]
            counted.add(edge.sha256)
    return gone
