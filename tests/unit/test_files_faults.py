"""What is wrong with the files of a folder is found, and said by the command line."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import limosa
from limosa.cli.main import run
from limosa.errors import CorruptError, LimitError
from limosa.files.faults import find_faults
from limosa.limits import Limits

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sharded model with what usually lies beside it, in the folder ``model``."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "model"
    root.mkdir()
    shards = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    for number, shard in enumerate(shards):
        save_file({f"layer.{number}": np.full(99, number, np.float32)}, root / shard)
    weights = {f"layer.{number}": shard for number, shard in enumerate(shards)}
    (root / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    (root / "config.json").write_text("{}")
    (root / "README.md").write_text("A model. Fetch it with Git LFS.")
    (root / "merges.txt").touch()
    return root


def found(root: Path) -> dict[str, str]:
    return {fault.path: fault.why for fault in find_faults(root)}


def test_a_whole_folder_has_no_faults(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert found(folder) == {}
    assert found(folder / "model.safetensors.index.json") == {}
    assert run(["compress", "model", "-o", "m.limosa"]) == 0
    assert capsys.readouterr().err == ""


def test_a_shard_that_is_missing(folder: Path):
    (folder / "model-00002-of-00003.safetensors").unlink()
    index = "model.safetensors.index.json"
    assert found(folder) == {index: "the shard model-00002-of-00003.safetensors is missing"}
    folder.rename(folder.parent / "moved")
    (folder / "deep").mkdir(parents=True)
    (folder.parent / "moved").rename(folder / "deep" / "unet")
    assert list(found(folder)) == [f"deep/unet/{index}"]


@pytest.mark.parametrize(
    "name", ["model-00002-of-00003.safetensors", "tokenizer.model", "extra.onnx", "config.json"]
)
def test_a_pointer_of_git_lfs(folder: Path, name: str):
    (folder / name).write_text(POINTER)
    assert "Git LFS" in found(folder)[name]
    assert "git lfs pull" in found(folder)[name]


@pytest.mark.parametrize("size", [0, 5, 30, -1])
def test_a_shard_that_is_cut_short(folder: Path, size: int):
    shard = folder / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:size])
    assert found(folder)[shard.name].startswith("truncated: ")
    # Of the index by itself as well: its shards go as they are, too.
    assert found(folder / "model.safetensors.index.json")[shard.name].startswith("truncated: ")


def test_other_files_that_are_no_models(folder: Path):
    (folder / "a.safetensors").write_bytes(limosa.save({"w": np.zeros(9, np.float32)}))
    (folder / "b.bin").touch()
    with zipfile.ZipFile(folder / "c.pt", "w") as archive:
        archive.writestr("data", bytes(999))
    assert "c.pt" not in found(folder)
    (folder / "c.pt").write_bytes((folder / "c.pt").read_bytes()[:-30])
    (folder / "other.safetensors.index.json").write_text("[]")
    assert found(folder) == {
        "a.safetensors": "not a safetensors file; found a .limosa file",
        "b.bin": "the file is empty",
        "c.pt": "truncated: a zip archive without its end",
        "other.safetensors.index.json": "not an index of shards: no weight_map",
    }


def test_the_index_of_a_form_that_was_not_fetched_is_no_fault(folder: Path):
    weights = {"a": "pytorch_model-1.bin", "b": "pytorch_model-2.bin"}
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": weights}))
    assert found(folder) == {}
    (folder / "pytorch_model-1.bin").write_bytes(b"weights")
    assert found(folder) == {index.name: "the shard pytorch_model-2.bin is missing"}


def test_a_folder_without_a_model(tmp_path: Path):
    (tmp_path / "readme.md").write_text("hello")
    assert found(tmp_path) == {"": "no file holds tensors"}
    (tmp_path / "weights.of.another.kind").write_bytes(bytes(2**20 + 1))
    assert found(tmp_path) == {}


def test_a_model_without_tensors(tmp_path: Path):
    save_file({}, tmp_path / "m.safetensors")
    assert found(tmp_path / "m.safetensors") == {"": "the model has no tensors"}


def test_an_index_that_points_out_of_its_folder_opens_nothing(folder: Path):
    index = folder / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "../secret.safetensors"}}')
    with pytest.raises(CorruptError, match="could leave its folder"):
        find_faults(index)


def test_limits_hold(folder: Path):
    with pytest.raises(LimitError):
        find_faults(folder, Limits(max_sources=2))


@pytest.mark.parametrize(
    "command",
    [
        "compress model -o x.limosa",
        "compress model -o x.limosa --digits 2",
        "compress model -o x.limosa --layers step=1,lossless",
        "compress model model/model-00001-of-00003.safetensors -o x.limosa",
        "compress model --base model/model-00001-of-00003.safetensors -o x.limosa",
        "diff model/model-00001-of-00003.safetensors model -o x.limosa",
    ],
)
def test_packing_a_broken_folder_warns(
    folder: Path, command: str, capsys: pytest.CaptureFixture[str]
):
    (folder / "model-00002-of-00003.safetensors").unlink()
    (folder / "model-00003-of-00003.safetensors").write_text(POINTER)
    assert run(command.split()) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("limosa: warning: model: model") for line in lines)
    assert "the shard model-00002-of-00003.safetensors is missing" in lines[0]
    assert "git lfs pull" in lines[1]


def test_many_faults_are_told_in_few_lines(folder: Path, capsys: pytest.CaptureFixture[str]):
    for number in range(30):
        (folder / f"{number}.bin").touch()
    assert run(["compress", "model", "-o", "x.limosa"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 21
    assert lines[-1] == "limosa: warning: … and 10 more"
