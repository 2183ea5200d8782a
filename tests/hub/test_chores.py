"""What a hub does by itself: it makes what a fleet needs, and keeps its cache within its size."""

import time

from hubs import Machine, line, running_hub, same

from limosa.exchange.publish import Description
from limosa.hub.server.chores import Chores
from limosa.hub.store.upkeep import gc


def machine(folder, server, name: str, token: str | None = None) -> Machine:
    home = folder / name
    home.mkdir()
    return Machine(home, server.url, token or server.admin_token)


def kinds(hub) -> set[str]:
    return {edge.kind for edge in hub.store.graph.edges("team/net")}


def test_a_fleet_finds_its_update_made(tmp_path):
    paths = line(tmp_path)
    with running_hub(tmp_path / "hub") as server:
        sender = machine(tmp_path, server, "sender")
        sender.push(paths[0], "team/net:v1")
        with sender.client() as client:
            body = {"name": "cam", "scopes": ["read:team/*"]}
            token = client.post("/v1/devices", body)["token"]
        device = machine(tmp_path, server, "device", token)
        out = tmp_path / "model.safetensors"
        device.pull("team/net:v1", out)
        sender.push(paths[1], "team/net:v2")
        sender.push(paths[2], "team/net:v3", description=Description(tags=["latest"]))
        chores = Chores(server.hub)
        chores.do()
        assert "baked" in kinds(server.hub)
        with device.client() as client:
            held = client.version("team/net", "v1")["state"]
            (step,) = client.plan("team/net", "v3", [held])["route"]
        assert step["sha256"] is not None
        device.pull("team/net:latest", out)
        assert same(out, paths[2])
        before = server.hub.store.graph.edges("team/net")
        chores.do()  # nothing is left to do
        assert server.hub.store.graph.edges("team/net") == before


def test_a_cache_that_is_full_loses_what_was_used_longest_ago_but_no_version(tmp_path):
    paths, now = line(tmp_path), time.time()
    with running_hub(tmp_path / "hub", cache_bytes=0) as server:
        hub = server.hub
        hub.store.clock = lambda: now
        for name in ("catalog", "graph", "uploads", "accounts", "blob_table", "ledger", "locks"):
            getattr(hub.store, name)._clock = lambda: now
        sender = machine(tmp_path, server, "sender")
        for number, path in enumerate(paths, 1):
            sender.push(path, f"team/net:v{number}")
        receiver = machine(tmp_path, server, "receiver")
        out = tmp_path / "model.safetensors"
        receiver.pull("team/net:v1", out)
        receiver.pull("team/net:v3", out)
        assert "made" in kinds(hub)
        Chores(hub).do()
        assert "made" in kinds(hub), "a plan that was given out may still be followed"
        now += 7200
        Chores(hub).do()
        assert "made" not in kinds(hub)
        now += 7200
        freed = gc(hub.store, cache_bytes=0)
        assert freed.blobs == 1
        for number, path in enumerate(paths, 1):
            fresh = machine(tmp_path, server, f"fresh{number}")
            place = tmp_path / f"fresh{number}.safetensors"
            fresh.pull(f"team/net:v{number}", place, whole=True)
            assert same(place, path)


def test_a_running_hub_does_them_and_stops(tmp_path):
    paths = line(tmp_path, 1)
    with running_hub(tmp_path / "hub", chores_seconds=0.05) as server:
        machine(tmp_path, server, "sender").push(paths[0], "team/net:v1")
        deadline = time.monotonic() + 60
        while not any(lock_was_held(server)) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert time.monotonic() < deadline


def lock_was_held(server):
    yield server.hub.store.locks.is_held("chores")
