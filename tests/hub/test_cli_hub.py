"""The commands that talk to a hub, run as a user runs them, against a hub that runs."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from hubs import PATIENCE_S, Machine, digest_of, line, running_hub, same

from limosa.exchange.publish import Description

MODEL = "team/detector"


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A hub with v1 to v3; tests only read from it."""
    folder = tmp_path_factory.mktemp("shop")
    with running_hub(folder / "hub") as server:
        author = Machine(folder / "author", server.url, server.admin_token)
        paths = line(folder)
        for path in paths:
            author.push(path, f"{MODEL}:{path.stem}", description=Description(tags=["latest"]))
        yield server, paths


@pytest.fixture
def user(tmp_path, shop):
    server, _ = shop
    return Machine(tmp_path / "home", server.url, server.admin_token)


@pytest.fixture
def hub(tmp_path):
    with running_hub(tmp_path / "hub") as server:
        yield server


@pytest.fixture
def owner(tmp_path, hub):
    return Machine(tmp_path / "home", hub.url, hub.admin_token)


# Push, pull, plan


def test_push_and_pull(tmp_path, owner):
    v1, v2, _ = line(tmp_path)
    out, _ = owner.run("push", v1, f"{MODEL}:v1", cwd=tmp_path)
    assert re.search(r"team/detector:v1: [\d.]+ MiB sent, whole, \d\d\.\d% of", out)
    out, _ = owner.run(
        "push", v2, f"{MODEL}:v2", "--notes", "night images", "--metric", "map=0.61", "--tag",
        "stable", "--parent", "v1", cwd=tmp_path,
    )  # fmt: skip
    assert re.search(r"team/detector:v2: [\d.]+ KiB sent, against v1, \d\.\d% of", out)
    out, _ = owner.run("push", v2, f"{MODEL}:again", cwd=tmp_path)
    assert "nothing was sent" in out
    found = owner.json("info", f"{MODEL}:stable", cwd=tmp_path)
    assert (found["name"], found["notes"]) == ("v2", "night images")
    assert (found["metrics"], found["parents"]) == ({"map": 0.61}, ["v1"])
    device = Machine(tmp_path / "device", owner.url, owner.token)
    room = tmp_path / "room"
    room.mkdir()
    out, _ = device.run("pull", f"{MODEL}:v1", cwd=room)
    assert same(room / "detector.safetensors", v1)
    assert f"{room}/detector.safetensors is team/detector:v1: the whole model" in out
    out, _ = device.run("pull", f"{MODEL}:stable", cwd=room)
    assert re.search(r"is team/detector:v2: an update, [\d.]+ KiB, \d+% of the whole", out)
    assert same(room / "detector.safetensors", v2)
    out, _ = device.run("pull", f"{MODEL}:stable", cwd=room)
    assert "was there already" in out
    out, _ = device.run("pull", f"{MODEL}:stable", "-o", "copy.safetensors", cwd=room)
    assert "copied from what is here" in out


def test_tags_are_moved_by_a_push_only_as_asked(tmp_path, owner):
    v1, v2, v3 = line(tmp_path)

    def tags():
        found = owner.json("ls", MODEL, cwd=tmp_path)["tags"]
        return {tag["name"]: tag["version"] for tag in found}

    owner.run("push", v1, f"{MODEL}:v1", cwd=tmp_path)
    assert tags() == {"latest": "v1"}
    owner.run("push", v2, f"{MODEL}:v2", "--no-latest", cwd=tmp_path)
    assert tags() == {"latest": "v1"}
    owner.run("push", v3, f"{MODEL}:v3", "--tag", "night", cwd=tmp_path)
    assert tags() == {"latest": "v3", "night": "v3"}


def test_a_plan_says_what_a_pull_would_cost_and_fetches_nothing(tmp_path, shop, user):
    _, (_, v2, _) = shop
    out, _ = user.run("plan", f"{MODEL}:v3", cwd=tmp_path)
    assert "nothing" in out
    assert "to fetch" in out
    out, _ = user.run("plan", f"{MODEL}:v3", "--have", v2, cwd=tmp_path)
    assert re.search(r"v2 +v3 +[\d.]+ KiB", out)
    found = user.json("plan", f"{MODEL}:v3", "--have", v2, cwd=tmp_path)
    copy = tmp_path / "m.safetensors"
    copy.write_bytes(v2.read_bytes())
    out, _ = user.run("pull", f"{MODEL}:v3", "-o", copy, "--dry-run", cwd=tmp_path)
    assert "to fetch" in out
    assert same(copy, v2)
    pulled = user.json("pull", f"{MODEL}:v3", "-o", copy, cwd=tmp_path)
    assert pulled["nbytes"] == found["nbytes"]
    assert user.json("plan", f"{MODEL}:v3", "--whole", cwd=tmp_path)["start"] == ""
    out, _ = user.run("plan", f"{MODEL}:v3", cwd=tmp_path)
    assert "nothing to fetch" in out


