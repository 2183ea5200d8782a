"""The client of a hub, and where it finds its hub and token."""

from __future__ import annotations

import http.server
import json
import stat
import threading
from contextlib import contextmanager

import pytest

pytest.importorskip("fastapi")

from hubs import Machine, Wire, line, running_hub, same

from limosa.errors import (
    AuthError,
    ConfigError,
    ConflictError,
    CorruptError,
    LimitError,
    NotFoundError,
    TransportError,
)
from limosa.exchange.publish import Description
from limosa.hub.client import HubClient
from limosa.hub.connection import TRIES
from limosa.hub.file_digest import check_sha256
from limosa.hub.settings import Places

MODEL = "team/detector"


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    with running_hub(folder / "hub") as server:
        author = Machine(folder / "author", server.url, server.admin_token)
        (v1,) = line(folder, 1)
        author.push(v1, f"{MODEL}:v1", description=Description(tags=["latest"]))
        yield server, author, v1


@contextmanager
def answering(answer):
    """A server that answers every request as the function *answer* does with its handler."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self):
            self.rfile.read(int(self.headers.get("content-length", 0)))
            seen.append((self.command, self.path, dict(self.headers)))
            answer(self, len(seen))

        def log_message(self, *rest):
            pass

    for method in ("GET", "POST", "PUT", "PATCH", "HEAD", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.handle_any)
    seen: list = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def asking(answer, token=""):
    """A client of such a server."""
    with answering(answer) as (url, seen), HubClient(url, token, pause=0.001) as client:
        yield client, seen


def with_error(call, *kinds):
    """What the error says that *call* has to raise."""
    with pytest.raises(kinds) as caught:
        call()
    return str(caught.value)


def reply(handler, status, body=b"{}", **headers):
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


# Tries


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(status):
    def answer(handler, number):
        reply(handler, status if number < 3 else 200, b'{"name": "x"}')

    with answering(answer) as (url, seen), HubClient(url, pause=0.001) as client:
        assert client.whoami() == {"name": "x"}
    assert len(seen) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
def test_what_will_not_pass_is_asked_once(status):
    with asking(lambda handler, number: reply(handler, status)) as (client, seen):
        with_error(client.whoami, AuthError, TransportError)
    assert len(seen) == 1


def test_nobody_asks_for_ever():
    with asking(lambda handler, number: reply(handler, 503)) as (client, seen):
        with_error(client.whoami, TransportError)
    assert len(seen) == TRIES


def test_a_busy_hub_says_when_to_come_again(monkeypatch):
    problem = json.dumps({"type": "TransportError", "title": "busy", "status": 429,
                          "retry_after": 7.0}).encode()  # fmt: skip

    def answer(handler, number):
        kind = {"Content_Type": "application/problem+json", "Retry_After": "7"}
        reply(handler, *((429, problem) if number == 1 else (200, b"{}")), **kind)

    slept: list[float] = []
    monkeypatch.setattr("limosa.hub.connection.time.sleep", slept.append)
    with answering(answer) as (url, _), HubClient(url, pause=0.001) as client:
        client.whoami()
    assert slept == [7.0]


def test_a_proxy_says_when_to_come_again_too(monkeypatch):
    def answer(handler, number):
        reply(handler, 503 if number == 1 else 200, b"{}", Retry_After="3")

    slept: list[float] = []
    monkeypatch.setattr("limosa.hub.connection.time.sleep", slept.append)
    with answering(answer) as (url, _), HubClient(url, pause=0.001) as client:
        client.whoami()
    assert slept == [3.0]


@pytest.mark.parametrize("body", [b"", b"<html>hello</html>", b"[1]", b"null", b"{", b"\xff"])
def test_what_is_no_hub_is_told_so(body):
    with asking(lambda handler, number: reply(handler, 200, body)) as (client, _):
        assert "no answer" in with_error(lambda: client.repository("a/b"), TransportError)


def test_an_answer_without_what_it_should_have_is_no_answer_of_a_hub(tmp_path):
    with answering(lambda handler, number: reply(handler, 200, b"{}")) as (url, _):
        machine = Machine(tmp_path / "home", url, "limosa_x")
        (v1,) = line(tmp_path, 1)
        for act in (
            lambda: machine.pull(MODEL, tmp_path / "m.safetensors"),
            lambda: machine.push(v1, f"{MODEL}:v1"),
        ):
            assert "no answer of a hub" in with_error(act, TransportError)


@pytest.mark.parametrize(
    "change",
    [
        {"want": {"digest": "../../../keep"}},
        {"want": {"name": "../x"}},
        {"want": {"nbytes": "1"}},
        {"start": "/etc/passwd"},
        {"route": {"sha256": "../../../keep"}},
        {"route": {"target": "a/b"}},
        {"route": {"base": ".."}},
        {"route": {"nbytes": -1}},
    ],
    ids=str,
)
def test_a_hub_that_names_files_instead_of_digests_reaches_none(tmp_path, change):
    want = {"name": "v1", "digest": "1" * 64, "state": "2" * 64, "nbytes": 9}
    step = {"base": "", "target": "1" * 64, "nbytes": 9, "sha256": "3" * 64, "layer": 0}
    plan = {"start": "", "nbytes": 9, "whole_nbytes": 9, "want": want, "route": [step]}
    for name, part in change.items():
        if name == "start":
            plan["start"] = part
        else:
            (want if name == "want" else step).update(part)
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "mine").write_text("mine")
    text = json.dumps(plan).encode()
    with answering(lambda handler, number: reply(handler, 200, text)) as (url, seen):
        machine = Machine(tmp_path / "home", url, "")
        with_error(
            lambda: machine.pull(MODEL, tmp_path / "m.safetensors"), CorruptError, ConfigError
        )
        assert len(seen) == 1
    assert (keep / "mine").read_text() == "mine"
    assert not (tmp_path / "m.safetensors").exists()


# Tokens


def test_a_token_is_not_shown_to_whom_the_hub_redirects():
    def abc(handler, number):
        reply(handler, 206, b"abc", Content_Range="bytes 0-2/3")

    with answering(abc) as (storage, shown):

        def redirect(handler, number):
            # Another port is another server.
            reply(handler, 307, b"", Location=f"{storage}/presigned?signature=1")

        with answering(redirect) as (url, seen), HubClient(url, "limosa_secret") as client:
            assert client.read_range(client.blob_url(MODEL, "0" * 64), 0, 3) == b"abc"
    ((_, path, headers),) = shown
    assert path == "/presigned?signature=1"
    assert "Authorization" not in headers
    assert seen[0][2]["Authorization"] == "Bearer limosa_secret"


def test_a_redirect_within_the_hub_keeps_the_token():
    def answer(handler, number):
        if number == 1:
            reply(handler, 303, b"", Location="/elsewhere")
        else:
            reply(handler, 200, b"edge")

    with (
        asking(answer, "limosa_secret") as (client, seen),
        client.streaming("POST", f"{client.url}/v1/x", client.headers, {"a": 1}) as found,
    ):
        assert found.read() == b"edge"
    assert [(method, path) for method, path, _ in seen] == [
        ("POST", "/v1/x"),
        ("GET", "/elsewhere"),
    ]
    assert seen[1][2]["Authorization"] == "Bearer limosa_secret"


def test_redirects_do_not_go_round_in_circles():
    with asking(lambda handler, number: reply(handler, 307, b"", Location="/again")) as (client, _):
        found = with_error(lambda: client.read_range(f"{client.url}/x", 0, 1), TransportError)
    assert "too many redirects" in found


def test_a_token_is_for_its_own_hub(tmp_path):
    places = Places(tmp_path / "config", tmp_path / "cache")
    places.login("https://one.example", "limosa_1")
    places.login("https://two.example", "limosa_2")
    assert places.token_for("https://one.example") == "limosa_1"
    assert places.token_for("https://two.example") == "limosa_2"
    for other in ("https://three.example", "http://one.example", "https://one.example:8443"):
        assert places.token_for(other) == ""
    assert places.hub_url() == "https://two.example"
    assert places.logout("https://two.example")
    assert not places.logout("https://two.example")
    assert places.token_for("https://two.example") == ""
    with pytest.raises(ConfigError, match="no hub"):
        places.hub_url()


def test_nobody_else_can_read_the_tokens(tmp_path):
    places = Places(tmp_path / "config", tmp_path / "cache")
    path = places.login("https://one.example", "limosa_1")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    places.login("https://two.example", "limosa_2")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["hubs.json"]


def test_options_come_before_the_environment_and_that_before_the_file(tmp_path):
    environment = {"HOME": str(tmp_path), "LIMOSA_HUB": "http://env/", "LIMOSA_TOKEN": "env"}
    places = Places.from_environment(environment)
    places.login("http://file", "file")
    assert places.hub_url("http://option/") == "http://option"
    assert places.hub_url() == "http://env"
    assert places.token_for("http://file", "option") == "option"
    assert places.token_for("http://file") == "env"
    plain = Places.from_environment({"HOME": str(tmp_path)})
    assert (plain.hub_url(), plain.token_for("http://file")) == ("http://file", "file")


def test_where_things_are(tmp_path):
    def places(**environment):
        found = Places.from_environment({"HOME": "/h", **environment})
        return str(found.config), str(found.cache)

    assert places() == ("/h/.config/limosa", "/h/.cache/limosa")
    assert places(XDG_CONFIG_HOME="/c", XDG_CACHE_HOME="/k") == ("/c/limosa", "/k/limosa")
    assert places(LIMOSA_HOME="/l", XDG_CACHE_HOME="/k") == ("/l", "/l/cache")
    assert places(LIMOSA_HOME="/l", LIMOSA_CACHE="/big") == ("/l", "/big")
    made = Places(tmp_path, tmp_path / "cache").make_cache()
    assert (made / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f0688")


def test_a_file_of_tokens_that_was_spoiled_says_so(tmp_path):
    places = Places(tmp_path, tmp_path / "cache")
    (tmp_path / "hubs.json").write_text("{")
    with pytest.raises(AuthError, match="cannot read the tokens"):
        places.token_for("http://x")


# Blobs


def whole(shop):
    _server, author, _ = shop
    with author.client() as client:
        (step,) = client.plan(MODEL, "v1")["route"]
    return step["sha256"], step["nbytes"]


@pytest.mark.parametrize("have", [0, 1, 1000, 700_000])
def test_a_blob_goes_on_where_it_stopped(tmp_path, shop, have):
    server, _author, _ = shop
    sha256, nbytes = whole(shop)
    path, told = tmp_path / "blob", []
    with Wire(server.url) as wire, HubClient(wire.url, server.admin_token) as client:
        if have:
            client.fetch_blob(MODEL, sha256, have, path)
        assert (path.stat().st_size if have else 0) == have
        wire.measure()
        client.fetch_blob(MODEL, sha256, nbytes, path, told.append)
        assert wire.down <= nbytes - have + 2048
        wire.measure()
        client.fetch_blob(MODEL, sha256, nbytes, path)
        assert wire.down == 0
    check_sha256(path, sha256)
    assert sum(told) == nbytes - have


def test_a_blob_comes_whole_from_a_server_that_knows_no_ranges(tmp_path):
    data = bytes(range(256)) * 100
    with answering(lambda handler, number: reply(handler, 200, data)) as (url, _):
        path = tmp_path / "blob"
        path.write_bytes(data[:5000])
        with HubClient(url) as client:
            client.fetch_blob(MODEL, "0" * 64, len(data), path)
    assert path.read_bytes() == data


def test_a_server_that_sends_more_than_asked_for_is_cut_off(tmp_path):
    def answer(handler, number):
        reply(handler, 206, bytes(5000), Content_Range="bytes 0-99/100")

    with answering(answer) as (url, _), HubClient(url) as client, pytest.raises(LimitError):
        client.fetch_blob(MODEL, "0" * 64, 100, tmp_path / "blob")
    assert (tmp_path / "blob").stat().st_size <= 100


def test_another_range_than_asked_for_is_not_believed(tmp_path):
    def answer(handler, number):
        reply(handler, 206, bytes(50), Content_Range="bytes 0-49/100")

    path = tmp_path / "blob"
    path.write_bytes(bytes(50))
    with asking(answer) as (client, _):
        found = with_error(lambda: client.fetch_blob(MODEL, "0" * 64, 100, path), TransportError)
    assert "another range" in found
    assert path.stat().st_size == 50


def test_an_edge_without_end_is_cut_off(tmp_path):
    def answer(handler, number):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"10000\r\n" + bytes(65536) + b"\r\n")
        except OSError:
            pass

    with asking(answer) as (client, _):
        path = tmp_path / "edge"
        with_error(lambda: client.fetch_edge(MODEL, "", "0" * 64, 1_000_000, path), LimitError)
    assert (tmp_path / "edge").stat().st_size <= 1_000_000


def test_blobs_from_an_object_storage_need_no_token(tmp_path, s3_bucket):
    with running_hub(tmp_path / "hub", blobs=s3_bucket, redirect=True) as server:
        author = Machine(tmp_path / "author", server.url, server.admin_token)
        v1, v2 = line(tmp_path, 2)
        author.push(v1, f"{MODEL}:v1")
        author.push(v2, f"{MODEL}:v2")
        out = tmp_path / "m.safetensors"
        out.write_bytes(v1.read_bytes())
        with Wire(server.url) as wire:
            edge = Machine(tmp_path / "edge", wire.url, server.admin_token)
            result = edge.pull(f"{MODEL}:v2", out)
            # The bytes came from elsewhere.
            assert wire.down < result.nbytes
    assert (result.fallback, same(out, v2)) == ("", True)


# What a hub says


def test_errors_are_those_of_the_hub(shop):
    _, author, _ = shop
    with author.client() as client:
        with pytest.raises(NotFoundError, match="no such repository"):
            client.repository("team/nothing")
        with pytest.raises(NotFoundError):
            client.version(MODEL, "v99")
        with pytest.raises(ConflictError):
            client.move_tag(MODEL, "latest", "v1", "0" * 64)
    with HubClient(author.url, "limosa_" + "0" * 64) as client, pytest.raises(AuthError):
        client.whoami()


def test_tags_move_and_go(shop):
    _, author, _ = shop
    with author.client() as client:
        assert client.move_tag(MODEL, "night", "v1", "")["version"] == "v1"
        digest = client.version(MODEL, "night")["digest"]
        assert client.move_tag(MODEL, "night", "v1", digest)["digest"] == digest
        client.remove_tag(MODEL, "night")
        with pytest.raises(NotFoundError):
            client.version(MODEL, "night")
