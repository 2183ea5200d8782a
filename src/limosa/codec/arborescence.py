"""The cheapest tree of bases: a minimum spanning arborescence (Chu and Liu, Edmonds)."""

from __future__ import annotations

from collections.abc import Sequence

_Edge = tuple[int, int, float, int]  # from, to, cost, its place among the original edges


def cheapest_tree(intra: Sequence[float], against: Sequence[Sequence[float]]) -> list[int | None]:
    """For each model the model that it is coded against, or None, for the least total cost.

    Args:
        intra: the cost of each model alone.
        against: ``against[i][j]`` is the cost of model j coded against model i.

    >>> cheapest_tree([10, 10, 10], [[0, 1, 9], [1, 0, 2], [9, 2, 0]])
    [None, 0, 1]
    """
    count = len(intra)
    root = count
    edges: list[_Edge] = []
    for j in range(count):
        edges.append((root, j, intra[j], len(edges)))
        for i in range(count):
            if i != j:
                edges.append((i, j, against[i][j], len(edges)))
    chosen = _edmonds(count + 1, root, edges)
    parents: list[int | None] = [None] * count
    for place in chosen:
        parent, child, _, _ = edges[place]
        parents[child] = None if parent == root else parent
    return parents


def _edmonds(nodes: int, root: int, edges: Sequence[_Edge]) -> list[int]:
    """Places of the chosen edges, one into each node but the root."""
    best: dict[int, _Edge] = {}
    for edge in edges:
        source, target, cost, _ = edge
        if target != root and source != target and (target not in best or cost < best[target][2]):
            best[target] = edge
    cycle = _find_cycle(nodes, root, best)
    if not cycle:
        return [edge[3] for edge in best.values()]
    # The cycle becomes one node; entering it costs what replacing one of its edges adds.
    merged = nodes
    contracted = []
    for position, (source, target, cost, _) in enumerate(edges):
        inside, outside = target in cycle, source in cycle
        if inside and outside:
            continue
        contracted.append(
            (
                merged if outside else source,
                merged if inside else target,
                cost - best[target][2] if inside else cost,
                position,
            )
        )
    chosen = [edges[position] for position in _edmonds(nodes + 1, root, contracted)]
    entered = next(edge[1] for edge in chosen if edge[1] in cycle)
    kept = [best[node] for node in cycle if node != entered]
    return [edge[3] for edge in [*chosen, *kept]]


def _find_cycle(nodes: int, root: int, best: dict[int, _Edge]) -> set[int]:
    """The nodes of one cycle among the cheapest incoming edges, or none."""
    state = dict.fromkeys(range(nodes), 0)
    for start in best:
        path = []
        node = start
        while node in best and state[node] == 0:
            state[node] = 1
            path.append(node)
            node = best[node][0]
        if node in best and state[node] == 1 and node in path:
            return set(path[path.index(node) :])
        for done in path:
            state[done] = 2
    return set()
