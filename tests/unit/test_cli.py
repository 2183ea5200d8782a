"""The command line, run as a user runs it."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import pytest

import limosa
from limosa.cli import statuses
from limosa.cli.main import COMMANDS, group
from limosa.demo import models

DOCS = Path(__file__).parents[2] / "docs" / "guide" / "cli.md"
V1, V2, V3 = models()


def run(*arguments: object, cwd: Path, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "limosa.cli.main", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, timeout=120, **options)


def done(*arguments: object, cwd: Path, **options) -> bytes:
    result = run(*arguments, cwd=cwd, **options)
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout


def refused(status: int, *arguments: object, cwd: Path, **options) -> str:
    """The message of a command that must end with `status` and leave nothing behind."""
    before = sorted(cwd.rglob("*"))
    result = run(*arguments, cwd=cwd, **options)
    message = result.stderr.decode()
    assert result.returncode == status, message
    assert "Traceback" not in message
    assert result.stdout == b""
    assert sorted(cwd.rglob("*")) == before
    return message


@pytest.fixture(scope="module")
def update(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("update") / "update.limosa"
    limosa.diff(V1, V2, path)
    return path


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packed") / "v1.limosa"
    limosa.compress(V1, path)
    return path


# Help and documentation


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_a_section_in_the_guide(name: str):
    command = group.get_command(None, name)
    assert command.name == name
    assert command.get_short_help_str(limit=99) == COMMANDS[name]
    assert command.help
    section = re.search(rf"\n## {name}\n(.*?)(\n## |\Z)", DOCS.read_text("utf-8"), re.DOTALL)
    assert section
    assert f"limosa {name}" in section[1]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help_and_is_in_the_guide(name: str):
    guide = DOCS.read_text("utf-8")
    for parameter in group.get_command(None, name).params:
        if parameter.param_type_name == "option":
            assert parameter.help, parameter.name
            assert max(parameter.opts, key=len) in guide


def subcommands(command: click.Command, *above: str) -> list[tuple[str, click.Command]]:
    """All commands below a group, with their full names."""
    if not isinstance(command, click.Group):
        return [(" ".join(above), command)]
    names = command.list_commands(None)
    return [
        pair
        for name in names
        for pair in subcommands(command.get_command(None, name), *above, name)
    ]


@pytest.mark.parametrize("name", ["cache", "device", "hub"])
def test_every_subcommand_and_its_options_are_in_the_guide(name: str):
    guide = DOCS.read_text("utf-8")
    for full, command in subcommands(group.get_command(None, name), name):
        assert command.help
        assert f"    limosa {full}" in guide
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.help, (full, parameter.name)
                assert max(parameter.opts, key=len) in guide, (full, parameter.name)


def test_the_guide_lists_the_commands_in_the_order_of_the_help():
    assert tuple(re.findall(r"^\| \[`(\w+)`\]", DOCS.read_text("utf-8"), re.M)) == tuple(COMMANDS)


@pytest.mark.parametrize(
    "status", [value for name, value in vars(statuses).items() if name.isupper()]
)
def test_the_guide_explains_every_exit_status(status: int):
    assert re.search(rf"^\| {status} \| \w", DOCS.read_text("utf-8"), re.M)


def test_help_is_quick_and_imports_nothing_heavy(tmp_path: Path):
    script = (
        "import sys\n"
        "from limosa.cli.main import run\n"
        "status = run(['--help'])\n"
        "heavy = {'numpy', 'rich', 'torch', 'blake3'} & set(sys.modules)\n"
        "sys.exit(status or ', '.join(heavy) or 0)"
    )
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert all(name in result.stdout for name in COMMANDS)
    assert min(times) < 0.15


def test_version(tmp_path: Path):
    assert done("--version", cwd=tmp_path).startswith(b"limosa ")


# What the commands do


def test_compress_and_decompress(tmp_path: Path):
    stdout = done("compress", V1, "-o", "v1.limosa", cwd=tmp_path)
    assert stdout.startswith(b"v1.limosa: ")
    done("decompress", "v1.limosa", "-o", "v1.safetensors", "--threads", 2, cwd=tmp_path)
    assert (tmp_path / "v1.safetensors").read_bytes() == V1.read_bytes()
    assert (tmp_path / "v1.limosa").stat().st_size < V1.stat().st_size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v1.limosa", "v1.safetensors"]


def test_pipes(tmp_path: Path, packed: Path):
    sent = done("compress", "-", "-o", "-", cwd=tmp_path, input=V1.read_bytes())
    assert done("decompress", "-", "-o", "-", cwd=tmp_path, input=sent) == V1.read_bytes()
    assert done("decompress", packed, "-o", "-", cwd=tmp_path) == V1.read_bytes()


def test_diff_and_apply(tmp_path: Path):
    done("diff", V1, V2, "-o", "update.limosa", cwd=tmp_path)
    done("apply", V1, "update.limosa", "-o", "v2.safetensors", cwd=tmp_path)
    assert (tmp_path / "v2.safetensors").read_bytes() == V2.read_bytes()
    update = (tmp_path / "update.limosa").read_bytes()
    assert done("apply", V1, "-", "-o", "-", cwd=tmp_path, input=update) == V2.read_bytes()


def test_diff_chooses_the_better_base(tmp_path: Path):
    for bases in [(V1, V2), (V2, V1)]:
        result = json.loads(done("diff", *bases, V3, "-o", "u", "--json", cwd=tmp_path))
        assert result["base"] == str(V2)
        assert result["sampled"][str(V2)] < result["sampled"][str(V1)]
        assert result["bytes_out"] == (tmp_path / "u").stat().st_size


def test_compress_against_a_base(tmp_path: Path):
    stdout = done(
        "compress", V3, "--base", V1, "--base", V2, "-o", "v3.limosa", "--json", cwd=tmp_path
    )
    assert json.loads(stdout)["base"] == str(V2)
    done("decompress", "v3.limosa", "--base", V2, "-o", "v3.safetensors", cwd=tmp_path)
    assert (tmp_path / "v3.safetensors").read_bytes() == V3.read_bytes()


def test_several_models_are_coded_jointly(tmp_path: Path):
    stdout = done("compress", V1, V2, V3, "-o", "all.limosa", "--json", cwd=tmp_path)
    result = json.loads(stdout)
    alone = sum(
        json.loads(done("compress", v, "-o", "one", "--json", cwd=tmp_path))["bytes_out"]
        for v in (V1, V2, V3)
    )
    assert result["bytes_out"] < 0.6 * alone
    assert sum(model["base"] is None for model in result["models"].values()) == 1
    done("decompress", "all.limosa", "-o", "all", cwd=tmp_path)
    for path in (V1, V2, V3):
        assert (tmp_path / "all" / path.name).read_bytes() == path.read_bytes()
    done("decompress", "all.limosa", "--model", V2.name, "-o", "v2", cwd=tmp_path)
    assert (tmp_path / "v2").read_bytes() == V2.read_bytes()
    done("verify", "all.limosa", cwd=tmp_path)


@pytest.mark.parametrize("coder", ["rans", "lzma"])
def test_digits(tmp_path: Path, coder: str):
    done("compress", V1, "--digits", 3, "--coder", coder, "-o", "v1.limosa", cwd=tmp_path)
    lossy = limosa.load_file(tmp_path / "v1.limosa")
    limosa.compress(V1, tmp_path / "exact.limosa")
    for name, array in limosa.load_file(tmp_path / "exact.limosa").items():
        wide = array.astype(np.float64)
        # Three digits, cut off, and BF16 has 8 bits of its own.
        assert np.all(np.abs(lossy[name].astype(np.float64) - wide) <= 1e-3 + np.abs(wide) / 256)


def test_verify(tmp_path: Path, packed: Path, update: Path):
    digest = json.loads(done("verify", packed, "--json", cwd=tmp_path))["digest"]
    assert len(bytes.fromhex(digest)) == 32
    assert digest.encode() in done("verify", packed, cwd=tmp_path)
    done("verify", update, "--base", V1, cwd=tmp_path)


def test_inspect(tmp_path: Path, packed: Path):
    (report,) = json.loads(done("inspect", packed, "--json", cwd=tmp_path))["models"]
    size = packed.stat().st_size
    assert report["bytes"] == size
    parts = report["header_bytes"] + report["frame_bytes"] + report["index_bytes"]
    assert parts == size
    assert sum(tensor["bytes"] for tensor in report["tensors"]) == report["frame_bytes"]
    text = done("inspect", packed, "--top", 3, cwd=tmp_path).decode()
    for tensor in sorted(report["tensors"], key=lambda tensor: -tensor["bytes"])[:3]:
        assert tensor["name"] in text
    assert all(mode in text for mode in report["modes"])


def test_inspect_an_update_without_its_base(tmp_path: Path, update: Path):
    (report,) = json.loads(done("inspect", update, "--json", cwd=tmp_path))["models"]
    assert report["bytes"] == update.stat().st_size
    assert report["base_digest"]
    assert "base steps" in report["modes"]


def test_inspect_shows_no_control_characters(tmp_path: Path):
    limosa.save_file({"a\x1b[2Jb": np.zeros(3, np.float32)}, tmp_path / "odd.limosa")
    text = done("inspect", "odd.limosa", cwd=tmp_path)
    assert b"\x1b" not in text
    assert rb"a\x1b[2Jb" in text


def test_a_folder(tmp_path: Path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(V1.read_bytes())
    (folder / "config.json").write_text('{"hidden": 64}')
    done("compress", "model", "-o", "model.limosa", cwd=tmp_path)
    done("decompress", "model.limosa", "-o", "back", cwd=tmp_path)
    for path in folder.iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()


# What they refuse, and with which status


def test_another_base_is_refused(tmp_path: Path, update: Path):
    message = refused(3, "apply", V3, update, "-o", "v2.safetensors", cwd=tmp_path)
    assert "base" in message
    assert "found" in message
    refused(3, "decompress", update, "-o", "v2.safetensors", cwd=tmp_path)
    refused(3, "verify", update, cwd=tmp_path)
    refused(3, "apply", V3, "-", "-o", "x", cwd=tmp_path, input=update.read_bytes())


@pytest.mark.parametrize("piped", [False, True])
def test_a_damaged_file_leaves_nothing(tmp_path: Path, packed: Path, piped: bool):
    data = bytearray(packed.read_bytes())
    data[len(data) // 2] ^= 1
    for bad in (bytes(data), packed.read_bytes()[:-100], b"", b"no limosa file at all" * 9):
        (tmp_path / "bad.limosa").write_bytes(bad)
        name = "-" if piped else "bad.limosa"
        message = refused(1, "decompress", name, "-o", "out", cwd=tmp_path, input=bad)
        assert message.startswith("limosa: ")
        assert message.count("\n") == 1


def test_an_older_output_survives_an_error(tmp_path: Path, packed: Path):
    (tmp_path / "out").write_text("mine")
    (tmp_path / "bad").write_bytes(packed.read_bytes()[:-50])
    refused(1, "decompress", "bad", "-o", "out", cwd=tmp_path)
    assert (tmp_path / "out").read_text() == "mine"


def test_limits(tmp_path: Path, packed: Path):
    message = refused(1, "verify", packed, "--limit", "max_tensors=3", cwd=tmp_path)
    assert "allowed max_tensors 3" in message
    for bad in ("max_tensors", "nothing=3", "max_tensors=-1"):
        assert "NAME=N" in refused(2, "verify", packed, "--limit", bad, cwd=tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing",),
        ("compress",),
        ("compress", "missing", "-o", "x"),
        ("compress", V1),
        ("compress", V1, "-o", "x", "--digits", "19"),
        ("compress", V1, "-o", "x", "--coder", "lzma"),
        ("compress", V1, "-o", "x", "--threads", "0"),
        ("compress", V1, "-", "-o", "x"),
        ("compress", V1, V2, "--base", V3, "-o", "x"),
        ("compress", V1, "-o", "-", "--json"),
        ("diff", V1, "-o", "x"),
    ],
    ids=lambda arguments: " ".join(a.name if isinstance(a, Path) else a for a in arguments),
)
def test_usage(tmp_path: Path, arguments: tuple):
    assert "limosa" in refused(2, *arguments, cwd=tmp_path)


def test_a_whole_model_is_no_update(tmp_path: Path, packed: Path):
    assert "decompress" in refused(2, "apply", V1, packed, "-o", "x", cwd=tmp_path)


def test_a_folder_that_is_not_there(tmp_path: Path):
    message = refused(2, "compress", V1, "-o", "no/such/folder/x.limosa", cwd=tmp_path)
    assert "no/such/folder" in message


def test_a_reader_that_goes_away(tmp_path: Path):
    command = [sys.executable, "-m", "limosa.cli.main", "compress", str(V1), "-o", "-"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.read(10)
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read()
    assert process.wait() != 0


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_an_interrupt_leaves_nothing(tmp_path: Path, number: int, status: int):
    # The input never ends, so the command is at work whenever the signal comes.
    command = [sys.executable, "-m", "limosa.cli.main", "decompress", "-", "-o", "out"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # What a shell starts in the background ignores the interrupt, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    data = limosa.save({"w": np.random.default_rng(0).standard_normal((9, 2**20), np.float32)})
    os.set_blocking(process.stdin.fileno(), True)
    process.stdin.write(data[: len(data) // 2])
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while not any(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert any(tmp_path.iterdir()), "the command has begun to write"
    process.send_signal(number)
    _, message = process.communicate(timeout=60)
    assert process.returncode == status, message
    assert b"Traceback" not in message
    assert list(tmp_path.iterdir()) == []
