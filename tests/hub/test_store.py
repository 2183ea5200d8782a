"""The store of a hub: uploads that stop and lie, names, tags, gc, fsck, deliveries, locks."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from workshop import Clock, open_store

from limosa import ChecksumError, ConfigError, CorruptError, LimitError
from limosa.errors import AuthError, ConflictError, NotFoundError, TransportError
from limosa.hub.digest import version_digest
from limosa.hub.file_digest import sha256_of
from limosa.hub.manifest import Manifest
from limosa.hub.planner import RouteLimits
from limosa.hub.store.accounts import Holding
from limosa.hub.store.blobs import blob_key, part_key
from limosa.hub.store.database import Database
from limosa.hub.store.graph import LEASE_S
from limosa.hub.store.ledger import Delivery
from limosa.hub.store.locks import DEAD_S
from limosa.hub.store.records import StoredEdge
from limosa.hub.store.store import Store
from limosa.hub.store.upkeep import fsck, gc
from limosa.hub.store.uploads import KEPT_S, Announced, Layer
from limosa.hub.trust import parse_scopes

REPOSITORY = "team/net"


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request, tmp_path, clock):
    """On both databases: what is atomic on one could be none on the other."""
    if request.param == "sqlite":
        made = open_store(tmp_path / "hub", clock)
    else:
        url = request.getfixturevalue("postgres_database")
        made = Store(url, str(tmp_path / "hub" / "blobs"), clock=clock)
    yield made
    made.close()


def manifest(name: str, form: str = "") -> Manifest:
    """As of a model that is called so."""
    state, around = (hashlib.sha256(text.encode()).hexdigest() for text in (name, f"form {form}"))
    return Manifest(state, around, 1000, (), ())


def announce(data: bytes, name: str, base: str = "", **more) -> Announced:
    about = manifest(more.pop("content", name))
    return Announced(
        name, about.digest, about.state, base and manifest(base).state, len(data),
        hashlib.sha256(data).hexdigest(), **more,
    )  # fmt: skip


def begin(store: Store, announced: Announced, repository: str = REPOSITORY, token: int = 1):
    return store.begin_upload(repository, announced, token_id=token, by="ann")


def push(store: Store, tmp: Path, name: str, base: str = "", size: int = 100, **more) -> Manifest:
    """A version of random-looking bytes; a store does not look inside."""
    repository = more.pop("repository", REPOSITORY)
    data = hashlib.sha256(f"{name} {base}".encode()).digest() * (size // 32 + 1)
    announced = announce(data[:size], name, base, **more)
    upload = begin(store, announced, repository)
    if upload.status == "done":
        return manifest(more.get("content", name))
    store.receive(upload, 0, data[:size])
    path = tmp / "blob"
    store.assemble(replace(upload, received=size), path)
    about = manifest(more.get("content", name))
    store.publish(upload, about, path)
    return about


def test_an_upload_goes_on_where_it_stopped(store, tmp_path):
    data = bytes(range(256)) * 10
    first = begin(store, announce(data, "v1"))
    store.receive(first, 0, data[:1000])
    again = begin(store, announce(data, "v1", tags=("latest",), notes="second try"))
    assert (again.id, again.received) == (first.id, 1000)
    store.receive(again, 1000, data[1000:])
    held = store.uploads.get(REPOSITORY, again.id, 1)
    assert (held.received, held.announced.tags, held.announced.notes) == (
        len(data), ["latest"], "second try",
    )  # fmt: skip
    store.assemble(held, tmp_path / "whole")
    assert (tmp_path / "whole").read_bytes() == data
    store.publish(held, manifest("v1"), tmp_path / "whole")
    assert store.catalog.resolve(REPOSITORY, "latest").notes == "second try"
    assert list(store.blobs.list("uploads/")) == []
    assert store.blobs.size(blob_key(held.announced.sha256)) == len(data)


@pytest.mark.parametrize(
    "other", [{"version": "v2"}, {"digest": "ab" * 32}, {"sha256": "ab" * 32}, {"token": 2}]
)
def test_another_upload_does_not_go_on_with_this_one(store, other):
    data = b"bytes"
    first = begin(store, announce(data, "v1"))
    changed = {name: value for name, value in other.items() if name != "token"}
    announced = replace(announce(data, "v1"), **changed)
    again = begin(store, announced, token=other.get("token", 1))
    assert again.id != first.id
    with pytest.raises(NotFoundError):
        store.uploads.get(REPOSITORY, first.id, 3)
    with pytest.raises(NotFoundError):
        store.uploads.get("team/other", first.id, 1)


def test_more_bytes_than_announced_are_refused(store):
    upload = begin(store, announce(b"12345", "v1"))
    with pytest.raises(LimitError):
        store.receive(upload, 0, b"123456")
    with pytest.raises(LimitError):
        store.receive(upload, 3, b"123")


def test_bytes_that_do_not_follow_are_refused(store):
    upload = begin(store, announce(b"12345", "v1"))
    with pytest.raises(ConflictError):
        store.receive(upload, 2, b"3")
    store.receive(upload, 0, b"12")
    with pytest.raises(ConflictError):
        store.receive(upload, 0, b"1")
    assert store.uploads.get(REPOSITORY, upload.id, 1).received == 2


def test_parts_of_requests_that_lost_a_race_are_left_out(store, tmp_path):
    upload = begin(store, announce(b"12345678", "v1"))
    store.receive(upload, 0, b"1234")
    store.blobs.put_bytes(part_key(upload.id, 2), b"xx")
    store.blobs.put_bytes(part_key(upload.id, 8), b"xx")
    store.receive(upload, 4, b"5678")
    held = store.uploads.get(REPOSITORY, upload.id, 1)
    store.assemble(held, tmp_path / "whole")
    assert (tmp_path / "whole").read_bytes() == b"12345678"


def test_lies_about_size_and_sha256_are_found(store, tmp_path):
    short = begin(store, announce(b"12345", "v1"))
    store.receive(short, 0, b"123")
    with pytest.raises(CorruptError):
        store.assemble(store.uploads.get(REPOSITORY, short.id, 1), tmp_path / "whole")
    other = begin(store, announce(b"12345", "v2"))
    store.receive(other, 0, b"12346")
    with pytest.raises(ChecksumError):
        store.assemble(store.uploads.get(REPOSITORY, other.id, 1), tmp_path / "whole")


def test_an_unknown_base_is_told_before_bytes_are_sent(store, tmp_path):
    with pytest.raises(NotFoundError):
        begin(store, announce(b"12", "v2", base="v1"))
    push(store, tmp_path, "v1")
    assert begin(store, announce(b"12", "v2", base="v1")).status == "open"


def test_a_version_never_changes(store, tmp_path):
    push(store, tmp_path, "v1")
    with pytest.raises(ConflictError):
        begin(store, announce(b"12", "v1", content="another"))
    assert begin(store, announce(b"12", "v1")).status == "done"


def test_of_two_pushes_of_a_name_the_first_to_end_wins(store, tmp_path):
    uploads = [begin(store, announce(bytes([n]), "v1", content=f"c{n}")) for n in (0, 1)]
    for number, upload in enumerate(uploads):
        store.receive(upload, 0, bytes([number]))
        (tmp_path / str(number)).write_bytes(bytes([number]))
    store.publish(uploads[1], manifest("c1"), tmp_path / "1")
    with pytest.raises(ConflictError):
        store.publish(uploads[0], manifest("c0"), tmp_path / "0")
    assert store.catalog.resolve(REPOSITORY, "v1").node.digest == manifest("c1").digest
    assert [node.digest for node in store.catalog.nodes(REPOSITORY)] == [manifest("c1").digest]


def test_many_pushes_at_once(store, tmp_path):
    """Each name has one winner, and each version its blob."""

    def one(number: int) -> str:
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            push(store, folder, f"v{number % 4}", content=f"c{number}", tags=("latest",))
        except ConflictError:
            return "lost"
        return "won"

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(one, range(16)))
    assert found.count("won") == 4
    versions = store.catalog.versions(REPOSITORY)
    assert {version.name for version in versions} == {"v0", "v1", "v2", "v3"}
    assert store.catalog.resolve(REPOSITORY, "latest").name in {v.name for v in versions}
    gc(store, cache_bytes=0, grace_s=0)
    assert fsck(store, read_data=True).problems == []


def test_a_base_that_goes_while_an_update_is_verified(store, tmp_path):
    push(store, tmp_path, "v1")
    upload = begin(store, announce(b"12", "v2", base="v1"))
    store.receive(upload, 0, b"12")
    store.catalog.remove_version(REPOSITORY, "v1")
    (tmp_path / "b").write_bytes(b"12")
    gc(store, cache_bytes=0, thin=True, grace_s=0)  # the upload still needs it: it stays
    store.publish(upload, manifest("v2"), tmp_path / "b")
    gc(store, cache_bytes=0, thin=True, grace_s=0)
    assert fsck(store).problems == []


def test_a_push_whose_parts_cannot_be_removed_is_done_all_the_same(store, tmp_path, monkeypatch):
    upload = begin(store, announce(b"12", "v1"))
    store.receive(upload, 0, b"12")
    (tmp_path / "b").write_bytes(b"12")

    def away(key: str) -> None:
        raise TransportError("away")

    with monkeypatch.context() as patch:
        patch.setattr(store.blobs, "delete", away)
        store.publish(upload, manifest("v1"), tmp_path / "b")
    assert store.uploads.get(REPOSITORY, upload.id, 1).status == "done"


def test_names_and_tags_share_one_room(store, tmp_path):
    push(store, tmp_path, "v1", tags=("latest",))
    with pytest.raises(ConflictError):
        begin(store, announce(b"1", "latest"))
    with pytest.raises(ConflictError):
        store.catalog.move_tag(REPOSITORY, "v1", "v1")
    with pytest.raises(NotFoundError):
        store.catalog.move_tag(REPOSITORY, "new", "latest")  # a tag is no version
    with pytest.raises(NotFoundError):
        store.catalog.remove_tag(REPOSITORY, "v1")


def test_a_tag_moves_only_from_where_it_is_thought_to_be(store, tmp_path):
    one, two = push(store, tmp_path, "v1"), push(store, tmp_path, "v2")
    store.catalog.move_tag(REPOSITORY, "t", "v1", expect="")
    with pytest.raises(ConflictError):
        store.catalog.move_tag(REPOSITORY, "t", "v2", expect="")
    with pytest.raises(ConflictError):
        store.catalog.move_tag(REPOSITORY, "t", "v2", expect=two.digest)
    assert store.catalog.move_tag(REPOSITORY, "t", "v2", expect=one.digest).version == "v2"
    assert store.catalog.move_tag(REPOSITORY, "t", "v1").digest == one.digest


def test_of_many_that_move_a_tag_from_one_place_one_does(store, tmp_path):
    first = push(store, tmp_path, "v0", tags=("t",))
    for number in range(1, 9):
        push(store, tmp_path, f"v{number}")

    def move(number: int) -> bool:
        try:
            store.catalog.move_tag(REPOSITORY, "t", f"v{number}", expect=first.digest)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(move, range(1, 9))) == 1


def test_what_a_tag_means_cannot_be_removed(store, tmp_path):
    push(store, tmp_path, "v1", tags=("stable",))
    with pytest.raises(ConflictError, match="stable"):
        store.catalog.remove_version(REPOSITORY, "v1")
    store.catalog.remove_tag(REPOSITORY, "stable")
    store.catalog.remove_version(REPOSITORY, "v1")
    for name in ("v1", "stable", f"@{manifest('v1').digest}"):
        with pytest.raises(NotFoundError):
            store.catalog.resolve(REPOSITORY, name)


def test_a_repository_that_is_not_there(store):
    for ask in (
        store.catalog.versions, store.catalog.tags, store.catalog.nodes, store.graph.edges,
        store.catalog.description,
    ):  # fmt: skip
        with pytest.raises(NotFoundError):
            ask("no/such")


def test_repositories_do_not_see_each_other_s_blobs(store, tmp_path):
    push(store, tmp_path, "v1")
    push(store, tmp_path, "v2", repository="other/net")
    (edge,) = store.graph.edges(REPOSITORY)
    assert store.graph.blob(REPOSITORY, edge.sha256) == edge.nbytes
    with pytest.raises(NotFoundError):
        store.graph.blob("other/net", edge.sha256)
    assert store.graph.known("other/net", [manifest("v1").digest]) == []
    seen = store.catalog.repositories(lambda name: name.startswith("team/"))
    assert [(info.name, info.versions, info.nbytes) for info in seen] == [("team/net", 1, 100)]


def test_one_blob_of_two_repositories_goes_with_the_last(store, tmp_path, clock):
    for name in (REPOSITORY, "other/net"):
        push(store, tmp_path, "v1", repository=name)
    (edge,) = store.graph.edges(REPOSITORY)
    for name, left in ((REPOSITORY, 1), ("other/net", 0)):
        store.catalog.remove_version(name, "v1")
        for _ in range(2):
            gc(store, cache_bytes=0, grace_s=0)
            clock.now += 10
        assert len(list(store.blobs.list("blobs/"))) == left
    assert store.blobs.size(blob_key(edge.sha256)) is None


def test_routes_start_from_what_is_held(store, tmp_path):
    push(store, tmp_path, "v1", size=900)
    push(store, tmp_path, "v2", base="v1", size=100)
    push(store, tmp_path, "v3", base="v2", size=100)
    push(store, tmp_path, "v3b", content="v3", base="v1", size=1)  # known already: no edge
    plan = store.graph.plan
    assert [s.nbytes for s in plan(REPOSITORY, [], manifest("v3").digest)[1]] == [900, 100, 100]
    start, steps = plan(REPOSITORY, [manifest("v2").state, "junk"], manifest("v3").digest)
    assert (start, [s.nbytes for s in steps]) == (manifest("v2").state, [100])
    with pytest.raises(NotFoundError):
        plan(REPOSITORY, [], manifest("v3").digest, RouteLimits(hops=2))
    extra = {manifest("v1").state: (30, 2.0)}
    start, steps = plan(REPOSITORY, [manifest("v1").state], manifest("v3").digest, extra=extra)
    assert [(s.nbytes, s.edge, s.seconds) for s in steps] == [(30, None, 2.0)]
    limits = RouteLimits(seconds=1)
    _, steps = plan(REPOSITORY, [manifest("v1").state], manifest("v3").digest, limits, extra=extra)
    assert [s.nbytes for s in steps] == [100, 100]


def edge_of(blob: Path, base: str, target: str, **more) -> StoredEdge:
    about = manifest(target)
    start = base and manifest(base).state
    return StoredEdge(
        start, about.digest, about.state, sha256_of(blob), blob.stat().st_size, **more
    )


def test_a_smaller_edge_takes_the_place_of_a_larger_one(store, tmp_path):
    push(store, tmp_path, "v1", size=500)
    for size, left in ((600, 500), (400, 400), (450, 400)):
        (tmp_path / "e").write_bytes(bytes(size))
        store.add_edge(REPOSITORY, edge_of(tmp_path / "e", "", "v1", kind="made"), tmp_path / "e")
        _, steps = store.graph.plan(REPOSITORY, [], manifest("v1").digest)
        assert [step.nbytes for step in steps] == [left]


def test_an_edge_to_what_is_unknown_is_refused(store, tmp_path):
    push(store, tmp_path, "v1")
    (tmp_path / "e").write_bytes(b"123")
    with pytest.raises(NotFoundError):
        store.add_edge(REPOSITORY, edge_of(tmp_path / "e", "v1", "v2"), tmp_path / "e")
    with pytest.raises(NotFoundError):
        store.add_edge("no/such", edge_of(tmp_path / "e", "v1", "v2"), tmp_path / "e")


def test_what_a_plan_named_stays_for_an_hour(store, tmp_path, clock):
    push(store, tmp_path, "v1")
    (edge,) = store.graph.edges(REPOSITORY)
    store.graph.plan(REPOSITORY, [], manifest("v1").digest)
    store.catalog.remove_version(REPOSITORY, "v1")
    gc(store, cache_bytes=0, grace_s=0)
    clock.now += LEASE_S - 10
    gc(store, cache_bytes=0, grace_s=0)
    assert store.blobs.size(blob_key(edge.sha256)) == edge.nbytes
    clock.now += 20
    gc(store, cache_bytes=0, grace_s=0)
    assert store.blobs.size(blob_key(edge.sha256)) is None


def test_what_is_used_again_before_its_time_stays(store, tmp_path, clock):
    push(store, tmp_path, "v1")
    store.catalog.remove_version(REPOSITORY, "v1")
    gc(store, cache_bytes=0, grace_s=1000)
    clock.now += 900
    push(store, tmp_path, "v1")
    clock.now += 900
    assert gc(store, cache_bytes=0, grace_s=1000).blobs == 0
    assert fsck(store, read_data=True).problems == []


def test_the_cache_keeps_what_was_used_last(store, tmp_path, clock):
    push(store, tmp_path, "v0", size=50)
    for number in range(1, 5):
        push(store, tmp_path, f"v{number}", base="v0", size=50)
        (tmp_path / "e").write_bytes(bytes([number]) * 300)
        edge = edge_of(tmp_path / "e", "", f"v{number}", kind="made")
        store.add_edge(REPOSITORY, edge, tmp_path / "e")
    for number in (3, 1):
        clock.now += 10
        store.graph.used(REPOSITORY, "", manifest(f"v{number}").digest)
    assert gc(store, cache_bytes=700, dry_run=True).edges == 2
    assert gc(store, cache_bytes=700).edges == 2
    left = {e.target for e in store.graph.edges(REPOSITORY) if e.nbytes == 300}
    assert left == {manifest("v3").digest, manifest("v1").digest}
    assert gc(store, cache_bytes=700, thin=True).edges == 2


def test_gc_takes_uploads_that_nobody_ended_and_their_parts(store, clock):
    upload = begin(store, announce(b"12345", "v1"))
    store.receive(upload, 0, b"123")
    store.blobs.put_bytes(part_key("nobodys", 0), b"left over")
    freed = gc(store, cache_bytes=0)
    assert (freed.uploads, freed.nbytes) == (0, 9)
    clock.now += KEPT_S + 1
    freed = gc(store, cache_bytes=0)
    assert (freed.uploads, freed.nbytes) == (1, 3)
    assert list(store.blobs.list("uploads/")) == []
    with pytest.raises(NotFoundError):
        store.uploads.get(REPOSITORY, upload.id, 1)


def test_gc_gives_up_uploads_that_are_not_finished_where_it_is_told_to(store, tmp_path):
    push(store, tmp_path, "v1")
    upload = begin(store, announce(b"12345", "v2"))
    store.receive(upload, 0, b"123")
    assert gc(store, cache_bytes=0).nbytes == 0
    assert store.uploads.get(REPOSITORY, upload.id, 1).received == 3
    found = gc(store, cache_bytes=0, uploads=True, dry_run=True)
    assert (found.uploads, found.nbytes) == (1, 3)
    with store.locks.hold(f"upload {upload.id}"):  # it is being verified
        assert gc(store, cache_bytes=0, uploads=True).uploads == 0
    found = gc(store, cache_bytes=0, uploads=True)
    assert (found.uploads, found.nbytes) == (1, 3)
    assert list(store.blobs.list("uploads/")) == []
    # Who was sending is told, begins anew, and what is stored is there.
    with pytest.raises((ConflictError, NotFoundError)):
        store.receive(upload, 3, b"45")
    assert begin(store, announce(b"12345", "v2")).received == 0
    assert [one.name for one in store.catalog.versions(REPOSITORY)] == ["v1"]


def test_gc_leaves_an_upload_that_begins_meanwhile(store, tmp_path, monkeypatch):
    numbers, begun = store.uploads.numbers, []

    def late() -> set[str]:
        found = numbers()
        if not begun:
            begun.append(begin(store, announce(b"12345", "v1")))
            store.receive(begun[0], 0, b"12345")
        return found

    monkeypatch.setattr(store.uploads, "numbers", late)
    gc(store, cache_bytes=0)
    store.assemble(store.uploads.get(REPOSITORY, begun[0].id, 1), tmp_path / "whole")
    assert (tmp_path / "whole").read_bytes() == b"12345"


def test_gc_finds_blobs_of_a_push_that_was_killed(store, tmp_path, clock):
    (tmp_path / "b").write_bytes(b"orphan")
    name = sha256_of(tmp_path / "b")
    store.put_blob(name, tmp_path / "b")
    assert gc(store, cache_bytes=0).blobs == 0
    clock.now += 3601
    assert gc(store, cache_bytes=0, dry_run=True).blobs == 1
    assert store.blobs.size(blob_key(name)) == 6
    assert gc(store, cache_bytes=0).nbytes == 6
    assert store.blobs.size(blob_key(name)) is None


def test_one_gc_at_a_time(store):
    with store.locks.hold("gc"), pytest.raises(ConflictError):
        gc(store, cache_bytes=0)
    gc(store, cache_bytes=0)


def test_pushes_and_gc_at_once_lose_nothing(store, tmp_path):
    """A name is pushed and removed again and again while blobs are swept without mercy."""
    end, problems = threading.Event(), []

    def sweep() -> None:
        while not end.is_set():
            gc(store, cache_bytes=0, thin=True, grace_s=0)

    def work(number: int) -> None:
        folder = tmp_path / f"w{number}"
        folder.mkdir()
        for turn in range(8):
            try:
                # Both push the same bytes: what one removes the other needs.
                push(store, folder, f"v{number}", content=f"c{turn}", repository=f"t{number}/net")
                blob = store.graph.edges(f"t{number}/net")[-1].sha256
                if store.blobs.size(blob_key(blob)) is None:
                    problems.append(blob)
                store.catalog.remove_version(f"t{number}/net", f"v{number}")
            except ConflictError as error:
                if "removed meanwhile" not in str(error):
                    problems.append(str(error))

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
    end.set()
    sweeper.join()
    assert problems == []
    assert fsck(store, read_data=True).problems == []


def test_fsck_finds_what_is_missing_short_or_changed(store, tmp_path):
    for number in range(4):
        push(store, tmp_path, f"v{number}")
    push(store, tmp_path, "v4", base="v1")
    assert fsck(store, read_data=True).problems == []
    keys = {e.target: blob_key(e.sha256) for e in store.graph.edges(REPOSITORY)}
    store.blobs.delete(keys[manifest("v1").digest])
    store.blobs.put_bytes(keys[manifest("v2").digest], b"short")
    store.blobs.put_bytes(keys[manifest("v3").digest], b"x" * 100)
    quick = fsck(store).problems
    assert len([p for p in quick if p.startswith("blob")]) == 2
    assert {p.split(":")[1] for p in quick if p.startswith("version")} == {"v1", "v2", "v4"}
    slow = fsck(store, read_data=True)
    assert len([p for p in slow.problems if p.startswith("blob")]) == 3
    assert {p.split(":")[1] for p in slow.problems if p.startswith("version")} == {
        "v1", "v2", "v3", "v4",
    }  # fmt: skip
    assert (slow.blobs, slow.versions) == (5, 5)


def test_layers_are_stored_as_prefixes(store, tmp_path):
    upload = begin(store, announce(b"x" * 90, "v1"))
    store.receive(upload, 0, b"x" * 90)
    (tmp_path / "b").write_bytes(b"x" * 90)
    layers = [Layer(n, 30 * n, manifest(f"layer {n}"), None) for n in (1, 2)]
    store.publish(upload, manifest("v1"), tmp_path / "b", layers=layers)
    _, (step,) = store.graph.plan(REPOSITORY, [], manifest("layer 2").digest)
    assert (step.edge.nbytes, step.edge.layer, step.edge.kind) == (60, 2, "copy")
    assert store.catalog.resolve(REPOSITORY, f"@{manifest('layer 1').digest}").node.copy_of
    assert [v.name for v in store.catalog.versions(REPOSITORY)] == ["v1"]
    # Without a cache the layers go; the blob stays for the whole.
    gc(store, cache_bytes=0, thin=True, grace_s=0)
    assert fsck(store, read_data=True).problems == []


def test_deliveries_are_summed_by_day(store, clock):
    for number in range(3):
        store.ledger.add(Delivery(REPOSITORY, "", "t", 10 + number, 100, 1000, "cam"))
        clock.now += 86_400
    store.ledger.add(Delivery("other/net", "s", "t", 1, 2, 3, "cam"))
    days = store.ledger.days()
    assert [(d.pulls, d.nbytes, d.whole_nbytes, d.raw_nbytes) for d in days][-1] == (1, 1, 2, 3)
    assert [d.nbytes for d in store.ledger.days([REPOSITORY])] == [10, 11, 12]
    assert store.ledger.days([]) == []
    assert len(store.ledger.days(last=2)) < len(days)
    assert [d.nbytes for d in store.ledger.latest(REPOSITORY, 2)] == [12, 11]
    assert store.ledger.wanted(REPOSITORY) == {("", "t"): 3}


def test_the_lock_of_a_worker_that_died_is_free_again(store, clock):
    one, two = store, Store(
        store.database.engine.url.render_as_string(hide_password=False), "memory://", clock=clock
    )  # fmt: skip
    with one.locks.hold("work") as mine:
        assert mine
        assert two.locks.is_held("work")
        with two.locks.hold("work") as theirs, two.locks.hold("other") as other:
            assert (theirs, other) == (False, True)
        clock.now += DEAD_S + 1  # and no sign of life
        with two.locks.hold("work") as theirs:
            assert theirs
            one.locks._renew([["nobody", "work"]])
    with two.locks.hold("work") as theirs:
        assert theirs
    two.close()


def test_of_many_that_want_a_lock_one_gets_it(store):
    """And the others are told at once; later it is free."""
    go = threading.Barrier(6)

    def want(_: int) -> bool:
        go.wait()
        with store.locks.hold("work") as mine:
            go.wait()
            return mine

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(want, range(6))) == 1
    assert not store.locks.is_held("work")


def test_tokens_are_kept_as_hashes_only(store, clock):
    number, token = store.accounts.create_token("ann", parse_scopes(["read:*"]))
    assert store.accounts.caller(token).id == number
    with store.database.read() as connection:
        rows = connection.exec_driver_sql("SELECT * FROM tokens").all()
    assert token.removeprefix("limosa_") not in str(rows)
    with pytest.raises(AuthError):
        store.accounts.caller(token + "x")
    _, brief = store.accounts.create_token("b", parse_scopes(["read:*"]), expires=clock.now + 10)
    store.accounts.caller(brief)
    clock.now += 20
    with pytest.raises(AuthError, match="expired"):
        store.accounts.caller(brief)
    store.accounts.revoke(number)
    with pytest.raises(AuthError):
        store.accounts.caller(token)


def test_the_first_token_is_made_once_and_the_last_stays(store):
    token = store.first_token()
    assert store.first_token() is None
    caller = store.accounts.caller(token)
    caller.require("admin", "*")
    with pytest.raises(ConflictError):
        store.accounts.revoke(caller.id)
    number, _ = store.accounts.create_token("two", parse_scopes(["admin:*"]))
    store.accounts.revoke(caller.id)
    with pytest.raises(ConflictError):
        store.accounts.revoke(number)
    with pytest.raises(NotFoundError):
        store.accounts.revoke(999)


def test_a_device_says_what_it_holds(store):
    number, token = store.accounts.register("cam", parse_scopes(["read:team/*"]))
    held = [Holding(REPOSITORY, "ab" * 32, "/m"), Holding("other/net", "cd" * 32)]
    store.accounts.hold(store.accounts.caller(token), held)
    (device,) = store.accounts.devices()
    assert (device.id, device.name, device.holds) == (number, "cam", tuple(held))
    assert store.accounts.inventory(REPOSITORY) == {"ab" * 32: 1}
    store.accounts.hold(store.accounts.caller(token), held[1:])
    assert store.accounts.inventory(REPOSITORY) == {}
    again, new = store.accounts.register("cam", parse_scopes(["read:team/*"]))
    assert again == number
    with pytest.raises(AuthError):
        store.accounts.caller(token)
    assert store.accounts.caller(new).kind == "device"
    _, person = store.accounts.create_token("ann", parse_scopes(["read:*"]))
    with pytest.raises(NotFoundError):
        store.accounts.hold(store.accounts.caller(person), held)


def test_a_store_is_opened_again_as_it_was(tmp_path):
    one = open_store(tmp_path / "hub")
    push(one, tmp_path, "v1", tags=("latest",), metrics={"acc": 0.5}, parents=("x",))
    before = one.catalog.resolve(REPOSITORY, "latest")
    one.close()
    two = open_store(tmp_path / "hub")
    assert two.catalog.resolve(REPOSITORY, "latest") == before
    assert (before.metrics, before.parents) == ({"acc": 0.5}, ("x",))
    two.check()
    two.close()


def test_many_workers_may_make_the_tables_at_once(tmp_path):
    (tmp_path / "hub").mkdir()

    def work(_: int) -> None:
        open_store(tmp_path / "hub").close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


def test_a_transaction_ends_whole_or_not_at_all(store, tmp_path, monkeypatch):
    push(store, tmp_path, "v1")
    upload = begin(store, announce(b"12", "v2", tags=("v1",)))  # a tag that cannot be
    store.receive(upload, 0, b"12")
    (tmp_path / "b").write_bytes(b"12")
    with pytest.raises(ConflictError):
        store.publish(upload, manifest("v2"), tmp_path / "b")
    assert [v.name for v in store.catalog.versions(REPOSITORY)] == ["v1"]
    assert len(store.catalog.nodes(REPOSITORY)) == 1
    assert len(store.graph.edges(REPOSITORY)) == 1


def test_of_many_that_make_a_tag_one_does(store, tmp_path):
    for number in range(8):
        push(store, tmp_path, f"v{number}")

    def make(number: int) -> bool:
        try:
            store.catalog.move_tag(REPOSITORY, "new", f"v{number}", expect="")
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(make, range(8))) == 1


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://u@h/d"])
def test_what_is_no_database_is_refused(url):
    with pytest.raises(ConfigError):
        Database(url)


def test_a_database_that_does_not_answer(tmp_path):
    with pytest.raises(TransportError):
        Store(f"sqlite:///{tmp_path / 'no' / 'such' / 'hub.db'}", "memory://")


def test_a_name_made_of_content():
    assert manifest("a").digest == version_digest(manifest("a").state, manifest("a").form)