def test_several_at_once_into_a_folder_and_one_that_fails(tmp_path, shop, user):
    _, (v1, _v2, _) = shop
    folder = tmp_path / "all"
    user.run("pull", f"{MODEL}:v1", "-o", folder, cwd=tmp_path)
    user.run("pull", f"{MODEL}:v1", "team/nothing:v1", "-o", tmp_path / "some", cwd=tmp_path,
             status=4)  # fmt: skip
    assert same(tmp_path / "some" / "team-detector" / "detector.safetensors", v1)
    _, errors = user.run("pull", "team/a:v1", "team/b:v1", "-o", folder, cwd=tmp_path, status=7)
    assert "team/a:v1" in errors
    assert "team/b" in errors


def test_less_than_everything(tmp_path, shop, user):
    _, (v1, _, _) = shop
    found = user.json(
        "pull", f"{MODEL}:v1", "--quality", "bits=4", "-o", "s.safetensors", cwd=tmp_path
    )
    assert found["nbytes"] < 0.3 * v1.stat().st_size
    found = user.json("pull", f"{MODEL}:v1", "--tensor", "norm.bias", cwd=tmp_path)
    assert found["tensors"] == ["norm.bias"]
    assert Path(found["path"]) == tmp_path / "detector-tensors.safetensors"
    user.run("pull", f"{MODEL}:v1", "--quality", "nice", cwd=tmp_path, status=2)
    user.run("pull", f"{MODEL}:v1", "--layers", 3, cwd=tmp_path, status=2)


def test_layers_are_pushed_and_pulled(tmp_path, owner):
    (v1,) = line(tmp_path, 1)
    owner.run("push", v1, f"{MODEL}:v1", "--layers", "bits=3,lossless", cwd=tmp_path)
    coarse = owner.json("pull", f"{MODEL}:v1", "--layers", 1, "-o", "a.safetensors", cwd=tmp_path)
    whole = owner.json("pull", f"{MODEL}:v1", "--whole", "-o", "b.safetensors", cwd=tmp_path)
    assert coarse["nbytes"] < 0.5 * whole["nbytes"]
    assert same(tmp_path / "b.safetensors", v1)


def test_offline(tmp_path, shop, user):
    _, (_, v2, _) = shop
    user.run("pull", f"{MODEL}:v2", "-o", "a.safetensors", cwd=tmp_path)
    user.environment = {"LIMOSA_OFFLINE": "1"}
    user.run("pull", f"{MODEL}:v2", "-o", "b.safetensors", cwd=tmp_path)
    assert same(tmp_path / "b.safetensors", v2)
    _, errors = user.run("pull", f"{MODEL}:v3", "-o", "c.safetensors", cwd=tmp_path, status=8)
    assert "offline" in errors
    user.run("pull", f"{MODEL}:v2", cwd=tmp_path, status=2)
    _, errors = user.run("ls", cwd=tmp_path, status=8)
    assert "LIMOSA_OFFLINE" in errors


# Statuses


