"""The cheapest tree that reaches everything from one node (Chu and Liu 1965, Edmonds 1967; no I/O).

Like ``limosa.codec.arborescence``, which the hub does not know, but for graphs of few edges: all
cycles are merged at once, so that the usual graph takes a handful of rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Arc(NamedTuple):
    """An edge: numbers of its ends, what it costs."""

    base: int
    target: int
    cost: int


class _Level(NamedTuple):
    arcs: list[Arc]
    places: list[int]  # of each arc among those of the level below
    best: dict[int, int]  # node -> the place of its cheapest arc
    merged: set[int]  # nodes in cycles


def cheapest_branching(root: int, arcs: Sequence[Arc]) -> dict[int, int]:
    """For each node but *root* the place in *arcs* of the one that gives it.

    Every node must be within reach of *root*.

    >>> cheapest_branching(0, [Arc(0, 1, 9), Arc(0, 2, 7), Arc(1, 2, 1), Arc(2, 1, 2)])
    {2: 1, 1: 3}
    """
    levels: list[_Level] = []
    current = [arc for arc in arcs if arc.target != root]
    places = [place for place, arc in enumerate(arcs) if arc.target != root]
    while True:
        best = _cheapest(current)
        groups = _cycles(root, current, best)
        level = _Level(current, places, best, set(groups))
        levels.append(level)
        if not groups:
            break
        current, places = _contract(level, groups)
    chosen = set(levels[-1].best.values())
    for below, level in zip(levels[-2::-1], levels[:0:-1], strict=True):
        # What enters a merged cycle replaces one of its arcs; the others stay.
        chosen = {level.places[place] for place in chosen}
        entered = {below.arcs[place].target for place in chosen}
        chosen |= {below.best[node] for node in below.merged - entered}
    first = levels[0]
    return {first.arcs[place].target: first.places[place] for place in sorted(chosen)}


def _cheapest(arcs: Sequence[Arc]) -> dict[int, int]:
    best: dict[int, int] = {}
    for place, arc in enumerate(arcs):
        held = best.get(arc.target)
        if held is None or arc.cost < arcs[held].cost:
            best[arc.target] = place
    return best


def _cycles(root: int, arcs: Sequence[Arc], best: dict[int, int]) -> dict[int, int]:
    """Node -> a node that stands for its cycle, of the nodes in cycles."""
    seen: dict[int, int] = {root: root}
    groups: dict[int, int] = {}
    for start in best:
        node = start
        while node not in seen:
            seen[node] = start
            node = arcs[best[node]].base
        if node != root and seen[node] == start and node not in groups:
            head = node
            while node not in groups:
                groups[node] = head
                node = arcs[best[node]].base
    return groups


def _contract(level: _Level, groups: dict[int, int]) -> tuple[list[Arc], list[int]]:
    arcs, places = [], []
    for place, (base, target, cost) in enumerate(level.arcs):
        new_base, new_target = groups.get(base, base), groups.get(target, target)
        if new_base == new_target:
            continue
        if target in groups:
            cost -= level.arcs[level.best[target]].cost
        arcs.append(Arc(new_base, new_target, cost))
        places.append(place)
    return arcs, places
