"""Every golden file, through limosa and through the slow decoder."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from pathlib import Path

import pytest
from blake3 import blake3

from limosa import LimosaError
from limosa.codec.constants import REFINEMENT_MAGIC, SET_MAGIC
from limosa.codec.decoder import Reader
from limosa.codec.layers import open_layer
from limosa.codec.opening import open_model
from limosa.codec.set_reader import SetReader

HERE = Path(__file__).parent
CASES = sorted(path.parent for path in HERE.glob("*/expected.json"))
ERRORS = sorted(path.parent for path in (HERE.parent / "golden-errors").glob("*/expected.json"))


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


reference = load(HERE.parents[1] / "reference" / "limosa_reference.py")


def files(case: Path) -> tuple[bytes, bytes | None]:
    base = case / "base.limosa"
    return (case / "file.limosa").read_bytes(), base.read_bytes() if base.exists() else None


def by_reference(data: bytes, base: bytes | None) -> dict:
    if data.startswith(reference.SET_MAGIC):
        states = reference.decode_set(data)
        return {"models": {name: rows_of(state) for name, state in states.items()}}
    held = base and reference.decode(base)
    if data.startswith(REFINEMENT_MAGIC):
        return {"tensors": rows_of(reference.decode_refinement(data, held or None))}
    return {"tensors": rows_of(reference.decode(data, held))}


def rows_of(state) -> list[dict]:
    return [described(t.name, t.unit.name, t.shape, t.data) for t in state.tensors]


def described(name: str, dtype: str, shape, data: bytes) -> dict:
    digest = blake3(data).hexdigest()
    return {"name": name, "dtype": dtype, "shape": list(shape), "blake3": digest}


def by_limosa(
    data: bytes, base: bytes | None, *, piped: bool = False, layers: int | None = None
) -> dict:
    if data.startswith(SET_MAGIC):
        models = SetReader(data)
        return {"models": {name: rows_by(models.open(name, verify=True)) for name in models.names}}
    held = None if base is None else Reader(base).as_base()
    if data.startswith(REFINEMENT_MAGIC):
        # limosa reads a refinement from a pipe whole.
        return {"tensors": rows_by(open_model(data, base=held))}
    if piped:  # a pipe does not tell how many layers are to come
        return {"tensors": rows_by(open_layer(io.BytesIO(data), layers, base=held, verify=True))}
    return {"tensors": rows_by(open_layer(data, base=held, verify=True))}


def rows_by(reader: Reader) -> list[dict]:
    with reader:
        return [described(t.name, t.dtype, t.shape, data.tobytes()) for t, data in reader]


WORDS = {
    "TruncatedError": "truncated",
    "CorruptError": "corrupt",
    "ChecksumError": "checksum",
    "LimitError": "limit",
    "UnsupportedVersionError": "unsupported",
    "BaseMismatchError": "base-mismatch",
}


def expected(case: Path) -> dict:
    return json.loads((case / "expected.json").read_text(encoding="utf-8"))


def content(case: Path) -> dict:
    return {key: value for key, value in expected(case).items() if key in ("tensors", "models")}


@pytest.mark.parametrize("piped", [False, True], ids=["file", "pipe"])
@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_limosa(case: Path, piped: bool):
    layers = expected(case).get("layers")
    assert by_limosa(*files(case), piped=piped, layers=layers) == content(case)


@pytest.mark.parametrize("piped", [False, True], ids=["file", "pipe"])
@pytest.mark.parametrize("case", ERRORS, ids=lambda path: path.name)
def test_limosa_refuses(case: Path, piped: bool):
    with pytest.raises(LimosaError) as caught:
        by_limosa(*files(case), piped=piped, layers=expected(case).get("layers"))
    assert WORDS[type(caught.value).__name__] == expected(case)["error"], str(caught.value)


def test_the_files_stay_small():
    folders = HERE, HERE.parent / "golden-errors"
    total = sum(file.stat().st_size for folder in folders for file in folder.glob("*/*"))
    assert total < 1_000_000


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_reference(case: Path):
    assert by_reference(*files(case)) == content(case)


@pytest.mark.parametrize("case", ERRORS, ids=lambda path: path.name)
def test_reference_refuses(case: Path):
    with pytest.raises(reference.ReferenceError) as caught:
        by_reference(*files(case))
    assert caught.value.kind == expected(case)["error"], str(caught.value)
