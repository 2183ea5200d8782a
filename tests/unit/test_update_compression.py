"""The paper's experiment in its quick form: rows are trained, sent, rebuilt, written down."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_quick_form_writes_all(tmp_path: Path, repository: Path):
    command = [sys.executable, "-m", "benchmarks.papers.update_compression", "--quick"]
    subprocess.run([*command, "--out", tmp_path], cwd=repository, check=True, timeout=300)
    page = (tmp_path / "update_compression.md").read_text(encoding="utf-8")
    assert "122,973" in page
    for row in (
        "coded against float32",
        "dense, then quantized",
        "bytes at 98",
        "rebuild vgg-medium",
    ):
        assert row in page
    assert len((tmp_path / "update_compression.csv").read_text().splitlines()) > 10
    assert (tmp_path / "update_compression_vgg-small.png").stat().st_size > 10_000
