"""What a hub that lies, or who took it over, can do to a receiver."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi")

from hubs import Machine, digest_of, line, running_hub, same

from limosa.errors import ChecksumError
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
