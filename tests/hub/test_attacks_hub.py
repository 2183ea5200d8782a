"""What those can do to a hub who have no token, a token to read, or one to push."""

from __future__ import annotations

import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

pytest.importorskip("fastapi")

import httpx
from hubs import PATIENCE_S, Machine, line, running_hub

from limosa.cli.hub.serve import serve, serve_many
from limosa.errors import ConfigError, LimitError
from limosa.exchange.hub_server import drop_leftovers
from limosa.exchange.workshop import make, shop
from limosa.hub.rates import Rates
from limosa.hub.server import app, pushing
from limosa.hub.server.settings import HubSettings
from limosa.hub.trust import parse_scopes

MODEL = "team/detector"


@pytest.fixture
def hub(tmp_path):
    """A hub with v1 and v2, and a token that may read them."""
    with running_hub(tmp_path / "hub", rate=0, jobs=1) as server:
        author = Machine(tmp_path / "author", server.url, server.admin_token)
        for path in line(tmp_path, 2):
            author.push(path, f"{MODEL}:{path.stem}")
        yield server


def reader_of(server) -> str:
    return server.hub.store.accounts.create_token("reader", parse_scopes(["read:team/*"]))[1]


def said(url: str, text: bytes) -> bytes:
    """What a server answers to bytes, after which nothing more comes."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as connection:
        connection.sendall(text)
        return connection.recv(2**16)


def post(path: str, length: int, body: bytes, *more: str) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1", "Host: hub", "Content-Type: application/json",
        f"Content-Length: {length}", *more, "", "",
    ]  # fmt: skip
    return "\r\n".join(lines).encode() + body


# Threads


def test_readers_who_wait_for_edges_hold_up_nobody_else(hub, monkeypatch):
    go_on, plain = threading.Event(), make.make_edge

    def slow(*arguments, **more):
        assert go_on.wait(PATIENCE_S)
        return plain(*arguments, **more)

    monkeypatch.setattr(make, "make_edge", slow)
    headers = {"Authorization": f"Bearer {reader_of(hub)}"}
    room = f"{hub.url}/v1/repos/{MODEL}"
    versions = httpx.get(room, headers=headers).json()["versions"]
    body = {"base": versions[1]["state"], "target": versions[0]["digest"]}

    def ask(number: int) -> int:
        # Each of its own connection.
        asked = httpx.post(f"{room}/edges", headers=headers, json=body, timeout=PATIENCE_S)
        return asked.status_code

    with ThreadPoolExecutor(80) as pool:
        try:
            under_way = [pool.submit(ask, number) for number in range(80)]
            end = time.monotonic() + PATIENCE_S / 2
            while len(refused := [one for one in under_way if one.done()]) < 16:
                assert time.monotonic() < end
                time.sleep(0.01)
            assert httpx.get(room, headers=headers, timeout=10).status_code == 200
            assert httpx.get(f"{hub.url}/readyz", timeout=10).status_code == 200
        finally:
            go_on.set()
        # Of one token only so many may wait.
        assert {one.result() for one in refused} == {429}
        assert len(refused) == 16
        assert {one.result() for one in under_way} == {200, 429}


def test_threads_that_ask_at_once_get_no_more_than_one_would(monkeypatch):
    rates = Rates(rate=1e-6, burst=100)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            waits = list(pool.map(lambda number: rates.delay("eve"), range(20_000)))
    finally:
        sys.setswitchinterval(before)
    assert waits.count(0.0) == 100


# Memory and disk


@pytest.mark.parametrize("field", [[], ["Authorization: Bearer limosa_00"]], ids=["none", "bad"])
def test_a_stranger_is_refused_before_a_long_body_is_read(hub, field):
    text = post(f"/v1/repos/{MODEL}/plan", 4_000_000, b"[" * 100_000, *field)
    assert said(hub.url, text).startswith(b"HTTP/1.1 401 ")


def test_who_may_read_may_hold_much(hub):
    headers = {"Authorization": f"Bearer {reader_of(hub)}"}
    body = {"want": "v1", "have": [f"{number:064x}" for number in range(10_000)]}
    answer = httpx.post(f"{hub.url}/v1/repos/{MODEL}/plan", headers=headers, json=body)
    assert answer.status_code == 200


def test_a_body_that_is_too_long_is_refused_as_such(tmp_path):
    with running_hub(tmp_path / "hub", max_json_bytes=1000) as server:
        headers = {"Authorization": f"Bearer {server.admin_token}"}
        body = {"want": "v1", "have": ["0" * 64] * 20}
        answer = httpx.post(f"{server.url}/v1/repos/{MODEL}/plan", headers=headers, json=body)
        assert (answer.status_code, answer.json()["type"]) == (413, "LimitError")


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_body_that_stops_coming_ends(hub, monkeypatch, method):
    monkeypatch.setattr(app, "_SILENCE_S", 0.2)
    key = f"Authorization: Bearer {hub.admin_token}"
    path = f"/v1/repos/{MODEL}/plan"
    if method == "PATCH":
        headers = {"Authorization": f"Bearer {hub.admin_token}"}
        body = {"version": "v9", "digest": "1" * 64, "state": "2" * 64, "nbytes": 9}
        begun = httpx.post(
            f"{hub.url}/v1/repos/{MODEL}/uploads",
            headers=headers,
            json={**body, "sha256": "3" * 64},
        )
        path = begun.headers["location"]
    text = post(path, 9, b"123", key, "Upload-Offset: 0").replace(b"POST", method.encode(), 1)
    assert said(hub.url, text).startswith(b"HTTP/1.1 408 ")


def test_whoever_may_read_fills_no_disk_with_copies(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(shop, "_COPIES", 2)
    reader = Machine(tmp_path / "reader", hub.url, reader_of(hub))
    with reader.client() as client:
        for bits in (3, 4):
            client.copy(MODEL, "v1", f"bits={bits}")
        with pytest.raises(LimitError, match="bits=3, bits=4"):
            client.copy(MODEL, "v1", "bits=5")
        client.copy(MODEL, "v1", "bits=4")
        client.copy(MODEL, "v2", "bits=5")


def test_what_a_killed_hub_left_in_its_room_goes(tmp_path):
    work = tmp_path / "work"
    (work / "decoded").mkdir(parents=True)
    (work / "job-1234").mkdir()
    (work / "job-1234" / "model").write_bytes(b"half")
    (work / "edge-1234.limosa").write_bytes(b"half")
    drop_leftovers(HubSettings(tmp_path))
    assert [path.name for path in work.iterdir()] == ["decoded"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_hub_by_mistake_takes_nothing_from_the_first(hub, workers):
    settings = hub.hub.settings
    work = settings.folder / "work" / "job-1234"
    work.mkdir()
    port = urlsplit(hub.url).port
    serves = {
        1: lambda: serve(settings, "127.0.0.1", port),
        2: lambda: serve_many(settings, "127.0.0.1", port, 2, "info"),
    }
    with pytest.raises(ConfigError, match="cannot listen"):
        serves[workers]()
    assert work.exists()


# Uploads


def test_an_upload_that_is_done_stays_done_for_whoever_comes_late(hub):
    # Two ask at once whether it is complete; one reads that it is open, and gets the lock only
    # after the other has verified and published it.
    with hub.hub.store.database.read() as connection:
        number = connection.exec_driver_sql("SELECT id FROM uploads LIMIT 1").scalar()
    done = hub.hub.store.uploads.get(MODEL, number, 1)
    assert done.status == "done"
    pushing._verify(hub.hub, vars_with(done, status="open"), f"upload {number}")
    assert hub.hub.store.uploads.get(MODEL, number, 1).status == "done"


def vars_with(upload, **changed):
    return type(upload)(**{**vars(upload), **changed})


# The page


def test_a_form_with_letters_of_other_tongues_is_refused_and_no_failure(hub):
    answer = httpx.post(f"{hub.url}/login", data={"csrf": "é", "token": "x"})
    assert answer.status_code == 401


def test_a_token_does_not_end_after_the_end_of_time(hub):
    with httpx.Client(base_url=hub.url) as browser:
        browser.post("/login", data={"token": hub.admin_token})
        page = browser.get("/tokens").text
        csrf = page.split('name="csrf" value="')[1].split('"')[0]
        form = {"csrf": csrf, "name": "x", "scopes": "read:*", "days": "9999999999"}
        assert browser.post("/tokens", data=form).status_code == 422
        assert browser.get("/tokens").status_code == 200


# Names


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_names_that_no_database_can_hold_are_not_there(request, tmp_path, database):
    url = "" if database == "sqlite" else request.getfixturevalue("postgres_database")
    with running_hub(tmp_path / "hub", database=url) as server:
        headers = {"Authorization": f"Bearer {server.admin_token}"}
        (path,) = line(tmp_path, 1)
        Machine(tmp_path / "author", server.url, server.admin_token).push(path, f"{MODEL}:v1")
        room = f"{server.url}/v1/repos/{MODEL}"
        for address in ("versions/v1%00", "versions/@%00", "versions/v1%0d%0aX-Evil:1", "%00"):
            answer = httpx.get(f"{room}/{address}", headers=headers)
            assert (answer.status_code, "x-evil" in answer.headers) == (404, False), address
        assert httpx.delete(f"{room}/tags/a%00", headers=headers).status_code == 404
        assert httpx.head(f"{room}/uploads/%00", headers=headers).status_code == 404


def test_what_is_not_there_and_what_is_not_yours_look_the_same(hub, tmp_path):
    (path,) = line(tmp_path / "author", 1, rows=50)
    Machine(tmp_path / "author", hub.url, hub.admin_token).push(path, "other/secret:v1")
    with Machine(tmp_path / "author", hub.url, hub.admin_token).client() as client:
        (step,) = client.plan("other/secret", "v1")["route"]
    headers = {"Authorization": f"Bearer {reader_of(hub)}"}

    def asked(repository: str, sha256: str) -> list[tuple[int, str]]:
        room = f"{hub.url}/v1/repos/{repository}"
        begin = {
            "version": "v1", "digest": step["target"], "state": "2" * 64, "nbytes": 9,
            "sha256": sha256,
        }  # fmt: skip
        answers = [
            httpx.get(room, headers=headers),
            httpx.get(f"{room}/graph", headers=headers),
            httpx.get(f"{room}/versions/v1", headers=headers),
            httpx.get(f"{room}/blobs/{sha256}", headers=headers),
            httpx.post(f"{room}/plan", headers=headers, json={"want": "v1"}),
            httpx.post(f"{room}/uploads", headers=headers, json=begin),
            httpx.post(f"{room}/copies", headers=headers, json={"want": "v1", "quality": "bits=4"}),
            httpx.put(f"{room}/tags/latest", headers=headers, json={"version": "v1"}),
            httpx.delete(f"{room}/versions/v1", headers=headers),
        ]
        return [(one.status_code, one.text.replace(repository, "R")) for one in answers]

    assert asked("other/secret", step["sha256"]) == asked("other/nobody", "0" * 64)
    # Nor does a repository of one's own give the blob of another.
    mine = [httpx.get(f"{hub.url}/v1/repos/{MODEL}/blobs/{sha256}", headers=headers)
            for sha256 in (step["sha256"], "0" * 64)]  # fmt: skip
    assert [one.status_code for one in mine] == [404, 404]
    assert mine[0].text.replace(step["sha256"][:16], "0" * 16) == mine[1].text
