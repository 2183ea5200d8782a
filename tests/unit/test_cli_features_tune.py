"""``limosa features cuts`` and ``tune``, run as a user runs them."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from limosa import load_profile

pytest.importorskip("torch")

MODULE = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(100, 5)
    )

def batches():
    torch.manual_seed(1)
    return [torch.randn(4, 3, 16, 16) for _ in range(2)]

labelled = [(torch.randn(8, 3, 16, 16), torch.randint(5, (8,)))]

number = 3
one_tensor = torch.zeros(())
words = ["a", "b"]
named = [{"inputs": torch.zeros(4, 3, 16, 16)}]

def loudness(outputs, labels):
    return -float(sum(output.abs().sum() for output in outputs))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("shop")
    (path / "shop.py").write_text(MODULE)
    return path


def limosa(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "limosa.cli.main", "features", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_cuts_are_listed_and_drawn(folder: Path):
    model = ["--model", "shop:network", "--input", "1x3x16x16"]
    done = limosa(folder, "cuts", *model, "--coded", "--plot", "cuts.png")
    assert done.returncode == 0, done.stderr
    assert (folder / "cuts.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads(limosa(folder, "cuts", *model, "--json").stdout)["cuts"]
    assert len(found) >= 4
    assert all(cut["name"] in done.stdout for cut in found)
    for wrong in (["--input", "1x3xq"], ["--input", "0x3"]):
        assert limosa(folder, "cuts", "--model", "shop:network", *wrong).returncode == 2
    missing = limosa(folder, "cuts", "--model", "shop:nothing")
    assert missing.returncode == 2
    assert "shop:nothing" in missing.stderr


def test_tuning_writes_profile_curve_and_picture(folder: Path):
    given = ["tune", "--model", "shop:network", "--at", "1", "--data", "shop:batches"]
    files = ["-o", "cut.profile", "--csv", "curve.csv", "--plot", "curve.png"]
    done = limosa(folder, *given, "--max-drop", "0.01", *files)
    assert done.returncode == 0, done.stderr
    assert "bits an element" in done.stdout
    (channels,) = load_profile(folder / "cut.profile").channels.values()
    assert channels.order.size == 8
    rows = list(csv.DictReader((folder / "curve.csv").open()))
    bits = [float(row["bits_per_element"]) for row in rows]
    assert bits == sorted(bits, reverse=True)
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_tuning_by_labels_or_a_metric_of_the_user_s(folder: Path):
    given = ["tune", "--model", "shop:network", "--at", "1", "-o", "other.profile", "--json"]
    labels = limosa(folder, *given, "--data", "shop:labelled", "--max-drop", "20")
    assert labels.returncode == 0, labels.stderr
    assert json.loads(labels.stdout)["drop"] <= 20
    metric = ["--metric", "shop:loudness", "--max-drop", "2"]
    assert limosa(folder, *given, "--data", "shop:batches", *metric).returncode == 0


def test_what_cannot_be_tuned_leaves_nothing(folder: Path):
    given = ["tune", "--model", "shop:network", "--data", "shop:batches", "-o", "none.profile"]
    for wrong, word in (
        (["--at", "nowhere", "--max-drop", "1"], "nowhere"),
        (["--at", "1", "--max-drop", "-1"], "no step is fine enough"),
    ):
        done = limosa(folder, *given, *wrong)
        assert done.returncode == 2
        assert word in done.stderr
        assert not (folder / "none.profile").exists()
    to_stream = limosa(folder, *given[:-1], "-", "--at", "1", "--max-drop", "1")
    assert to_stream.returncode == 2


@pytest.mark.parametrize(
    ("data", "word"),
    [
        ("shop:network", "a Sequential"),
        ("shop:loudness", "missing a required argument"),
        ("shop:number", "a int"),
        ("shop:one_tensor", "a Tensor"),
        ("shop:words", "batch 0"),
        ("shop:named", "a dict"),
        ("shop:nothing", "shop:nothing"),
    ],
)
def test_data_that_are_no_batches_are_told(folder: Path, data: str, word: str):
    given = ["tune", "--model", "shop:network", "--at", "1", "--max-drop", "1", "-o", "no.profile"]
    done = limosa(folder, *given, "--data", data)
    assert done.returncode == 2, done.stderr
    assert word in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (folder / "no.profile").exists()


def test_a_pt2_file_that_is_none_is_told_in_one_line(folder: Path):
    import torch

    torch.save({"w": torch.zeros(3)}, folder / "state.pt2")
    (folder / "other.pt2").write_text("version https://git-lfs.github.com/spec/v1\noid x\n")
    (folder / "random.pt2").write_bytes(bytes(range(200)))
    for name, word in (
        ("missing.pt2", "no such file"),
        ("other.pt2", "Git LFS"),
        ("random.pt2", "no zip archive"),
        ("state.pt2", "torch.export cannot load this"),
    ):
        done = limosa(folder, "cuts", "--model", name)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert word in done.stderr
