"""``limosa pull`` as a user runs it: what excludes each other, and pipes."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

pytest.importorskip("fastapi")

from hubs import Machine, digest_of, line, running_hub

from limosa.errors import ConfigError
from limosa.exchange.held import Inventory

MODEL = "team/detector"


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A hub with v1 in two layers, v2, and a folder with v1 in it; tests only read from it."""
    folder = tmp_path_factory.mktemp("shop")
    with running_hub(folder / "hub") as server:
        author = Machine(folder / "author", server.url, server.admin_token)
        v1, v2 = line(folder, 2)
        author.run("push", v1, f"{MODEL}:v1", "--layers", "bits=3,lossless", cwd=folder)
        author.push(v2, f"{MODEL}:v2")
        (folder / "several").mkdir()
        (folder / "several" / "m.safetensors").write_bytes(v1.read_bytes())
        author.push(folder / "several", "team/several:v1")
        yield server, (v1, v2)


@pytest.fixture
def user(tmp_path, shop):
    server, _ = shop
    return Machine(tmp_path / "home", server.url, server.admin_token)


def piped(user: Machine, cwd, *arguments: object, status: int = 0) -> tuple[bytes, str]:
    """Bytes on standard output, and what was said."""
    process = user.start(*arguments, cwd=cwd)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == status, errors
    return out, errors.decode()


def test_a_lossy_copy_has_no_layers(tmp_path, user):
    pull = ["pull", f"{MODEL}:v1", "-o", "x"]
    for one in (["--quality", "bits=4"], ["--layers", "1"]):
        _, errors = user.run(*pull, *one, "--tensor", "w", cwd=tmp_path, status=2)
        assert "--tensor goes with neither" in errors
    _, errors = user.run(*pull, "--quality", "bits=4", "--layers", 1, cwd=tmp_path, status=2)
    assert "exclude each other" in errors
    # By another client it is named by its digest.
    with user.client() as client:
        copy = client.copy(MODEL, "v2", "bits=4")
        with pytest.raises(ConfigError) as caught:
            client.plan(MODEL, f"@{copy['digest']}", layer=1)
    assert f"{MODEL}@{copy['digest']}" in str(caught.value)


def test_a_model_goes_through_a_pipe(tmp_path, shop, user):
    _, (v1, v2) = shop
    out, errors = piped(user, tmp_path, "pull", f"{MODEL}:v2", "-o", "-")
    assert out == v2.read_bytes()
    assert f"standard output is {MODEL}:v2: the whole model" in errors
    # From what is held as well, by an update, and without a network.
    held = tmp_path / "held.safetensors"
    user.pull(f"{MODEL}:v1", held)
    out, errors = piped(user, tmp_path, "pull", f"{MODEL}:v2", "-o", "-")
    assert (out, "an update" in errors) == (v2.read_bytes(), True)
    user.environment["LIMOSA_OFFLINE"] = "1"
    out, errors = piped(user, tmp_path, "pull", f"{MODEL}:v1", "-o", "-")
    assert (out, "copied" in errors) == (v1.read_bytes(), True)
    # Nothing of it stays.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["held.safetensors", "home"]
    assert list((user.places.make_cache() / "pulls").iterdir()) == []
    (one,) = Inventory(user.places.make_cache()).all()
    assert (one.path, one.digest) == (str(held), digest_of(v1))


def test_what_does_not_go_through_a_pipe(tmp_path, user):
    _, errors = piped(user, tmp_path, "pull", "team/several:v1", "-o", "-", status=2)
    assert "several files" in errors
    for more in (["--json"], ["--follow"], ["--tensor", "w"], ["--dry-run"], [f"{MODEL}:v2"]):
        out, errors = piped(user, tmp_path, "pull", f"{MODEL}:v1", "-o", "-", *more, status=2)
        assert (out, "-o - takes one version" in errors) == (b"", True)


def test_a_model_is_not_written_to_a_terminal(tmp_path, user):
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "limosa.cli.main", "pull", f"{MODEL}:v1", "-o", "-"]
    ended = subprocess.run(
        command, cwd=tmp_path, env=user.env(), stdout=follower, stderr=subprocess.PIPE, timeout=60
    )
    os.close(follower)
    os.close(leader)
    assert ended.returncode == 2
    assert b"terminal" in ended.stderr
