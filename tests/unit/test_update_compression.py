"""The paper's experiment in its quick form: rows are trained, sent, rebuilt, written down."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.papers.updates import report, summary


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


def test_figures_are_added_to_an_earlier_table(repository: Path, tmp_path: Path):
    rows = report.read(repository / "docs/results")
    assert len(rows) > 100
    report.write(tmp_path, rows, {"vgg-medium": 0.1, "resnet-18": 1.0})
    assert report.read(tmp_path) == rows
    first, *others = rows
    fewer, more = replace(first, runs=1, nbytes=1.0), replace(first, runs=99, nbytes=2.0)
    other = replace(first, network="new")
    assert summary.together(rows, [fewer]) == rows
    assert summary.together(rows, [more, other]) == [more, *others, other]
