"""README and guide are programs: their examples run, their commands exist, their links lead on."""

import doctest
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from limosa.demo import models

LINK = re.compile(r"\]\((?!\w+:)([^)#]+)")
COMMANDS = ["README.md", "docs/guide/lossy.md"]
PROGRAMS = [*COMMANDS, "docs/guide/updates.md", "docs/guide/features.md", "docs/guide/optimize.md"]
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs"]


def pages(repository: Path) -> list[Path]:
    found = []
    for name in PAGES:
        path = repository / name
        found += sorted(path.rglob("*.md")) if path.is_dir() else [path]
    return found


@pytest.mark.parametrize("page", PROGRAMS)
def test_python_examples(
    page: str, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(
        r"^```python\n(.*?)^```", (repository / page).read_text("utf-8"), re.S | re.M
    )
    assert blocks
    examples = doctest.DocTestParser().get_doctest("".join(blocks), {}, page, None, 0)
    assert examples.examples
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(examples)
    assert runner.failures == 0


@pytest.mark.parametrize("page", COMMANDS)
def test_command_lines(page: str, repository: Path, tmp_path: Path):
    for version, model in enumerate(models(), start=1):
        shutil.copy(model, tmp_path / f"v{version}.safetensors")
    shutil.copy(models()[0], tmp_path / "model.safetensors")
    text = (repository / page).read_text("utf-8")
    text = re.sub(r"\n## A hub\n.*?\n## ", "", text, flags=re.S)  # test_hub_guide.py runs these
    lines = re.findall(r"^\$ limosa (.+)$", text, re.M)
    assert lines
    for line in lines:
        command = [sys.executable, "-m", "limosa.cli.main", *shlex.split(line)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"limosa {line}: {done.stderr}"
    copies = {"copy": models()[0], "v2-received": models()[1]} if page == "README.md" else {}
    for copy, model in copies.items():
        assert (tmp_path / f"{copy}.safetensors").read_bytes() == model.read_bytes()


def test_links_lead_somewhere(repository: Path):
    broken = [
        f"{page.relative_to(repository)} -> {target}"
        for page in pages(repository)
        for target in LINK.findall(page.read_text("utf-8"))
        if not (page.parent / target).exists()
    ]
    assert broken == []
