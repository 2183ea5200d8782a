"""What the command line says of files that are damaged or stand in the wrong place."""

from __future__ import annotations

import contextlib
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import limosa
from limosa.cli.main import run
from limosa.cli.remote import table
from limosa.demo import models

V1, V2, _ = models()
Refused = Callable[..., str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that is worked in, with models, an update and a file of v1."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(V1, "v1.safetensors")
    shutil.copy(V2, "v2.safetensors")
    limosa.diff(V1, V2, "update.limosa")
    limosa.compress(V1, "v1.limosa")
    return tmp_path


@pytest.fixture
def refused(here: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """The message of a command that must end with a status and leave nothing behind."""

    def refused(status: int, command: str) -> str:
        before = sorted(here.rglob("*"))
        assert run(command.split()) == status
        told = capsys.readouterr()
        assert told.out == ""
        assert sorted(here.rglob("*")) == before
        return told.err

    return refused


@pytest.mark.parametrize("damage", ["cut", "flipped"])
@pytest.mark.parametrize(
    "command",
    [
        "verify bad.limosa",
        "decompress bad.limosa -o x",
        "apply v1.safetensors bad.limosa -o x",
        "decompress update.limosa --base bad.limosa -o x",
        "verify update.limosa --base bad.limosa",
        "diff bad.limosa v2.safetensors -o x",
    ],
)
def test_a_message_names_the_damaged_file(refused: Refused, command: str, damage: str):
    good = "update.limosa" if command.startswith("apply") else "v1.limosa"
    data = bytearray(Path(good).read_bytes())
    data[len(data) // 2] ^= 1
    Path("bad.limosa").write_bytes(data[: len(data) // 2] if damage == "cut" else data)
    message = refused(1, command)
    assert message.startswith("limosa: bad.limosa: ")
    assert message.count(".limosa: ") == 1


def test_inspect_names_the_damaged_file(refused: Refused, here: Path):
    Path("bad.limosa").write_bytes(Path("v1.limosa").read_bytes()[:-1])
    assert refused(1, "inspect bad.limosa").startswith("limosa: bad.limosa: ")


def test_swapped_arguments_of_apply_are_told(refused: Refused, here: Path):
    message = refused(2, "apply update.limosa v1.safetensors -o x")
    assert "v1.safetensors: this is a safetensors model" in message
    assert "BASE and then UPDATE" in message
    assert "a folder" in refused(2, "apply v1.safetensors . -o ../x")


def test_a_message_says_what_stands_in_place_of_a_limosa_file(refused: Refused, here: Path):
    Path("m.limosa").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "git lfs pull" in refused(1, "verify m.limosa")
    assert "a safetensors model" in refused(1, "verify v1.safetensors")


# Tables: what reads a pipe looks for whole names


def test_a_table_in_a_pipe_is_not_wrapped(capsys: pytest.CaptureFixture[str]):
    path = "/srv/models/" + "a-folder-of-a-long-name/" * 8 + "model.safetensors"
    time = "2026-11-27 23:01:32"
    rows = [[path, "team/detector:v1", "1 B", "0" * 64, time], ["b", "c", "2 B", "d", time]]
    table(["model", "is", "size", "digest", "at"], rows, right=(2,))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert [line.split()[0] for line in lines if line.endswith(time)] == [path, "b"]
    # As wide as what is in it, and no wider.
    assert max(map(len, lines)) < len(path) + 150


def test_inspect_in_a_pipe_is_not_wrapped(here: Path, capsys: pytest.CaptureFixture[str]):
    name = "model.layers.17." + "block." * 30 + "weight"
    Path("m.limosa").write_bytes(limosa.save({name: np.zeros((9, 9), np.float32)}))
    assert run(["inspect", "m.limosa"]) == 0
    assert sum(name in line for line in capsys.readouterr().out.splitlines()) == 1


def test_a_terminal_has_a_width(here: Path):
    save = {"layer." * 30 + "weight": np.zeros((9, 9), np.float32)}
    Path("m.limosa").write_bytes(limosa.save(save))
    keeper, side = pty.openpty()
    command = [sys.executable, "-m", "limosa.cli.main", "inspect", "m.limosa"]
    environment = {**os.environ, "COLUMNS": "80", "TERM": "dumb"}
    subprocess.run(command, stdout=side, check=True, env=environment, timeout=120)
    os.close(side)
    shown = b""
    with contextlib.suppress(OSError):  # the end of what a terminal has
        while piece := os.read(keeper, 2**16):
            shown += piece
    os.close(keeper)
    # The first line is the name of the file, the digest is 64 digits and a word.
    assert max(map(len, shown.decode().split("\r\n"))) <= 80


# What is standard input, and what cannot be


@pytest.mark.parametrize(
    "command", ["inspect -", "apply - update.limosa -o x", "compress v1.safetensors --base - -o x"]
)
def test_what_is_read_twice_says_why_it_is_no_stream(refused: Refused, command: str):
    assert "read more than once" in refused(2, command)


@pytest.mark.parametrize(
    ("command", "given"),
    [
        ("compress - -o x", "v1.safetensors"),
        ("decompress - -o x", "v1.limosa"),
        ("diff v1.safetensors - -o x", "v2.safetensors"),
        ("apply v1.safetensors - -o x", "update.limosa"),
        ("verify -", "v1.limosa"),
        ("compress v1.safetensors -o -", None),
        ("decompress v1.limosa -o -", None),
        ("diff v1.safetensors v2.safetensors -o -", None),
        ("apply v1.safetensors update.limosa -o -", None),
    ],
)
def test_every_stream_that_the_guide_names(here: Path, command: str, given: str | None):
    line = [sys.executable, "-m", "limosa.cli.main", *command.split()]
    data = b"" if given is None else Path(given).read_bytes()
    done = subprocess.run(line, input=data, capture_output=True, check=True, timeout=120)
    assert Path("x").exists() or done.stdout
