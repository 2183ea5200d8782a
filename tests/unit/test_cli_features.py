"""``limosa features``, run as a user runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")
pillow = pytest.importorskip("PIL.Image")

from limosa.cli.features import COMMANDS  # noqa: E402
from limosa.cli.features import command as group  # noqa: E402
from limosa.errors import ConfigError, CorruptError  # noqa: E402
from limosa.exchange.frames import frames, images_in, picture_bytes  # noqa: E402

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "guide" / "cli.md"
LIMOSA = [sys.executable, "-m", "limosa.cli.main", "features"]
MODULE = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(2))

def find(x):
    return {"vector": x.mean((2, 3))}
"""
TASKS = ["--task", "map=tail", "--task", "find=toy:find"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("features")
    (path / "toy.py").write_text(MODULE)
    (path / "photos").mkdir()
    y, x = np.mgrid[:48, :64]
    for number in range(4):
        pixels = np.stack([x * 3 + number, y * 4, x + y], -1).astype(np.uint8)
        pillow.fromarray(pixels).save(path / "photos" / f"{number}.png")
    return path


@pytest.fixture(scope="module")
def url(folder):
    """A service in a process of its own; ends by SIGTERM, and well."""
    arguments = ["serve", "--model", "toy:make", "--at", "1", "--port", "0", *TASKS]
    command = [*LIMOSA, *arguments, "--limit", "max_tensors=3", "--threads", "1"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as server:
        for line in server.stderr:
            event = json.loads(line)
            if event["event"] == "listening":
                break
        yield event["url"]
        server.send_signal(signal.SIGTERM)
        rest = server.stderr.read()
        assert server.wait(20) == 0, rest
        events = [json.loads(line)["event"] for line in rest.splitlines()]
        assert events[-1] == "stopped"


def run(folder, *arguments, status=0):
    done = subprocess.run(
        [*LIMOSA, *map(str, arguments)], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if status == 0 else done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_subcommand_is_in_the_guide(name):
    command = group.get_command(None, name)
    guide = DOCS.read_text("utf-8")
    assert command.get_short_help_str(limit=99) == COMMANDS[name]
    section = re.search(rf"\n### features {name}\n(.*?)(\n##|\Z)", guide, re.DOTALL)[1]
    for parameter in command.params:
        if parameter.param_type_name == "option":
            assert parameter.help, parameter.name
            assert max(parameter.opts, key=len) in section or "-o" in parameter.opts


def test_a_folder_is_sent(folder, url):
    out = folder / "answers.jsonl"
    options = ["--model", "toy:make", "--url", url, "--size", 32, "--step", 0.1]
    found = json.loads(run(folder, "send", "photos", *options, "--answers", out, "--json"))
    assert found["frames"] == 4
    assert found["bits_per_element"] == 8 * found["bytes"] / (4 * 8 * 15 * 15)
    pixels = dict(frames(folder / "photos", 32))
    totals = [picture_bytes(one) for one in pixels.values()]
    assert found["pictures"] == {name: sum(one[name] for one in totals) for name in totals[0]}
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["frame"] for line in lines] == ["0.png", "1.png", "2.png", "3.png"]
    assert lines[0]["answers"]["find"]["vector"]["shape"] == [1, 8]
    assert lines[0]["answers"]["map"]["output"]["shape"] == [1, 4, 169]


def test_the_summary_is_a_table(folder, url):
    options = ["--model", "toy:make", "--url", url, "--size", 32, "--task", "find", "--alone"]
    shown = run(folder, "send", "photos/0.png", *options)
    for word in ("features", "JPEG, quality 90", "PNG", "WebP, quality 90", "bits an element"):
        assert word in shown


def test_a_video_is_sent(folder, url):
    imageio = pytest.importorskip("imageio.v3")
    pytest.importorskip("av")
    y, x = np.mgrid[:64, :64]
    film = [np.stack([x * 3 + n, y * 3, x + y], -1).astype(np.uint8) for n in range(10)]
    imageio.imwrite(folder / "film.mp4", film, fps=10, codec="mpeg4", plugin="pyav")
    options = ["--model", "toy:make", "--url", url, "--size", 32, "--bits", 2, "--every", 2]
    found = json.loads(run(folder, "send", "film.mp4", *options, "--json"))
    assert found["frames"] == 5
    assert found["keys"] <= 5
    assert found["bits_per_element"] < 2.5


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["photos", "--model", "toy:none", "--url", "http://127.0.0.1:9"], 2),
        (["photos", "--model", "toy:make", "--url", "http://127.0.0.1:9"], 8),
        (["photos", "--model", "toy:make", "--url", "URL", "--task", "none"], 2),
        (["photos", "--model", "toy:make", "--url", "URL", "--step", 1, "--snr", 1], 2),
        (["photos", "--model", "toy:make", "--url", "URL", "--mean", "1,2"], 2),
        (["toy.py", "--model", "toy:make", "--url", "URL"], 1),
        (["photos", "--model", "torch.nn:ReLU", "--url", "URL"], 3),
    ],
)
def test_what_cannot_be_sent(folder, url, arguments, status):
    arguments = [url if one == "URL" else one for one in arguments]
    assert run(folder, "send", *arguments, status=status)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--at", "1", "--task", "a=nothing"],
        ["--at", "9", "--task", "a=tail"],
        ["--at", "1", "--task", "a=tail", "--limit", "max_none=1"],
        ["--at", "1", "--task", "a=tail", "--host", "300.0.0.1"],
    ],
)
def test_what_cannot_be_served(folder, arguments):
    assert run(folder, "serve", "--model", "toy:make", *arguments, status=2)


def test_the_group_is_light(tmp_path):
    script = "import sys, limosa.cli.features\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], env={**os.environ}).returncode == 0


def test_bad_frames(tmp_path):
    with pytest.raises(ConfigError, match="no images"):
        images_in(tmp_path)
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(CorruptError, match=r"a\.png"):
        list(frames(tmp_path, 8))
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(CorruptError, match=r"a\.mp4"):
        list(frames(tmp_path / "a.mp4", 8))
