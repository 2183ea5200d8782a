"""`limosa demo` does the main job, and its models are what the script in the repository makes."""

import importlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from limosa.cli import demo, demo_hub
from limosa.demo import models
from limosa.errors import ConfigError
from limosa.exchange.hub_server import HubServer
from limosa.hub.server.settings import HubSettings

#: A Python in which the extra `hub` is not installed.
WITHOUT_HUB = """
import sys
sys.modules["uvicorn"] = sys.modules["httpx"] = None
from limosa.cli.main import run
sys.exit(run(["demo", *sys.argv[1:]]))
"""


def without_hub(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", WITHOUT_HUB, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


# With a hub: figure 3 of the first paper


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    folder = tmp_path_factory.mktemp("demo")
    done = CliRunner().invoke(demo.command, ["--json", "--keep", str(folder)])
    assert done.exit_code == 0, done.output
    return folder, json.loads(done.stdout)


def test_every_leg_arrives_exactly(kept: tuple[Path, list[dict]]):
    folder, legs = kept
    assert [(leg["sender"], leg["receiver"], leg["what"]) for leg in legs] == [
        ("sender", "hub", "V1"),
        ("sender", "hub", "V2 - V1"),
        ("sender", "hub", "V3 - V2"),
        ("hub", "receiver", "V3 - V1"),
    ]
    assert all(leg["exact"] for leg in legs)
    received = folder / "receiver" / "model.safetensors"
    assert received.read_bytes() == models()[2].read_bytes()


def test_the_bytes_of_a_leg_are_those_that_the_hub_counts(kept: tuple[Path, list[dict]]):
    folder, legs = kept
    with HubServer(HubSettings(folder / "hub")) as server:
        edges = server.hub.store.graph.edges("demo/digits")
        assert server.hub.store.accounts.devices()[0].name == "receiver"
    stored = sorted(edge.nbytes for edge in edges)
    assert stored == sorted(leg["travelled"] for leg in legs)
    assert [edge.kind for edge in edges if edge.nbytes == legs[-1]["travelled"]] == ["made"]


def test_updates_are_smaller_than_all_other_ways(kept: tuple[Path, list[dict]]):
    first, *updates = kept[1]
    assert first["travelled"] == first["whole"] < min(first["gzip"], first["lzma"])
    for leg in updates:
        assert leg["travelled"] < leg["whole"] / 2.5
        assert leg["whole"] < leg["lzma"] < leg["raw"]


def test_a_second_demo_needs_a_folder_of_its_own(kept: tuple[Path, list[dict]]):
    with pytest.raises(ConfigError, match="has a hub already"):
        CliRunner().invoke(demo.command, ["--keep", str(kept[0])], catch_exceptions=False)


def test_the_table_of_legs_fits_a_terminal_and_says_that_all_is_well():
    done = CliRunner().invoke(demo.command)
    assert done.exit_code == 0, done.output
    assert "every digest matched" in done.output
    assert re.search(r"page was http://127\.0\.0\.1:\d+/r/demo/digits", done.output)
    assert "limosa_" not in done.output  # a hub that has ended has no use for its token
    assert max(map(len, done.output.splitlines())) <= 80
    assert "…" not in done.output


def test_a_leg_that_arrives_different_is_a_failure(monkeypatch: pytest.MonkeyPatch):
    real = demo_hub.pull

    def damaging(client, reference, place, **more):
        result = real(client, reference, place, **more)
        place.write_bytes(models()[1].read_bytes())
        return result

    monkeypatch.setattr(demo_hub, "pull", damaging)
    done = CliRunner().invoke(demo.command)
    assert done.exit_code == 1
    assert "DIFFERENT" in done.output


def test_it_serves_until_ctrl_c_and_shows_its_page():
    command = [sys.executable, "-m", "limosa.cli.main", "demo", "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        try:
            lines = list(until(running.stdout, "until Ctrl-C"))
            output = "".join(lines)
            page = re.search(r"Ctrl-C: (\S+)", output)[1]
            token = re.search(r"limosa_[0-9a-f]+", output)[0]
            shown = httpx.get(page, cookies={"limosa_token": token})
            assert shown.status_code == 200
            assert "demo/digits" in shown.text
        finally:
            running.send_signal(signal.SIGINT)
        assert running.wait(60) == 0


def until(lines: Iterable[str], text: str) -> Iterator[str]:
    for line in lines:
        yield line
        if text in line:
            return


# Without the extra: files


@pytest.fixture(scope="module")
def shipments(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    done = without_hub("--json", "--keep", str(tmp_path_factory.mktemp("demo")))
    assert done.returncode == 0, done.stderr
    assert 'pip install "limosa[hub]"' in done.stderr
    return json.loads(done.stdout)


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
    done = without_hub()
    assert done.returncode == 0
    assert "3 of 3" in done.stdout
    assert "every digest matched" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_a_difference_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(demo, "same", lambda one, other: False)
    assert not demo.with_files(tmp_path, as_json=False)
    assert "DIFFERENT" in capsys.readouterr().out


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
