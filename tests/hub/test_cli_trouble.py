"""The commands that talk to a hub, where something is not as it should be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi")

import httpx
from hubs import Machine, line, running_hub, save

from limosa.hub.connection import unreachable

MODEL = "team/detector"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with running_hub(tmp_path_factory.mktemp("hub")) as server:
        yield server


@pytest.fixture
def user(tmp_path: Path, hub) -> Machine:
    return Machine(tmp_path / "home", hub.url, hub.admin_token)


# Models that are not whole


def test_a_broken_folder_is_no_version_unless_told(tmp_path: Path, user: Machine):
    folder = tmp_path / "model"
    folder.mkdir()
    save(folder / "a.safetensors", {"w": np.zeros(99, np.float32)})
    (folder / "b.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid x\n")
    _, errors = user.run("push", folder, "team/broken:v1", cwd=tmp_path, status=1)
    assert "b.safetensors: a pointer of Git LFS" in errors
    assert "--as-is" in errors
    user.run("info", "team/broken:v1", cwd=tmp_path, status=7)
    _, errors = user.run("push", folder, "team/broken:v1", "--as-is", cwd=tmp_path)
    assert "warning: " in errors
    user.run("pull", "team/broken:v1", "-o", "back", cwd=tmp_path)
    assert (tmp_path / "back" / "b.safetensors").read_text() == (
        folder / "b.safetensors"
    ).read_text()


def test_a_folder_without_a_model_is_refused(tmp_path: Path, user: Machine):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.md").write_text("hello")
    _, errors = user.run("push", "notes", "team/notes:v1", cwd=tmp_path, status=1)
    assert "no file holds tensors" in errors


# Tokens that are none


@pytest.mark.parametrize("token", ["ünï", "limosa_é", "two words", "a\nb", "limosa_0\x7f"])
def test_a_token_that_cannot_be_one_is_told_and_not_shown(
    tmp_path: Path, user: Machine, token: str
):
    user.token = token
    for command in (["ls"], ["pull", f"{MODEL}:v1", "--follow"]):
        out, errors = user.run(*command, cwd=tmp_path, status=6)
        assert out == ""
        assert "this cannot be a token" in errors
        assert token not in errors
        assert "limosa_" not in errors


def test_space_around_a_token_is_left_out(tmp_path: Path, user: Machine):
    user.token = f" {user.token}\r\n"
    assert user.json("whoami", cwd=tmp_path)["name"] == "admin"


def test_a_header_is_not_shown_by_whoever_refuses_it():
    error = unreachable(
        "http://hub/v1", httpx.LocalProtocolError("Illegal header value b'Bearer limosa_1'")
    )
    assert "Bearer" not in str(error)
    assert "LocalProtocolError" in str(error)


def test_an_empty_token_is_not_kept(tmp_path: Path, user: Machine):
    nobody = Machine(tmp_path / "home", "", "")
    nobody.run("login", user.url, cwd=tmp_path, stdin=user.token.encode())
    kept = (tmp_path / "home" / "hubs.json").read_text()
    for stdin, arguments in ((b"", []), (b" \r\n", []), (b"", ["--token", " "])):
        out, errors = nobody.run("login", user.url, *arguments, cwd=tmp_path, stdin=stdin, status=2)
        assert out == ""
        assert "The token is empty" in errors
    assert (tmp_path / "home" / "hubs.json").read_text() == kept


# Questions that nobody answers


def test_rm_without_anybody_to_ask(tmp_path: Path, user: Machine):
    (v1,) = line(tmp_path, count=1)
    user.run("push", v1, "team/gone:v1", "--no-latest", cwd=tmp_path)
    _, errors = user.run("rm", "team/gone:v1", cwd=tmp_path, stdin=b"", status=2)
    assert "--yes" in errors
    user.run("rm", "team/gone:v1", cwd=tmp_path, stdin=b"n\n", status=130)
    user.run("info", "team/gone:v1", cwd=tmp_path)
    user.run("rm", "team/gone:v1", cwd=tmp_path, stdin=b"y\n")
    user.run("info", "team/gone:v1", cwd=tmp_path, status=7)
