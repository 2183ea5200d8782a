"""An output never takes the place of an input, by whatever name it is called."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

import limosa
from limosa.cli.main import group, status_of
from limosa.demo import models
from limosa.errors import ConfigError

V1, V2, V3 = models()


def run(*arguments: object) -> None:
    result = CliRunner().invoke(group, [str(a) for a in arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception


def content(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Models, an update, a file of one, other names of v1, and a sharded model."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(V1, "v1.safetensors")
    shutil.copy(V2, "v2.safetensors")
    limosa.diff(V1, V2, "update.limosa")
    limosa.compress(V1, "v1.limosa")
    os.symlink("v1.safetensors", "link")
    os.link("v1.safetensors", "same")
    Path("mix/deep").mkdir(parents=True)
    shutil.copy(V1, "mix/model.safetensors")
    os.symlink("mix", "other")
    index = {"weight_map": {"w": "v1.safetensors"}}
    Path("model.safetensors.index.json").write_text(json.dumps(index))
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        "compress v1.safetensors -o v1.safetensors --bits 4",
        "compress v1.safetensors -o ./mix/../v1.safetensors",
        "compress v1.safetensors -o link",
        "compress link -o v1.safetensors",
        "compress v1.safetensors -o same",
        "compress v1.safetensors -o v1.safetensors --layers bits=3,lossless",
        "compress v1.safetensors v2.safetensors -o v2.safetensors",
        "compress v2.safetensors --base v1.safetensors -o v1.safetensors",
        "compress mix -o mix/inside.l",
        "compress mix -o mix/deep/inside.l",
        "compress mix -o other/inside.l",
        "compress other -o mix/inside.l",
        "compress model.safetensors.index.json -o v1.safetensors",
        "diff v1.safetensors v2.safetensors -o v2.safetensors",
        "diff v1.safetensors v2.safetensors -o v1.safetensors",
        "diff v1.safetensors v2.safetensors -o link",
        "diff v1.safetensors --adapter mix -o mix/inside.l",
        "apply v1.safetensors update.limosa -o update.limosa",
        "apply mix update.limosa -o mix/inside.safetensors",
        "decompress v1.limosa -o v1.limosa",
        "decompress update.limosa --base v1.safetensors -o v1.safetensors",
        "inspect v1.safetensors --plot v1.safetensors",
        "inspect v1.safetensors --base v2.safetensors --plot v2.safetensors",
        "features cuts --model v1.safetensors --plot v1.safetensors",
        "features send mix --model m --url http://127.0.0.1:1 --answers mix/model.safetensors",
        "features tune --model v1.limosa --at a --data d --max-drop 1 -o v1.limosa",
        "features tune --model v1.limosa --at a --data d --max-drop 1 -o p --csv v1.limosa",
    ],
)
def test_an_output_that_is_an_input_is_refused(here: Path, command: str):
    before = content(here)
    with pytest.raises(ConfigError, match=r"the output (is an|lies in a folder)") as caught:
        run(*command.split())
    assert status_of(caught.value) == 2
    assert caught.value.remedy
    assert content(here) == before


def test_apply_may_replace_its_base(here: Path):
    run("apply", "v1.safetensors", "update.limosa", "-o", "v1.safetensors")
    assert Path("v1.safetensors").read_bytes() == V2.read_bytes()


def test_an_older_output_beside_the_inputs_is_replaced(here: Path):
    Path("mix.limosa").touch()
    run("compress", "mix", "-o", "mix.limosa")
    run("compress", "model.safetensors.index.json", "-o", "index.limosa")
    limosa.decompress("mix.limosa", "back")
    assert Path("back/model.safetensors").read_bytes() == V1.read_bytes()


def test_a_blob_of_a_snapshot_is_an_input(here: Path):
    snapshot, blobs = Path("models--a/snapshots/1"), Path("models--a/blobs")
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    blob = blobs / ("a" * 64)
    shutil.copy(V1, blob)
    (snapshot / "model.safetensors").symlink_to("../../blobs/" + blob.name)
    with pytest.raises(ConfigError, match="the output is an input"):
        run("compress", snapshot, "-o", blob)
    run("compress", snapshot, "-o", "x.limosa")
    assert blob.read_bytes() == V1.read_bytes()


@pytest.mark.parametrize(
    "call",
    [
        lambda: limosa.compress("v1.safetensors", "v1.safetensors"),
        lambda: limosa.compress("v1.safetensors", "v2.safetensors", base="v2.safetensors"),
        lambda: limosa.diff("v1.safetensors", "v2.safetensors", "v2.safetensors"),
        lambda: limosa.diff("v1.safetensors", "v2.safetensors", "v1.safetensors"),
        lambda: limosa.apply("v1.safetensors", "update.limosa", "update.limosa"),
        lambda: limosa.decompress("update.limosa", "v1.safetensors", base="v1.safetensors"),
    ],
)
def test_programs_lose_no_input_either(here: Path, call):
    before = content(here)
    with pytest.raises(ConfigError, match="the output is an input"):
        call()
    assert content(here) == before
