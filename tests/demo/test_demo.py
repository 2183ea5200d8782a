"""`limosa demo` does the main job, and its models are what the script in the repository makes."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from limosa.cli import demo
from limosa.demo import models


@pytest.fixture(scope="module")
def shipments(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("demo")
    done = CliRunner().invoke(demo.command, ["--json", "--keep", str(folder)])
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


def test_every_model_arrives_exactly(shipments: list[dict]):
    assert len(shipments) == len(models()) == 3
    assert all(shipment["exact"] for shipment in shipments)


def test_each_shipment_is_smaller_than_the_standard_library_makes_it(shipments: list[dict]):
    for shipment in shipments:
        assert shipment["limosa"] < min(shipment["gzip"], shipment["lzma"], shipment["xor_lzma"])


def test_updates_are_much_smaller_than_models(shipments: list[dict]):
    whole, *updates = (shipment["limosa"] for shipment in shipments)
    assert max(updates) < whole / 2.5


def test_the_table_says_that_all_is_well():
    done = CliRunner().invoke(demo.command)
    assert done.exit_code == 0
    assert "3 of 3" in done.output
    assert "every digest matched" in done.output
    assert max(map(len, done.output.splitlines())) <= 80


def test_a_difference_is_a_failure(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo, "same", lambda one, other: False)
    done = CliRunner().invoke(demo.command)
    assert done.exit_code == 1
    assert "DIFFERENT" in done.output


def test_the_models_are_small_and_of_one_layout():
    sizes = {path.stat().st_size for path in models()}
    assert len(sizes) == 1
    assert 3 * sizes.pop() < 2_000_000


def test_the_script_repeats_itself(tmp_path: Path, repository: Path):
    # Noise for digits and no first training, to take seconds; all else is how the models were made.
    sys.path.insert(0, str(repository / "scripts"))
    try:
        maker = importlib.import_module("make_demo_models")
    finally:
        sys.path.pop(0)
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.normal(size=(5000, 1, 28, 28)).astype(np.float32))
    labels = torch.from_numpy(random.integers(0, 10, 5000))
    runs = []
    threads = torch.get_num_threads()
    try:
        for name in ("one", "two"):
            folder = tmp_path / name
            folder.mkdir()
            maker.make(folder, images, labels, epochs=0)
            runs.append([(path.name, path.read_bytes()) for path in sorted(folder.iterdir())])
    finally:  # the maker's settings are of the whole process
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(threads)
    assert runs[0] == runs[1]
    # The shipped models have the very layout of these: names, dtypes, shapes and order.
    assert [(path.name, layout(path.read_bytes())) for path in models()] == [
        (name, layout(data)) for name, data in runs[0]
    ]


def layout(data: bytes) -> bytes:
    return data[: 8 + int.from_bytes(data[:8], "little")]