def test_each_kind_of_failure_has_a_status_of_its_own(tmp_path, shop, user):
    _server, (v1, v2, _) = shop
    refused = [
        (2, ["pull", "no-reference"]),
        (2, ["pull", "Team/Detector:v1"]),
        (2, ["pull", f"{MODEL}:v1", "--hub", "hub.example"]),
        (2, ["push", v1, f"{MODEL}:v9", "--metric", "map"]),
        (2, ["push", v1, MODEL]),
        (2, ["pull", MODEL, "--dry-run", "--quality", "bits=4"]),
        (2, ["pull", MODEL, "team/x", "--follow"]),
        (2, ["push", tmp_path / "nothing", f"{MODEL}:v9"]),
        (2, ["rm", MODEL, "--yes"]),
        (2, ["tag", MODEL, "stable"]),
        (5, ["push", v2, f"{MODEL}:v1"]),
        (5, ["tag", f"{MODEL}:v1", "latest", "--expect", "0" * 64]),
        (6, ["pull", f"{MODEL}:v1", "--token", "limosa_" + "0" * 64]),
        (6, ["whoami", "--token", "nonsense"]),
        (7, ["pull", f"{MODEL}:v99"]),
        (7, ["info", "team/nothing"]),
        (7, ["rm", f"{MODEL}:v99", "--yes"]),
        (7, ["pull", f"{MODEL}@{'0' * 64}"]),
        (8, ["ls", "--hub", "http://127.0.0.1:9"]),
    ]
    for status, command in refused:
        out, errors = user.run(*command, cwd=tmp_path, status=status)
        assert out == ""
        assert len(errors) < 1500
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_without_a_hub(tmp_path):
    nobody = Machine(tmp_path / "home", "", "")
    _, errors = nobody.run("ls", cwd=tmp_path, status=2)
    assert "limosa login URL" in errors


def test_a_bad_file_is_status_1_and_not_pushed(tmp_path, user):
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 100)
    user.run("push", "bad.safetensors", f"{MODEL}:bad", cwd=tmp_path, status=1)
    user.run("info", f"{MODEL}:bad", cwd=tmp_path, status=7)


def test_ctrl_c_is_status_130(tmp_path, shop):
    from hubs import Wire

    server, _ = shop
    with Wire(server.url) as wire:
        wire.hold_after = 0
        user = Machine(tmp_path / "home", wire.url, server.admin_token)
        process = user.start("pull", f"{MODEL}:v1", cwd=tmp_path)
        assert wire.held.wait(PATIENCE_S)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert b"Traceback" not in errors


# Who one is


def test_login_whoami_logout(tmp_path, shop):
    server, _ = shop
    user = Machine(tmp_path / "home", "", "")
    out, _ = user.run("login", server.url + "/", cwd=tmp_path, stdin=server.admin_token.encode())
    assert "admin:*" in out
    assert server.admin_token not in out
    kept = tmp_path / "home" / "hubs.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert user.json("whoami", cwd=tmp_path)["name"] == "admin"
    assert user.json("ls", cwd=tmp_path)[0]["name"] == MODEL
    out, _ = user.run("logout", cwd=tmp_path)
    assert server.url in out
    assert server.admin_token not in kept.read_text()
    user.run("whoami", cwd=tmp_path, status=2)


def test_a_bad_token_is_not_kept(tmp_path, shop):
    server, _ = shop
    user = Machine(tmp_path / "home", "", "")
    user.run("login", server.url, "--token", "limosa_" + "1" * 64, cwd=tmp_path, status=6)
    assert not (tmp_path / "home" / "hubs.json").exists()


def test_the_token_of_one_hub_is_not_shown_to_another(tmp_path, shop):
    import http.server
    import threading

    server, _ = shop
    seen = []

    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(self.headers.get("authorization"))
            self.send_error(404)

        def log_message(self, *rest):
            pass

    other = http.server.HTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    user = Machine(tmp_path / "home", "", "")
    user.run("login", server.url, "--token", server.admin_token, cwd=tmp_path)
    user.run("ls", "--hub", f"http://127.0.0.1:{other.server_port}", cwd=tmp_path, status=8)
    other.shutdown()
    other.server_close()
    assert seen == [None]


# Looking and changing


def test_what_is_listed(tmp_path, shop, user):
    _, (_, _, v3) = shop
    out, _ = user.run("ls", cwd=tmp_path)
    assert MODEL in out
    out, _ = user.run("ls", MODEL, cwd=tmp_path)
    assert re.search(r"v3 +latest", out)
    out, _ = user.run("info", MODEL, "--tensors", cwd=tmp_path)
    assert digest_of(v3) in out
    assert "embed.weight" in out
    assert "600×512" in out
    changes = user.json("diff", f"{MODEL}:v1", f"{MODEL}:v2", cwd=tmp_path)
    assert set(changes["changed"]) <= {"embed.weight", "head.weight", "norm.weight", "norm.bias"}
    assert 0 < changes["nbytes"] < changes["whole_nbytes"]


