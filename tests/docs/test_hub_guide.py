"""What README and guide say of a hub runs, in order, against the hub that they start."""

import doctest
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

from limosa.cli.main import group
from limosa.demo import models

ADDRESS = "http://127.0.0.1:8470"
GUIDE, README = "docs/guide/hub.md", "README.md"
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
Step = tuple[str, str]  # a command line, and what it prints
#: What is there in the end: a version of the demo's model, byte for byte.
MADE = {
    GUIDE: {"held.safetensors": 2, "camera/model.safetensors": 1},
    README: {"model.safetensors": 3},
}


def steps(page: Path) -> list[Step]:
    """The command lines in the blocks of ``console``, with what stands below each."""
    text = page.read_text("utf-8")
    if page.name == README:
        text = re.search(r"\n## A hub\n(.*?)\n## ", text, re.S)[1]
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", text, re.S | re.M):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            line, _, printed = part.partition("\n")
            found.append((line, printed))
    return found


class Console:
    """A user with a home of their own, and the hub that they start."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.url, self.token = folder, ADDRESS, ""
        scripts = Path(sys.executable).parent
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("LIMOSA_")},
            "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
            "LIMOSA_HOME": str(folder / "home"),
            "PYTHONUNBUFFERED": "1",
        }

    def start(self, line: str, **more: str) -> subprocess.Popen:
        return subprocess.Popen(
            ["bash", "-c", f"exec {self.fill(line)}"], cwd=self.folder,
            env={**self.environment, **more}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def fill(self, line: str) -> str:
        return line.replace(ADDRESS, self.url).replace("limosa_...", self.token)

    def check(self, line: str, printed: str, output: str) -> None:
        wanted = printed.replace(ADDRESS, self.url)
        good = doctest.OutputChecker().check_output(wanted, output, OPTIONS)
        assert good, f"{line} printed:\n{output}\nwhere the page has:\n{wanted}"

    @contextmanager
    def hub(self, line: str, printed: str) -> Iterator[None]:
        """Serve as the page says, at a port that is free."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        line = f"{line.replace(' --port 8470', '')} --port {port}"
        self.url = f"http://127.0.0.1:{port}"
        serving = self.start(line)
        try:
            output = "".join(serving.stdout.readline() for _ in range(3))
            if printed:
                self.check(line, printed, output)
            self.token = re.search(r"shown once\): (limosa_\w+)", output)[1]
            self.environment["ADMIN_TOKEN"] = self.token
            self.wait(port)
            yield
        finally:
            serving.send_signal(signal.SIGTERM)
            assert serving.wait(60) == 0
            serving.stdout.close()

    def wait(self, port: int) -> None:
        """Until it listens; its socket is there before it prints anything."""
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.1)
        raise AssertionError("the hub does not listen")

    def run(self, line: str, printed: str) -> None:
        if "--follow" in line:
            self.follow(line, printed)
            return
        done = subprocess.run(
            ["bash", "-c", self.fill(line)], cwd=self.folder, env=self.environment,
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}: {done.stderr}"
        self.check(line, printed, done.stdout)

    def follow(self, line: str, printed: str) -> None:
        """On the device, until it has told of the first change; it would stay for ever."""
        found = json.loads((self.folder / "camera.json").read_text("utf-8"))
        following = self.start(
            line, LIMOSA_HOME="device", LIMOSA_HUB=self.url, LIMOSA_TOKEN=found["token"]
        )
        try:
            self.check(line, printed, following.stdout.readline())
        finally:
            following.send_signal(signal.SIGTERM)
            assert following.wait(60) == 0
            following.stdout.close()


def run_in_order(page: str, folder: Path, lines: list[Step]) -> None:
    (serve, welcome), *rest = lines
    assert serve.startswith("limosa hub serve")
    assert len(rest) >= 3
    console = Console(folder)
    with console.hub(serve, welcome):
        for line, printed in rest:
            if line.startswith("limosa hub serve"):
                parse(line)  # needs machines that are not here
            else:
                console.run(line, printed or ("..." if page == README else ""))


def parse(line: str) -> None:
    """Let a command's own parser see its line."""
    _, *arguments = shlex.split(line)
    command: click.Command = group
    while isinstance(command, click.Group):
        command = command.get_command(None, arguments.pop(0))
    command.make_context(command.name, arguments)


@pytest.mark.parametrize("page", [GUIDE, README])
def test_the_command_lines_of_the_page_run_in_order(page: str, repository: Path, tmp_path: Path):
    for version, model in enumerate(models(), start=1):
        shutil.copy(model, tmp_path / f"v{version}.safetensors")
    run_in_order(page, tmp_path, steps(repository / page))
    for name, version in MADE[page].items():
        assert (tmp_path / name).read_bytes() == models()[version - 1].read_bytes(), name


def test_the_guide_has_every_command_of_a_hub(repository: Path):
    lines = [line for line, _ in steps(repository / GUIDE)]
    verbs = {line.split()[1] for line in lines}
    assert verbs >= {
        "hub", "login", "whoami", "push", "pull", "plan", "ls", "info", "tag", "device", "cache",
        "gc", "fsck",
    }  # fmt: skip


def test_the_service_of_a_device_can_be_started(repository: Path):
    text = (repository / GUIDE).read_text("utf-8")
    (line,) = re.findall(r"^ExecStart=/usr/local/bin/(.+)$", text, re.M)
    parse(line)
    assert "--follow" in line


def test_every_metric_is_in_the_guide(repository: Path):
    from limosa.hub.server.metrics import Metrics

    text = (repository / GUIDE).read_text("utf-8")
    names = re.findall(r"^# TYPE (\w+) ", Metrics().text().decode(), re.M)
    missing = [name for name in names if name not in text and not name.endswith("_created")]
    assert names
    assert missing == []
