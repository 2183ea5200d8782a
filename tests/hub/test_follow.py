"""Follow a tag: a device that keeps itself up to date whatever happens to its hub."""

from __future__ import annotations

import json
import shlex
import signal
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from hubs import PATIENCE_S, Machine, line, running_hub, same

from limosa.errors import AuthError, TransportError
from limosa.exchange.follow import Follower
from limosa.exchange.hub_server import HubServer
from limosa.exchange.publish import Description
from limosa.hub.server.settings import HubSettings

MODEL = "team/detector"
STABLE = Description(tags=["stable"])


@pytest.fixture
def hub(tmp_path):
    with running_hub(tmp_path / "hub") as server:
        yield server


def wait_until(good, what: str):
    until = time.monotonic() + PATIENCE_S
    while not good():
        assert time.monotonic() < until, what
        time.sleep(0.02)


def is_version(out: Path, version: Path) -> bool:
    return out.exists() and same(out, version)


def follow(machine: Machine, out: Path, *options, cwd: Path):
    return machine.start(
        "pull", f"{MODEL}:stable", "-o", out, "--follow", "--interval", 0.05, "--json", *options,
        cwd=cwd,
    )  # fmt: skip


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_the_file_is_always_what_the_tag_means(tmp_path, hub, end):
    author = Machine(tmp_path / "author", hub.url, hub.admin_token)
    v1, v2, v3 = line(tmp_path)
    author.push(v1, f"{MODEL}:v1", description=STABLE)
    author.push(v2, f"{MODEL}:v2")
    out = tmp_path / "m.safetensors"
    device = Machine(tmp_path / "device", hub.url, hub.admin_token)
    process = follow(device, out, cwd=tmp_path)
    wait_until(lambda: is_version(out, v1), "the first version")
    author.push(v3, f"{MODEL}:v3", description=STABLE)
    wait_until(lambda: is_version(out, v3), "an update")
    with author.client() as client:
        client.move_tag(MODEL, "stable", "v2", None)
    wait_until(lambda: is_version(out, v2), "a way back")
    process.send_signal(end)
    printed, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, errors) == (0, b"")
    told = [json.loads(text) for text in printed.splitlines()]
    assert [one["reference"] for one in told] == [f"{MODEL}:{v}" for v in ("v1", "v3", "v2")]
    # The first whole, the others as updates.
    assert [bool(one["start"]) for one in told] == [False, True, True]


def test_a_hub_that_restarts_is_followed_on(tmp_path):
    out, folder = tmp_path / "m.safetensors", tmp_path / "hub"
    v1, v2 = line(tmp_path, 2)
    with HubServer(HubSettings(folder=folder, threads=1)) as server:
        token, port = server.admin_token, int(server.url.rpartition(":")[2])
        author = Machine(tmp_path / "author", server.url, token)
        author.push(v1, f"{MODEL}:v1", description=STABLE)
        device = Machine(tmp_path / "device", server.url, token)
        process = follow(device, out, cwd=tmp_path)
        wait_until(lambda: is_version(out, v1), "the first version")
    # Longer than all tries of one look.
    time.sleep(1.0)
    assert process.poll() is None
    with HubServer(HubSettings(folder=folder, threads=1), port=port):
        author.push(v2, f"{MODEL}:v2", description=STABLE)
        wait_until(lambda: is_version(out, v2), "an update after the restart")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert all(b"limosa: " in text for text in errors.splitlines())


