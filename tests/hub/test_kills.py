"""Commands killed at moments that nobody chose: in the end all is as if nothing had happened."""

from __future__ import annotations

import random
import signal
import subprocess
import time

import pytest

pytest.importorskip("fastapi")

from hubs import Machine, leftovers, line, running_hub, same

MODEL = "team/detector"
_KILLS = 6


def killed(process: subprocess.Popen, seconds: float) -> bool:
    """Kill a command after a while; whether it was still at it."""
    time.sleep(seconds)
    alive = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return alive


def how_long(start) -> float:
    """Seconds that a command takes when nobody kills it."""
    begin = time.monotonic()
    process = start()
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return time.monotonic() - begin


def test_pulls_that_are_killed_leave_the_old_model_or_the_new_one(tmp_path):
    chance = random.Random(1)
    with running_hub(tmp_path / "hub") as server:
        author = Machine(tmp_path / "author", server.url, server.admin_token)
        versions = line(tmp_path, 2, rows=3000)
        for path in versions:
            author.push(path, f"{MODEL}:{path.stem}")
        room = tmp_path / "room"
        room.mkdir()
        out = room / "m.safetensors"
        device = Machine(tmp_path / "device", server.url, server.admin_token)

        def start(name):
            return device.start("pull", f"{MODEL}:{name}", "-o", out, cwd=room)

        usual = how_long(lambda: start("v1"))
        at_work = 0
        for _ in range(_KILLS):
            at_work += killed(start(chance.choice(["v1", "v2"])), chance.uniform(0.3, 1.0) * usual)
            assert any(same(out, version) for version in versions)
        assert at_work
        for version in reversed(versions):
            device.run("pull", f"{MODEL}:{version.stem}", "-o", out, cwd=room)
            assert same(out, version)
        assert leftovers(room) == []
        # One that was killed between its last two steps may leave what it had fetched, once.
        pulls = device.home / "cache" / "pulls"
        assert len(list(pulls.iterdir())) <= len(versions)
        device.run("cache", "prune", cwd=room)
        assert not pulls.exists() or list(pulls.iterdir()) == []


def test_pushes_that_are_killed_leave_no_version_or_the_whole_one(tmp_path):
    chance = random.Random(1)
    with running_hub(tmp_path / "hub") as server:
        author = Machine(tmp_path / "author", server.url, server.admin_token)
        versions = line(tmp_path, 3, rows=3000)

        def start(path):
            return author.start("push", path, f"{MODEL}:{path.stem}", cwd=tmp_path)

        usual = how_long(lambda: start(versions[0]))
        for path in versions[1:]:
            for _ in range(_KILLS // 2):
                killed(start(path), chance.uniform(0.3, 1.0) * usual)
            author.run("push", path, f"{MODEL}:{path.stem}", cwd=tmp_path)
        assert author.json("fsck", "--read-data", cwd=tmp_path)["problems"] == []
        device = Machine(tmp_path / "device", server.url, server.admin_token)
        for path in versions:
            device.pull(f"{MODEL}:{path.stem}", tmp_path / "out.safetensors")
            assert same(tmp_path / "out.safetensors", path)
        assert list((author.home / "cache" / "uploads").iterdir()) == []
