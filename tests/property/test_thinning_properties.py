"""What is kept reaches every version, however small the cache, and takes few bytes."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from limosa.codec.arborescence import cheapest_tree
from limosa.hub.store.branching import Arc, cheapest_branching
from limosa.hub.store.records import StoredEdge
from limosa.hub.store.thinning import LONGEST_CHAIN, essential, surplus

NODES = 5


@st.composite
def graphs(draw):
    """Edges between few states, each of one or two digests."""
    found = {}
    for _ in range(draw(st.integers(0, 20))):
        base = draw(st.sampled_from(["", *(f"s{n}" for n in range(NODES))]))
        number, form = draw(st.integers(0, NODES - 1)), draw(st.integers(0, 1))
        nbytes = draw(st.integers(1, 30))
        name = draw(st.sampled_from([f"{base}-{number}-{form}", "shared"]))
        found[base, number, form] = StoredEdge(
            base, f"d{number}.{form}", f"s{number}", name, nbytes, used=draw(st.integers(0, 3))
        )
    return list(found.values())


def reached(edges) -> set[str]:
    states, digests = {""}, set()
    while True:
        new = {e.target for e in edges if e.base in states} - digests
        if not new:
            return digests
        digests |= new
        states |= {e.target_state for e in edges if e.target in new}


@given(graphs(), st.sets(st.integers(0, NODES - 1)), st.integers(0, 60))
def test_what_was_within_reach_stays_so(edges, numbers, cache):
    wanted = {f"d{n}.{form}" for n, form in product(numbers, (0, 1))}
    before = reached(edges) & wanted
    kept = [edges[place] for place in essential(edges, wanted)]
    assert reached(kept) >= before
    gone = surplus(edges, wanted, cache)
    left = [edge for edge in edges if edge not in gone]
    assert reached(left) >= before
    assert set(map(id, kept)) <= set(map(id, left))
    # And once more.
    again = surplus(left, wanted, cache)
    assert reached([edge for edge in left if edge not in again]) >= before


@given(graphs(), st.integers(0, 60))
def test_the_cache_is_as_large_as_it_may_be(edges, cache):
    wanted = reached(edges)
    kept = {edges[place].sha256 for place in essential(edges, wanted)}
    gone = surplus(edges, wanted, cache)
    extra = {e.sha256 for e in edges if e not in gone and e.sha256 not in kept}
    sizes = {name: max(e.nbytes for e in edges if e.sha256 == name) for name in extra}
    assert sum(sizes.values()) <= cache


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=7).flatmap(
        lambda whole: st.tuples(
            st.just(whole),
            st.lists(
                st.lists(st.integers(1, 50), min_size=len(whole), max_size=len(whole)),
                min_size=len(whole),
                max_size=len(whole),
            ),
        )
    )
)
def test_the_cheapest_tree_is_that_of_the_codec(costs):
    whole, against = costs
    arcs = [Arc(0, n + 1, cost) for n, cost in enumerate(whole)]
    for i, j in product(range(len(whole)), repeat=2):
        if i != j:
            arcs.append(Arc(i + 1, j + 1, against[i][j]))
    chosen = cheapest_branching(0, arcs)
    assert set(chosen) == set(range(1, len(whole) + 1))
    parents = cheapest_tree(whole, against)
    expected = sum(whole[n] if p is None else against[p][n] for n, p in enumerate(parents))
    assert sum(arcs[place].cost for place in chosen.values()) == expected
    for node, place in chosen.items():
        assert arcs[place].target == node
    for start in chosen:  # no cycles
        node = start
        for _ in range(len(whole)):
            node = arcs[chosen[node]].base if node else 0
        assert node == 0


def test_a_shared_base_is_kept_where_it_pays():
    """Though no member needs it to be reached, and it is itself no smaller than a member."""
    edges = [StoredEdge("", f"m{n}", f"s{n}", f"w{n}", 100) for n in range(5)]
    edges.append(StoredEdge("", "mean", "s-mean", "mean", 101))
    edges += [StoredEdge("s-mean", f"m{n}", f"s{n}", f"u{n}", 10) for n in range(5)]
    kept = [edges[place] for place in essential(edges, [f"m{n}" for n in range(5)])]
    assert sum(edge.nbytes for edge in kept) == 101 + 5 * 10


def test_chains_stay_short_where_there_is_a_choice():
    chain = [StoredEdge("", "d0", "s0", "w0", 100)]
    for n in range(1, 30):
        chain.append(StoredEdge(f"s{n - 1}", f"d{n}", f"s{n}", f"u{n}", 1))
    wanted = [f"d{n}" for n in range(30)]
    assert len(essential(chain, wanted)) == 30  # no choice
    whole = [StoredEdge("", f"d{n}", f"s{n}", f"w{n}", 100) for n in range(1, 30)]
    kept = [[*chain, *whole][place] for place in essential([*chain, *whole], wanted)]
    hops = {"": 0}
    for edge in sorted(kept, key=lambda edge: int(edge.target[1:])):
        hops[edge.target_state] = hops[edge.base] + 1
    assert max(hops.values()) <= LONGEST_CHAIN
    assert sum(edge.base == "" for edge in kept) == 4
