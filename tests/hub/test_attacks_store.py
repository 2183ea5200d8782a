"""A store at its worst moments: kills between two steps, races, full disks, clocks that jump."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from workshop import Clock, open_store

from limosa.errors import LimosaError, NotFoundError, TransportError
from limosa.hub.manifest import Manifest
from limosa.hub.store import upkeep
from limosa.hub.store.blobs import blob_key
from limosa.hub.store.ledger import Delivery
from limosa.hub.store.locks import DEAD_S
from limosa.hub.store.store import Store
from limosa.hub.store.upkeep import GRACE_S, fsck, gc
from limosa.hub.store.uploads import Announced, Upload
from limosa.hub.trust import parse_scopes

REPOSITORY = "team/net"


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request, tmp_path, clock):
    if request.param == "sqlite":
        made = open_store(tmp_path / "hub", clock)
    else:
        url = request.getfixturevalue("postgres_database")
        made = Store(url, str(tmp_path / "hub" / "blobs"), clock=clock)
    yield made
    made.close()


def manifest(name: str) -> Manifest:
    state = hashlib.sha256(name.encode()).hexdigest()
    return Manifest(state, hashlib.sha256(b"form").hexdigest(), 1000, (), ())


def sent(store: Store, tmp: Path, name: str, base: str = "") -> tuple[Upload, Path]:
    """An upload of which all bytes are there, and its blob."""
    data, about = f"{name} from {base}".encode() * 9, manifest(name)
    announced = Announced(
        name, about.digest, about.state, base and manifest(base).state, len(data),
        hashlib.sha256(data).hexdigest(),
    )  # fmt: skip
    upload = store.begin_upload(REPOSITORY, announced, token_id=1, by="ann")
    store.receive(upload, 0, data)
    blob = tmp / f"{name}.blob"
    blob.write_bytes(data)
    return replace(upload, received=len(data)), blob


def push(store: Store, tmp: Path, name: str, base: str = "") -> None:
    upload, blob = sent(store, tmp, name, base)
    store.publish(upload, manifest(name), blob)


def test_gc_and_a_push_at_once_lose_no_version(store, tmp_path, monkeypatch):
    # The base has no name any more, and only the open upload keeps it. gc looks at the edges, then
    # the push ends, then gc looks at what is wanted.
    push(store, tmp_path, "v1")
    upload, blob = sent(store, tmp_path, "v2", "v1")
    store.catalog.remove_version(REPOSITORY, "v1")
    failures: list[LimosaError] = []

    def finish_push() -> None:
        try:
            store.publish(upload, manifest("v2"), blob)
        except LimosaError as error:
            failures.append(error)

    pusher = threading.Thread(target=finish_push)
    plain = upkeep._wanted

    def wanted(connection, number):
        pusher.start()
        pusher.join(1.0)
        return plain(connection, number)

    monkeypatch.setattr(upkeep, "_wanted", wanted)
    gc(store, cache_bytes=0)
    pusher.join()
    assert failures == []
    assert fsck(store).problems == []
    _, steps = store.graph.plan(REPOSITORY, [], manifest("v2").digest)
    assert len(steps) == 2


def test_fsck_is_clean_after_a_gc_that_was_killed_between_file_and_row(store, tmp_path, clock):
    push(store, tmp_path, "v1")
    push(store, tmp_path, "v2")
    store.catalog.remove_version(REPOSITORY, "v1")
    gc(store, cache_bytes=0)
    clock.now += GRACE_S + 10
    ((sha256, _),) = store.blob_table.due(GRACE_S)

    def remove_and_die() -> None:
        store.blobs.delete(blob_key(sha256))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.blob_table.sweep(sha256, GRACE_S, remove_and_die)
    assert sha256 in store.blob_table.all()
    assert fsck(store, read_data=True).problems == []
    gc(store, cache_bytes=0)
    assert sha256 not in store.blob_table.all()
    push(store, tmp_path, "v1")
    assert fsck(store, read_data=True).problems == []


def test_deliveries_that_nobody_can_add_up_do_not_end_the_page(store):
    for _ in range(4):
        most = 2**63 - 1
        store.ledger.add(Delivery(REPOSITORY, "", "0" * 64, most, most, most, "eve"))
    (day,) = store.ledger.days([REPOSITORY])
    assert day.pulls == 4
    assert day.nbytes == pytest.approx(2**65)


def test_a_new_token_does_not_take_the_place_of_one_that_was_revoked(store, tmp_path):
    scopes = parse_scopes(["push:team/*"])
    store.accounts.first_token()
    old, _ = store.accounts.create_token("old", scopes)
    announced = Announced("v1", "1" * 64, "2" * 64, "", 9, "3" * 64)
    upload = store.begin_upload(REPOSITORY, announced, token_id=old, by="old")
    store.accounts.revoke(old)
    new, _ = store.accounts.create_token("new", scopes)
    assert new != old
    with pytest.raises(NotFoundError):
        store.uploads.get(REPOSITORY, upload.id, new)


def test_a_clock_that_was_put_back_does_not_lock_for_hours(store, clock):
    abandoned = store.locks.hold("gc")
    abandoned.__enter__()
    store.locks._held.clear()  # its worker was killed
    assert store.locks.is_held("gc")
    clock.now -= 3600
    assert not store.locks.is_held("gc")
    with store.locks.hold("gc") as mine:
        assert mine
        clock.now -= DEAD_S / 2
        assert store.locks.is_held("gc")


def test_who_only_reads_is_served_while_nothing_can_be_written(tmp_path, clock):
    store = open_store(tmp_path / "hub", clock)
    token = store.accounts.first_token()
    push(store, tmp_path, "v1")
    store.database.engine.dispose()

    @sa.event.listens_for(store.database.engine, "connect")
    def make_read_only(connection, record):
        connection.execute("PRAGMA query_only=ON")

    clock.now += 3600
    assert store.accounts.caller(token).name == "admin"
    _, steps = store.graph.plan(REPOSITORY, [], manifest("v1").digest)
    assert len(steps) == 1
    store.close()


def test_what_is_announced_as_done_is_on_the_disk(tmp_path):
    store = open_store(tmp_path / "hub")
    with store.database.begin() as connection:
        # 2 is FULL: a transaction that ended survives the power's end.
        assert connection.execute(sa.text("PRAGMA synchronous")).scalar() == 2
    store.close()


def test_a_hub_with_more_to_do_than_connections_says_so_and_does_not_fail(tmp_path):
    store = open_store(tmp_path / "hub")
    pool = store.database.engine.pool
    pool._timeout = 0.01
    taken = [store.database.engine.connect() for _ in range(pool.size() + pool._max_overflow)]
    with pytest.raises(TransportError, match="does not answer"):
        store.check()
    for connection in taken:
        connection.close()
    store.check()
    store.close()
