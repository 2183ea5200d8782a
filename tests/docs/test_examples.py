"""Every program in examples/ runs as it stands."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


@pytest.mark.parametrize("program", EXAMPLES, ids=lambda path: path.stem)
def test_example(program: Path):
    done = subprocess.run([sys.executable, program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "bytes" in done.stdout


def test_there_are_examples():
    assert EXAMPLES


def test_the_recipe_of_the_readme(tmp_path: Path):
    """From training to files, with the numbers that the README tells."""
    readme = (EXAMPLES[0].parents[1] / "README.md").read_text(encoding="utf-8")
    folder = tmp_path / "digits"
    shutil.copytree(EXAMPLES[0].parent / "digits", folder)
    for program in ("python digits.py", "limosa optimize recipe.toml -o small --plot"):
        assert f"    {program} " in readme
        words = [sys.executable, *program.split()[1:]]
        if program.startswith("limosa"):
            words = [sys.executable, "-m", "limosa.cli.main", *program.split()[1:], "--json"]
        done = subprocess.run(words, capture_output=True, text=True, cwd=folder)
        assert done.returncode == 0, done.stderr
    start, *_, last = json.loads(done.stdout)["rows"]
    assert last["stage"] == "encode"
    assert last["metric"] >= start["metric"] - 0.5
    assert last["nbytes"] * 40 <= start["raw_nbytes"]
    assert not last["receiver_needs"]
    for name in ("model.safetensors", "model.limosa", "model.onnx", "stages.csv", "stages.png"):
        assert (folder / "small" / name).stat().st_size > 0
