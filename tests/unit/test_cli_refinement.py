"""Refinements on the command line: without torch, in the form of the base's files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from refined import small_update
from refinements import NUMBER, arrays, base_of
from safetensors.numpy import load_file, save_file

import limosa
from limosa.codec.refinement.records import Change, Difference, Levels
from limosa.codec.refinement.write import write_refinement
from limosa.torch import save_file as save_torch


def run(*arguments: object, cwd: Path, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "limosa.cli.main", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, timeout=120, **options)


def done(*arguments: object, cwd: Path, **options) -> str:
    result = run(*arguments, cwd=cwd, **options)
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout.decode()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A base as safetensors with metadata, as .limosa and as npz; and an update."""
    base, update = small_update()
    held = {name: tensor.numpy() for name, tensor in base.items()}
    save_file(held, tmp_path / "v1.safetensors", metadata={"licence": "MIT"})
    save_torch(base, tmp_path / "v1.limosa")
    np.savez(tmp_path / "v1.npz", **held)
    (tmp_path / "v2.update").write_bytes(update)
    return tmp_path


def test_apply_gives_a_file_of_the_base_s_form(files: Path):
    done("apply", "v1.safetensors", "v2.update", "-o", "v2.safetensors", cwd=files)
    new, old = load_file(files / "v2.safetensors"), load_file(files / "v1.safetensors")
    assert list(new) == list(old)
    assert not np.array_equal(new["0.weight"], old["0.weight"])
    head = (files / "v2.safetensors").read_bytes()[:200]
    assert head == (files / "v1.safetensors").read_bytes()[:200]  # metadata included
    done("apply", "v1.npz", "v2.update", "-o", "v2.npz", cwd=files)
    with np.load(files / "v2.npz") as npz:
        assert all(np.array_equal(npz[name], new[name]) for name in new)
    done("apply", "v1.limosa", "v2.update", "-o", "again.safetensors", cwd=files)
    assert all(
        np.array_equal(array, new[name])
        for name, array in load_file(files / "again.safetensors").items()
    )


def test_apply_needs_no_torch(files: Path):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import limosa\n"
        "limosa.apply('v1.safetensors', 'v2.update', 'v2.safetensors')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=files, check=True, timeout=60)
    assert (files / "v2.safetensors").exists()


def test_apply_from_a_pipe(files: Path):
    update = (files / "v2.update").read_bytes()
    done("apply", "v1.safetensors", "-", "-o", "v2.safetensors", cwd=files, input=update)
    assert (files / "v2.safetensors").exists()
    cut = run("apply", "v1.safetensors", "-", "-o", "v3", cwd=files, input=update[:-5])
    assert cut.returncode == 1
    assert not (files / "v3").exists()


def test_another_base_is_refused_before_anything_is_written(files: Path):
    save_file({"w": np.zeros(3, "f4")}, files / "other.safetensors")
    result = run("apply", "other.safetensors", "v2.update", "-o", "v2", cwd=files)
    assert result.returncode == 3
    assert b"not the base" in result.stderr
    assert not (files / "v2").exists()
    assert run("decompress", "v2.update", "-o", "v2", cwd=files).returncode == 3


def test_verify(files: Path):
    digest = done("verify", "v2.update", "--base", "v1.safetensors", "--json", cwd=files)
    assert len(json.loads(digest)["digest"]) == 64
    assert run("verify", "v2.update", cwd=files).returncode == 3
    update = bytearray((files / "v2.update").read_bytes())
    update[-1] ^= 1
    (files / "bad.update").write_bytes(update)
    assert run("verify", "bad.update", "--base", "v1.safetensors", cwd=files).returncode == 1


def test_inspect_tells_ranks_layers_and_bytes(files: Path):
    told = done("inspect", "v2.update", cwd=files)
    assert "pass --base" in told
    told = done("inspect", "v2.update", "--base", "v1.safetensors", cwd=files)
    assert "0.weight" in told
    assert "rank 1" in told
    plain = json.loads(
        done("inspect", "v2.update", "--base", "v1.safetensors", "--json", cwd=files)
    )["models"][0]
    assert plain["bytes"] == (files / "v2.update").stat().st_size
    changed = {change["name"]: change for change in plain["changes"]}
    assert changed["0.weight"]["detail"] == "singular values, rank 1"
    assert abs(sum(change["bytes"] for change in changed.values()) - plain["bytes"]) < 20
    other = run("inspect", "v2.update", "--base", "v2.update", cwd=files)
    assert other.returncode == 2
    assert b"no model to start from" in other.stderr


def test_what_cannot_be_kept_in_memory_is_refused_first(tmp_path: Path):
    moved = Levels(np.ones(48, np.int32), 0.5)
    change = Change(NUMBER["a"], Difference(), (moved,))
    data = write_refinement(base_of(), [change], threads=1).data
    with pytest.raises(limosa.LimitError):
        limosa.load(data, base=arrays(), limits=limosa.Limits(max_elements=40))
    with pytest.raises(limosa.LimitError):
        limosa.load(data, base=arrays(), limits=limosa.Limits(max_header_bytes=10))
    with pytest.raises(limosa.ConfigError, match="no layers"):
        limosa.load(data, base=arrays(), layers=1)
