"""Lossy coding from the command line: every quality, layers, plots, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file

import limosa
from limosa.cli.main import group
from limosa.codec.decoder import Reader
from limosa.demo import models
from limosa.errors import ConfigError

V1, V2, _ = models()


def run(*arguments: object, status: int = 0) -> Result:
    result = CliRunner().invoke(group, [str(a) for a in arguments], standalone_mode=False)
    if status:
        assert isinstance(result.exception, click.UsageError), result.exception
    elif result.exception is not None:
        raise result.exception
    return result


def report(*arguments: object) -> dict:
    return json.loads(run(*arguments, "--json").stdout)


def errors(path: Path, original: Path = V1) -> dict[str, np.ndarray]:
    old, new = load_file(original), load_file(path)
    assert list(old) == list(new)
    return {n: np.abs(a.astype("f8") - new[n].astype("f8")) for n, a in old.items()}


@pytest.mark.parametrize(
    ("options", "most"),
    [
        (["--bits", "5"], 5 / 16),
        (["--size", "20%"], 0.2),
        (["--step", "0.01", "--effort", "1"], 0.4),
        (["--codebook", "16"], 0.3),
        (["--snr", "25", "--effort", "9"], 0.3),
        (["--max-error", "1%"], 0.6),
    ],
)
def test_a_quality_makes_a_smaller_file(options: list[str], most: float, tmp_path: Path):
    told = report("compress", V1, "-o", tmp_path / "m.limosa", *options)
    assert told["bytes_out"] == (tmp_path / "m.limosa").stat().st_size
    assert told["bytes_out"] <= most * told["bytes_in"]
    run("decompress", tmp_path / "m.limosa", "-o", tmp_path / "m.safetensors")
    assert max(e.max() for e in errors(tmp_path / "m.safetensors").values() if e.size) < 1
    run("verify", tmp_path / "m.limosa")


def test_a_bound_holds(tmp_path: Path):
    run("compress", V1, "-o", tmp_path / "m.limosa", "--max-error", "1e-3")
    run("decompress", tmp_path / "m.limosa", "-o", tmp_path / "m.safetensors")
    assert max(e.max() for e in errors(tmp_path / "m.safetensors").values()) <= 1e-3


def test_an_update_of_signs(tmp_path: Path):
    told = report("diff", V1, V2, "-o", tmp_path / "u.limosa", "--signs")
    assert told["snr"] > 1
    run("apply", V1, tmp_path / "u.limosa", "-o", tmp_path / "v2.safetensors")
    moved = errors(tmp_path / "v2.safetensors", V2)
    apart = errors(V1, V2)
    assert sum((e**2).sum() for e in moved.values()) < sum((e**2).sum() for e in apart.values())


def test_layers_from_prefixes(tmp_path: Path):
    told = report(
        "compress", V1, "-o", tmp_path / "m.limosa", "--layers", "bits=4,step=1e-3,lossless"
    )
    ends = [layer["end"] for layer in told["layers"]]
    whole = (tmp_path / "m.limosa").read_bytes()
    assert ends[-1] == len(whole)
    last = np.inf
    for number, end in enumerate(ends, 1):
        (tmp_path / "prefix.limosa").write_bytes(whole[:end])
        out = tmp_path / f"{number}.safetensors"
        run("decompress", tmp_path / "prefix.limosa", "--layers", number, "-o", out)
        error = sum((e**2).sum() for e in errors(out).values())
        assert error < last
        last = error
    assert (tmp_path / "3.safetensors").read_bytes() == V1.read_bytes()
    text = run("inspect", tmp_path / "m.limosa").stdout
    assert all(f"layer {number}" in text for number in (1, 2, 3))
    assert "lossless" in text


def test_inspect_says_what_was_asked(tmp_path: Path):
    run("compress", V1, "-o", tmp_path / "m.limosa", "--step", "0.01")
    assert "step size=0.01" in run("inspect", tmp_path / "m.limosa").stdout
    (model,) = json.loads(run("inspect", tmp_path / "m.limosa", "--json").stdout)["models"]
    assert model["quality"] == "step size=0.01"
    assert "levels" in model["modes"]


def test_inspect_draws(tmp_path: Path):
    pytest.importorskip("matplotlib")
    run("compress", V1, "-o", tmp_path / "m.limosa")
    run("inspect", tmp_path / "m.limosa", "--plot", tmp_path / "m.png")
    run("inspect", V2, "--base", V1, "--plot", tmp_path / "d.png")
    for name in ("m.png", "d.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "options",
    [
        ["--bits", "4", "--snr", "20"],
        ["--effort", "9"],
        ["--keep", "x"],
        ["--coder", "lzma", "--bits", "3"],
        ["--max-error", "lots"],
        ["--layers", "bits=4", "--snr", "20"],
        ["--layers", "bits"],
        ["--layers", "bits=many"],
        ["--layers", "lossless=1"],
        ["--layers", "shiny=3"],
    ],
)
def test_what_makes_no_sense_is_refused(options: list[str], tmp_path: Path):
    run("compress", V1, "-o", tmp_path / "m.limosa", *options, status=2)
    assert not (tmp_path / "m.limosa").exists()


def test_effort_1_loses_nothing(tmp_path: Path):
    files = [tmp_path / f"{effort}.limosa" for effort in (1, 5)]
    for effort, file in zip((1, 5), files, strict=True):
        run("compress", V1, "-o", file, "--effort", effort)
        run("decompress", file, "-o", tmp_path / "out.safetensors")
        assert (tmp_path / "out.safetensors").read_bytes() == Path(V1).read_bytes()


def test_steps_by_row(tmp_path: Path):
    auto = run("compress", V1, "-o", tmp_path / "auto", "--step", "0.02", "--by-row", "auto")
    own = run("compress", V1, "-o", tmp_path / "own", "--step", "0.2", "--by-row", "yes")
    assert (auto.exit_code, own.exit_code) == (0, 0)
    run("decompress", tmp_path / "auto", "-o", tmp_path / "back.safetensors")
    run("compress", V1, "-o", tmp_path / "x", "--bits", "4", "--by-row", "auto", status=2)


# A zero is a value: Python has 0 == False, and what is not given is False or None.


@pytest.mark.parametrize(
    "options",
    [["--bits", "0"], ["--snr", "0"], ["--step", "0"], ["--codebook", "0"], ["--size", "0"]],
)
def test_a_zero_is_refused_as_the_library_refuses_it(options: list[str], tmp_path: Path):
    with pytest.raises(ConfigError):
        run("compress", V1, "-o", tmp_path / "m.limosa", *options)
    assert not any(tmp_path.iterdir())


def test_a_zero_that_means_something_is_taken(tmp_path: Path):
    told = report("compress", V1, "-o", tmp_path / "digits.limosa", "--digits", "0")
    with Reader(tmp_path / "digits.limosa") as reader:
        assert reader.quality == limosa.Digits(0)
    whole = report("compress", V1, "-o", tmp_path / "whole.limosa")
    assert told["bytes_out"] < whole["bytes_out"]


@pytest.mark.parametrize(
    "options",
    [
        ["--bits", "0", "--snr", "30"],
        ["--digits", "0", "--signs"],
        ["--layers", "bits=3", "--bits", "0"],
        ["--layers", "bits=3,lossless", "--step", "0"],
        ["--digits", "0", "--keep", "w"],
    ],
)
def test_a_zero_excludes_other_qualities(options: list[str], tmp_path: Path):
    run("compress", V1, "-o", tmp_path / "m.limosa", *options, status=2)


def test_a_zero_is_another_quality_beside_an_adapter(tmp_path: Path):
    (tmp_path / "adapter").mkdir()
    arguments = ["diff", V1, "--adapter", tmp_path / "adapter", "-o", tmp_path / "m.limosa"]
    with pytest.raises(click.UsageError, match="no other quality"):
        run(*arguments, "--bits", "0")
