"""What a hub that lies, or who took it over, can do to a receiver."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import contextmanager, suppress

import pytest

pytest.importorskip("fastapi")

from codec_models import trained, tuned
from hubs import Machine, digest_of, leftovers, line, running_hub, same, save

from limosa.errors import ChecksumError, LimitError, TransportError
from limosa.exchange.held import Held, names_of
from limosa.exchange.tensors_only import pull_tensors
from limosa.hub.client import HubClient
from limosa.hub.reference import parse_reference

MODEL = "team/detector"


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    with running_hub(folder / "hub") as server:
        author = Machine(folder / "author", server.url, server.admin_token)
        paths = line(folder, 2)
        for path in paths:
            author.push(path, f"{MODEL}:{path.stem}")
        yield server, paths


@pytest.fixture
def edge(tmp_path, shop):
    server, _ = shop
    return Machine(tmp_path / "edge", server.url, server.admin_token)


@pytest.fixture
def lying(monkeypatch):
    """Whatever is asked for, the hub answers with a good plan for v1."""
    honest = HubClient.plan

    def plan(client, repository, want, have=(), **more):
        return honest(client, repository, "v1", have, **more)

    monkeypatch.setattr(HubClient, "plan", plan)


@pytest.mark.parametrize("hold", [True, False])
def test_who_asks_for_a_digest_gets_nothing_else(tmp_path, shop, edge, lying, hold):
    _, (v1, v2) = shop
    out = tmp_path / "m.safetensors"
    if hold:
        edge.pull(f"{MODEL}:v1", tmp_path / "other.safetensors")
    with pytest.raises(ChecksumError, match="another version"):
        edge.pull(f"{MODEL}@{digest_of(v2)}", out)
    assert not out.exists()
    edge.pull(f"{MODEL}@{digest_of(v1)}", out)
    assert same(out, v1)


def test_who_asks_for_a_tensor_of_a_digest_gets_none_of_another(tmp_path, shop, edge, lying):
    _, (v1, v2) = shop
    out = tmp_path / "t.safetensors"

    def fetch(path):
        with edge.client() as client:
            asked = parse_reference(f"{MODEL}@{digest_of(path)}")
            name = client.version(MODEL, "v1")["manifest"]["tensors"][0]["name"]
            pull_tensors(client, asked, [name], out, places=edge.places)

    with pytest.raises(ChecksumError, match="another version"):
        fetch(v2)
    assert not out.exists()
    fetch(v1)
    assert out.exists()


# Links at the output


@pytest.fixture(scope="module")
def folders(tmp_path_factory, shop):
    server, _ = shop
    folder = tmp_path_factory.mktemp("folders")
    author = Machine(folder / "author", server.url, server.admin_token)
    model, made = trained(rows=100), []
    for number in (1, 2, 3):
        path = folder / f"folder{number}"
        path.mkdir()
        save(path / "model.safetensors", model)
        (path / "config.json").write_text(str(number))
        author.push(path, f"team/folders:v{number}")
        made.append(path)
        model = tuned(model)
    return made


def test_a_link_to_a_folder_stays_a_link(tmp_path, edge, folders):
    real, link = tmp_path / "disk" / "models", tmp_path / "link"
    real.parent.mkdir()
    edge.pull("team/folders:v1", real)
    link.symlink_to(real)
    for number in (2, 3):
        edge.pull(f"team/folders:v{number}", link)
        assert link.is_symlink()
        for name in ("model.safetensors", "config.json"):
            assert same(real / name, folders[number - 1] / name)
    assert leftovers(tmp_path) == leftovers(real.parent) == []


@pytest.mark.parametrize("name", ["new", "old"])
def test_a_link_that_somebody_put_where_a_pull_writes_leads_nowhere(tmp_path, edge, folders, name):
    # In a folder that all may write to, such as /tmp.
    trap, out = tmp_path / "trap", tmp_path / "shared" / "out"
    trap.mkdir()
    (trap / "mine").write_text("mine")
    edge.pull("team/folders:v1", out)
    os.symlink(trap, out.with_name(f".out.limosa-{name}"))
    edge.pull("team/folders:v2", out)
    assert (out / "config.json").read_text() == "2"
    assert [path.name for path in trap.iterdir()] == ["mine"]
    assert not out.is_symlink()
    assert leftovers(out.parent) == []


# Answers that no hub gives


@contextmanager
def answering(head: bytes, piece: bytes = b"", times: int = 0):
    """A server that answers every connection once: with a head, then a piece again and again."""
    sent = []

    def answer(connection) -> None:
        with connection, suppress(OSError):
            connection.recv(2**16)
            connection.sendall(head)
            for _ in range(times):
                connection.sendall(piece)
                sent.append(len(piece))

    def accept() -> None:
        with suppress(OSError):
            while True:
                there = listening.accept()[0]
                threading.Thread(target=answer, args=[there], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", sent


def test_an_error_without_end_is_not_read_to_its_end(tmp_path):
    piece = f"{2**20:x}\r\n".encode() + bytes(2**20) + b"\r\n"
    head = b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n"
    with answering(head, piece, 100) as (url, sent), HubClient(url, pause=0.01) as client:
        with pytest.raises(LimitError, match="too long"):
            client.fetch_blob(MODEL, "0" * 64, 9, tmp_path / "blob")
        assert len(sent) < 50


def test_a_redirect_to_nowhere_is_an_error_of_the_hub(tmp_path):
    head = b"HTTP/1.1 303 There\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with (
        answering(head) as (url, _),
        HubClient(url, pause=0.01) as client,
        pytest.raises(TransportError),
    ):
        client.fetch_edge(MODEL, "", "0" * 64, 9, tmp_path / "edge")


@pytest.mark.parametrize("field", [b"", b"Upload-Offset: -5\r\n", b"Upload-Offset: x\r\n"])
def test_an_upload_at_no_offset_is_an_error_of_the_hub(tmp_path, field):
    head = b"HTTP/1.1 204 OK\r\n" + field + b"Connection: close\r\n\r\n"
    blob = tmp_path / "blob"
    blob.write_bytes(b"123")
    with (
        answering(head) as (url, _),
        HubClient(url, pause=0.01) as client,
        pytest.raises(TransportError, match="no answer of a hub"),
    ):
        client.send(MODEL, "1", blob)


def test_a_machine_with_many_models_names_those_that_a_hub_listens_to():
    held = [Held(f"/{n}", "", f"{n:064x}", f"{n:064x}") for n in range(6000)]
    named = names_of(held)
    assert len(named) <= 10_000
    assert held[-1].digest in named
    assert held[0].digest not in named