def test_a_command_runs_after_each_change_and_may_fail(tmp_path, hub):
    author = Machine(tmp_path / "author", hub.url, hub.admin_token)
    v1, v2 = line(tmp_path, 2)
    author.push(v1, f"{MODEL}:v1", description=STABLE)
    note = tmp_path / "note.py"
    note.write_text(
        "import sys, hashlib\n"
        f"with open({str(tmp_path / 'noted')!r}, 'a') as file:\n"
        "    data = open(sys.argv[-1], 'rb').read()\n"
        "    print(sys.argv[1], hashlib.sha256(data).hexdigest(), file=file)\n"
        "raise SystemExit(3)\n"
    )
    out = tmp_path / "m.safetensors"
    device = Machine(tmp_path / "device", hub.url, hub.admin_token)
    command = shlex.join([sys.executable, str(note), "an argument with spaces"])
    process = follow(device, out, "--exec", command, cwd=tmp_path)
    wait_until(lambda: (tmp_path / "noted").exists(), "the command")
    author.push(v2, f"{MODEL}:v2", description=STABLE)

    def lines():
        return (tmp_path / "noted").read_text().splitlines()

    wait_until(lambda: len(lines()) == 2, "the command again")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert len({text.split()[-1] for text in lines()}) == 2
    assert all(text.startswith("an argument with spaces ") for text in lines())


def test_a_command_that_is_not_there_does_not_end_it(tmp_path, hub):
    author = Machine(tmp_path / "author", hub.url, hub.admin_token)
    v1, v2 = line(tmp_path, 2)
    author.push(v1, f"{MODEL}:v1", description=STABLE)
    out = tmp_path / "m.safetensors"
    device = Machine(tmp_path / "device", hub.url, hub.admin_token)
    process = follow(device, out, "--exec", "/no/such/command", cwd=tmp_path)
    wait_until(lambda: is_version(out, v1), "the first version")
    author.push(v2, f"{MODEL}:v2", description=STABLE)
    wait_until(lambda: is_version(out, v2), "an update")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert b"the command cannot be run" in errors


def test_a_token_that_ends_ends_it(tmp_path, hub):
    admin = Machine(tmp_path / "admin", hub.url, hub.admin_token)
    (v1,) = line(tmp_path, 1)
    admin.push(v1, f"{MODEL}:v1", description=STABLE)
    with admin.client() as client:
        made = client.post("/v1/devices", {"name": "camera", "scopes": ["read:team/*"]})
        tokens = client.get("/v1/tokens")["tokens"]
    number = next(one["id"] for one in tokens if one["name"] == "camera")
    out = tmp_path / "m.safetensors"
    process = follow(Machine(tmp_path / "device", hub.url, made["token"]), out, cwd=tmp_path)
    wait_until(lambda: is_version(out, v1), "the first version")
    with admin.client() as client:
        client.delete(f"/v1/tokens/{number}")
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 6, errors
    assert same(out, v1)


def test_a_tag_that_is_not_there_yet_is_waited_for(tmp_path, hub):
    author = Machine(tmp_path / "author", hub.url, hub.admin_token)
    (v1,) = line(tmp_path, 1)
    author.push(v1, f"{MODEL}:v1")
    out = tmp_path / "m.safetensors"
    process = follow(Machine(tmp_path / "d", hub.url, hub.admin_token), out, cwd=tmp_path)
    time.sleep(0.5)
    assert process.poll() is None
    with author.client() as client:
        client.move_tag(MODEL, "stable", "v1", "")
    wait_until(lambda: is_version(out, v1), "the tag")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0


def test_failures_are_told_and_looks_become_rare():
    told, pauses = [], []
    errors = iter([TransportError("away"), OSError(28, "no space left"), TransportError("away")])

    def fail():
        raise next(errors)

    follower = Follower(fail, interval=1.0, failed=told.append)
    follower._stopped.wait = pauses.append  # type: ignore[method-assign]
    assert follower.run(times=3) == 0
    assert pauses == [2.0, 4.0]
    assert [str(one) for one in told] == [
        "away", "cannot read or write; found [Errno 28] no space left", "away",
    ]  # fmt: skip


def test_a_token_that_is_no_good_is_not_waited_for():
    def fail():
        raise AuthError("no")

    with pytest.raises(AuthError):
        Follower(fail, interval=1000.0).run()
