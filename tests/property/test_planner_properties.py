"""The planner against brute force, on every small graph that chance makes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limosa.errors import NotFoundError
from limosa.hub.planner import NOTHING, Edge, Graph, Route, RouteLimits

NODES = ["a", "b", "c", "d", "e"]


@st.composite
def edges(draw) -> list[Edge]:
    made = st.builds(
        Edge,
        st.sampled_from([NOTHING, *NODES]),
        st.sampled_from(NODES),
        st.integers(0, 30),
        st.sampled_from([0.0, 0.0, 1.0, 2.5]),
        st.integers(0, 3),
    )
    return draw(st.lists(made, max_size=14))


def every_route(graph: list[Edge], held: set[str], wanted: str, limits: RouteLimits):
    """All routes without a loop that keep the limits."""

    def ways(node: str, seen: frozenset[str]):
        if node in held or node == NOTHING:
            yield ()
            return
        for edge in graph:
            if edge.target == node and edge.base not in seen:
                for way in ways(edge.base, seen | {edge.base}):
                    yield (*way, edge)

    for way in ways(wanted, frozenset({wanted})):
        hops, seconds = len(way), sum(edge.seconds for edge in way)
        memory = max((edge.memory for edge in way), default=0)
        allowed = (
            (limits.hops is None or hops <= limits.hops)
            and (limits.seconds is None or seconds <= limits.seconds)
            and (limits.memory is None or memory <= limits.memory)
        )
        if allowed:
            yield way


LIMITS = st.builds(
    RouteLimits,
    st.none() | st.integers(0, 4),
    st.none() | st.sampled_from([0.0, 1.0, 3.0]),
    st.none() | st.integers(0, 3),
)


@given(edges(), st.sets(st.sampled_from([*NODES, "unknown"])), st.sampled_from(NODES), LIMITS)
@settings(deadline=None, max_examples=600)
def test_no_route_is_cheaper(graph, held, wanted, limits):
    routes = list(every_route(graph, held, wanted, limits))
    planned = Graph(graph)
    if not routes:
        with pytest.raises(NotFoundError):
            planned.plan(held, wanted, limits)
        return
    found = planned.plan(held, wanted, limits)
    assert found.edges in routes or any(_same(found.edges, way) for way in routes)
    best = min(
        (sum(e.nbytes for e in way), len(way), sum(e.seconds for e in way)) for way in routes
    )
    assert (found.nbytes, len(found.edges), found.seconds) == best
    node = found.start
    assert node in held or node == NOTHING
    for edge in found.edges:
        assert edge.base == node
        node = edge.target
    assert node == wanted


def _same(one, two) -> bool:
    return [(e.base, e.target, e.nbytes) for e in one] == [
        (e.base, e.target, e.nbytes) for e in two
    ]


@given(edges(), st.sampled_from(NODES), st.randoms())
@settings(deadline=None, max_examples=100)
def test_extra_edges_are_as_good_as_the_graph_s(graph, wanted, random):
    chosen = [random.random() < 0.5 for _ in graph]
    stored = [e for e, keep in zip(graph, chosen, strict=True) if keep]
    extra = [e for e, keep in zip(graph, chosen, strict=True) if not keep]
    try:
        whole = Graph(graph).plan(set(), wanted).nbytes
    except NotFoundError:
        with pytest.raises(NotFoundError):
            Graph(stored).plan(set(), wanted, extra=extra)
        return
    assert Graph(stored).plan(set(), wanted, extra=extra).nbytes == whole


def test_what_is_held_costs_nothing():
    assert Graph([Edge("", "a", 5)]).plan({"a"}, "a") == Route("a", ())


def test_a_reverse_edge_goes_back():
    graph = Graph([Edge("", "old", 900), Edge("", "new", 900), Edge("new", "old", 50)])
    assert graph.plan({"new"}, "old").nbytes == 50


def test_an_edge_to_be_made_is_taken_if_the_hub_has_time():
    graph = Graph([Edge("", "v3", 1000), Edge("v1", "v2", 90), Edge("v2", "v3", 90)])
    direct = Edge("v1", "v3", 120, seconds=4.0)
    assert graph.plan({"v1"}, "v3", extra=[direct]).edges == (direct,)
    hurried = graph.plan({"v1"}, "v3", RouteLimits(seconds=1.0), extra=[direct])
    assert len(hurried.edges) == 2
    one = graph.plan({"v1"}, "v3", RouteLimits(hops=1, seconds=1.0), extra=[direct])
    assert one.start == NOTHING


@pytest.mark.parametrize(
    "edge",
    [Edge("a", "", 1), Edge("a", "b", -1), Edge("a", "b", 1, -1.0), Edge("a", "b", 1, 0, -1)],
)
def test_what_is_no_edge(edge: Edge):
    with pytest.raises(ValueError, match="no edge"):
        Graph([edge])