def test_tags_and_versions_come_and_go(tmp_path, owner):
    v1, v2, _ = line(tmp_path)
    for path in (v1, v2):
        owner.run("push", path, f"{MODEL}:{path.stem}", cwd=tmp_path)
    out, _ = owner.run("tag", f"{MODEL}:v1", "stable", cwd=tmp_path)
    assert "stable is v1" in out
    expect = digest_of(v1)
    owner.run("tag", f"{MODEL}:v2", "stable", "--expect", expect, cwd=tmp_path)
    owner.run("tag", f"{MODEL}:v1", "stable", "--expect", expect, cwd=tmp_path, status=5)
    assert owner.json("info", f"{MODEL}:stable", cwd=tmp_path)["name"] == "v2"
    owner.run("tag", MODEL, "stable", "--delete", cwd=tmp_path)
    owner.run("tag", MODEL, "latest", "--delete", cwd=tmp_path)
    owner.run("rm", f"{MODEL}:v1", cwd=tmp_path, stdin=b"n\n", status=130)
    owner.run("rm", f"{MODEL}:v1", "--yes", cwd=tmp_path)
    owner.run("info", f"{MODEL}:v1", cwd=tmp_path, status=7)
    freed = owner.json("gc", cwd=tmp_path)
    assert freed["nbytes"] >= 0
    found = owner.json("fsck", "--read-data", cwd=tmp_path)
    assert found["problems"] == []
    owner.run("pull", f"{MODEL}:v2", "--whole", "-o", "back.safetensors", cwd=tmp_path)
    assert same(tmp_path / "back.safetensors", v2)


