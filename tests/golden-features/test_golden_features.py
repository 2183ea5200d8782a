"""Every golden feature, through limosa and through the slow decoder."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from blake3 import blake3
from tests.support.features import source

from limosa import FeatureDecoder, LimosaError, load_profile

HERE = Path(__file__).parent
FOLDERS = sorted(path.parent for path in HERE.glob("*/expected.json"))
WORDS = {
    "TruncatedError": "truncated",
    "CorruptError": "corrupt",
    "ChecksumError": "checksum",
    "UnsupportedVersionError": "unsupported",
    "BaseMismatchError": "base-mismatch",
}


def expected(case: Path) -> dict:
    return json.loads((case / "expected.json").read_text(encoding="utf-8"))


CASES = [case for case in FOLDERS if "tensors" in expected(case)]
ERRORS = [case for case in FOLDERS if "error" in expected(case)]


def reference():
    path = HERE.parents[1] / "reference" / "limosa_reference.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


slow = reference()


def described(name: str, dtype: str, shape, data: bytes) -> dict:
    return {"name": name, "dtype": dtype, "shape": list(shape), "blake3": blake3(data).hexdigest()}


def read(case: Path, name: str) -> bytes | None:
    path = case / f"{name}.limosa"
    return path.read_bytes() if path.exists() else None


def by_limosa(case: Path) -> list[dict]:
    with_profile = None
    if read(case, "profile"):
        with_profile = load_profile(case / "profile.limosa")
    where = source(with_profile)
    assert where.id.hex() == expected(case)["source"]
    decoder = FeatureDecoder(where)
    before = read(case, "before")
    if before:
        decoder.decode(before)
    tensors = decoder.decode(read(case, "feature"))
    return [described(n, t.dtype, t.shape, t.data.tobytes()) for n, t in tensors.items()]


def by_reference(case: Path) -> list[dict]:
    held = read(case, "profile")
    with_profile = slow.decode(held) if held else None
    wanted = slow.source_of(bytes(range(32)), "layer3", with_profile)
    assert wanted.hex() == expected(case)["source"]
    before = read(case, "before")
    last = slow.decode_feature(before, wanted, None, with_profile) if before else None
    made = slow.decode_feature(read(case, "feature"), wanted, last, with_profile)
    return [described(t.name, t.unit.name, t.shape, t.data) for t in made.state.tensors]


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_limosa(case: Path):
    assert by_limosa(case) == expected(case)["tensors"]


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_reference(case: Path):
    assert by_reference(case) == expected(case)["tensors"]


@pytest.mark.parametrize("case", ERRORS, ids=lambda path: path.name)
def test_limosa_refuses(case: Path):
    with pytest.raises(LimosaError) as caught:
        by_limosa(case)
    assert WORDS[type(caught.value).__name__] == expected(case)["error"], str(caught.value)


@pytest.mark.parametrize("case", ERRORS, ids=lambda path: path.name)
def test_reference_refuses(case: Path):
    with pytest.raises(slow.ReferenceError) as caught:
        by_reference(case)
    assert caught.value.kind == expected(case)["error"], str(caught.value)
