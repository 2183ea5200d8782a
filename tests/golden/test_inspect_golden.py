"""Every golden file that decodes can be inspected: blocks are found by their lengths alone."""

from __future__ import annotations

from pathlib import Path

import pytest

import limosa
from limosa.codec.constants import MODE_NAMES, REFINEMENT_MAGIC, SET_MAGIC

FILES = sorted(Path(__file__).parent.glob("*/file.limosa"))
MODELS = [path for path in FILES if not path.read_bytes().startswith((SET_MAGIC, REFINEMENT_MAGIC))]


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.parent.name)
def test_blocks_are_found(path: Path):
    reports = limosa.inspect(path)
    nbytes = sum(tensor.nbytes for one in reports for tensor in one.tensors)
    assert nbytes <= path.stat().st_size


def test_every_mode_is_among_them():
    found = set()
    for path in MODELS:
        for report in limosa.inspect(path):
            found |= {mode for tensor in report.tensors for mode in tensor.modes}
    assert found == set(MODE_NAMES)