def test_the_cache_lists_verifies_and_prunes(tmp_path, shop, user):
    _, (v1, _, _) = shop
    out = tmp_path / "m.safetensors"
    user.run("pull", f"{MODEL}:v1", "-o", out, cwd=tmp_path)
    (one,) = user.json("cache", "ls", cwd=tmp_path)["held"]
    assert (one["path"], one["reference"]) == (str(out), f"{MODEL}:v1")
    assert one["digest"] == digest_of(v1)
    user.run("cache", "verify", cwd=tmp_path)
    stamp = out.stat()
    data = bytearray(out.read_bytes())
    data[-5] ^= 1
    with out.open("r+b") as file:
        file.write(data)
    os.utime(out, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    printed, _ = user.run("cache", "verify", cwd=tmp_path, status=1)
    assert f"{out} changed" in printed
    assert user.json("cache", "ls", cwd=tmp_path)["held"] == []
    partial = user.home / "cache" / "pulls" / "x"
    partial.mkdir(parents=True)
    (partial / "part").write_bytes(bytes(1000))
    assert user.json("cache", "prune", "--dry-run", cwd=tmp_path)["nbytes"] == 1000
    assert partial.exists()
    assert user.json("cache", "prune", cwd=tmp_path)["nbytes"] == 1000
    assert not partial.exists()
    assert (user.home / "cache" / "CACHEDIR.TAG").exists()


def test_tokens_and_devices(tmp_path, owner):
    (v1,) = line(tmp_path, 1)
    owner.run("push", v1, f"{MODEL}:v1", cwd=tmp_path)
    made = owner.json(
        "hub", "token", "create", "ci", "--scope", "push:team/*", "--days", 1, cwd=tmp_path
    )
    ci = Machine(tmp_path / "ci", owner.url, made["token"])
    assert ci.json("whoami", cwd=tmp_path)["scopes"] == ["push:team/*"]
    ci.run("gc", cwd=tmp_path, status=6)
    listed = owner.json("hub", "token", "ls", cwd=tmp_path)
    assert made["token"] not in json.dumps(listed)
    owner.run("hub", "token", "revoke", made["id"], cwd=tmp_path)
    ci.run("whoami", cwd=tmp_path, status=6)
    for wrong in ("write:team/*", "push", "read:Team/*"):
        _, errors = owner.run(
            "hub", "token", "create", "x", "--scope", wrong, cwd=tmp_path, status=2
        )
        assert all(word in errors for word in (wrong, "ACTION:PATTERN", "read", "push", "admin"))
        assert "^(" not in errors
    _, errors = owner.run("device", "register", "x", "--read", "Team/*", cwd=tmp_path, status=2)
    assert "Team/*" in errors
    assert "^(" not in errors
    made = owner.json("device", "register", "camera-1", "--read", "team/*", cwd=tmp_path)
    camera = Machine(tmp_path / "camera", owner.url, made["token"])
    camera.run("pull", f"{MODEL}:v1", "-o", "m.safetensors", cwd=tmp_path)
    camera.run("push", v1, f"{MODEL}:v2", cwd=tmp_path, status=6)
    (device,) = owner.json("device", "ls", cwd=tmp_path)
    assert (device["name"], device["holds"][0]["repository"]) == ("camera-1", MODEL)
    out, _ = owner.run("device", "ls", cwd=tmp_path)
    assert "camera-1" in out
    assert MODEL in out


def test_a_hub_that_is_full_of_unfinished_uploads_has_room_again(tmp_path, owner):
    with owner.client() as client:
        announced = {
            "version": "v1", "digest": "ab" * 32, "state": "cd" * 32, "base": "", "nbytes": 1000,
            "sha256": "ef" * 32,
        }  # fmt: skip
        upload = client.begin_upload(MODEL, announced)
        headers = {"Upload-Offset": "0", "Authorization": f"Bearer {owner.token}"}
        client.request(
            "PATCH", f"{owner.url}/v1/repos/{MODEL}/uploads/{upload['id']}", content=bytes(900),
            headers=headers,
        )  # fmt: skip
    assert owner.json("gc", cwd=tmp_path)["nbytes"] == 0
    out, _ = owner.run("gc", "--uploads", "--dry-run", cwd=tmp_path)
    assert "1 uploads would go: 900 B" in out
    assert owner.json("gc", "--uploads", cwd=tmp_path)["nbytes"] == 900


def test_what_operators_run(tmp_path, owner):
    v1, v2, v3 = line(tmp_path, rows=100)
    for path in (v1, v2, v3):
        owner.run("push", path, f"{MODEL}:{path.stem}", cwd=tmp_path)
    out, _ = owner.run("hub", "cluster", *(f"{MODEL}:v{n}" for n in (1, 2, 3)), cwd=tmp_path)
    assert "each alone" in out
    found = owner.json("hub", "prebake", MODEL, "--dry-run", cwd=tmp_path)
    assert "edges" in found or isinstance(found, list)


# What is printed


def test_progress_is_drawn_on_a_terminal_only_and_never_on_standard_output(tmp_path, shop, user):
    command = [
        sys.executable,
        "-m",
        "limosa.cli.main",
        "pull",
        f"{MODEL}:v1",
        "-o",
        "m.safetensors",
    ]
    leader, follower = pty.openpty()
    ended = subprocess.run(
        command, cwd=tmp_path, env={**user.env(), "TERM": "xterm"}, stdout=subprocess.PIPE,
        stderr=follower, timeout=PATIENCE_S,
    )  # fmt: skip
    os.close(follower)
    drawn = os.read(leader, 2**16)
    os.close(leader)
    assert ended.returncode == 0
    assert b"\x1b" in drawn
    assert b"\x1b" not in ended.stdout
    out, errors = user.run("pull", f"{MODEL}:v2", "-o", "m.safetensors", cwd=tmp_path)
    assert "\x1b" not in out
    assert errors == ""


def test_a_fallback_is_told_and_is_no_failure(tmp_path, shop, user):
    _, (_, _, v3) = shop
    out = tmp_path / "m.safetensors"
    user.run("pull", f"{MODEL}:v2", "-o", out, cwd=tmp_path)
    stamp = out.stat()
    with out.open("r+b") as file:
        file.seek(-9, os.SEEK_END)
        file.write(b"\x11")
    os.utime(out, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    printed, errors = user.run("pull", f"{MODEL}:v3", "-o", out, cwd=tmp_path)
    assert "the update did not do" in errors
    assert "the whole model" in printed
    assert same(out, v3)


def test_every_command_that_asks_a_hub_prints_json(tmp_path, shop, user):
    _, (v1, _, _) = shop
    for command in (
        ["ls"], ["ls", MODEL], ["info", MODEL], ["plan", MODEL], ["whoami"], ["cache", "ls"],
        ["cache", "verify"], ["device", "ls"], ["hub", "token", "ls"], ["gc", "--dry-run"],
        ["fsck"], ["tag", f"{MODEL}:v3", "latest"], ["push", v1, f"{MODEL}:v1"],
        ["pull", MODEL, "-o", "m.safetensors"],
    ):  # fmt: skip
        assert user.json(*command, cwd=tmp_path) is not None
