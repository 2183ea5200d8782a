"""A file under a wrong name, or cut short, is told for what it is, with its path."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import limosa
from limosa.codec import constants
from limosa.errors import CorruptError, FormatError, TruncatedError
from limosa.files import read
from limosa.files.beginnings import HEAD_BYTES, in_file, is_pointer, recognise

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
ENDINGS = [
    ".safetensors", ".npz", ".pt", ".bin", ".onnx", ".gguf", ".safetensors.index.json"
]  # fmt: skip


def whole(folder: Path) -> bytes:
    save_file({"weight": np.arange(1000, dtype=np.float32)}, folder / "whole.safetensors")
    return (folder / "whole.safetensors").read_bytes()


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_pointer_of_git_lfs_under_any_name(tmp_path: Path, ending: str):
    path = tmp_path / f"model{ending}"
    path.write_text(POINTER)
    with pytest.raises(CorruptError, match="Git LFS") as caught:
        read(path)
    assert caught.value.where == str(path)
    assert "git lfs pull" in caught.value.remedy


def test_a_text_about_git_lfs_is_no_pointer(tmp_path: Path):
    path = tmp_path / "notes.txt"
    path.write_text(POINTER + "x" * 1000)
    assert not is_pointer(path)
    path.write_text("versions of the model")
    assert not is_pointer(path)


def test_what_limosa_writes_is_recognised():
    for name in ("MAGIC", "SET_MAGIC", "REFINEMENT_MAGIC", "FEATURE_MAGIC"):
        assert recognise(getattr(constants, name) + b"\0").name == "a .limosa file"


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (limosa.save({"w": np.zeros(9, np.float32)}), ".limosa"),
        (gzip.compress(b"abc" * 99), "gzip"),
        (b"PK\x03\x04\x14\0\0\0\x08" + bytes(99), "zip"),
        (b"<!DOCTYPE html><html>404" + b" " * 99, "web page"),
        (POINTER.encode(), "Git LFS"),
    ],
    ids=["limosa", "gzip", "zip", "html", "lfs"],
)
def test_another_file_under_the_name_of_safetensors(tmp_path: Path, content: bytes, name: str):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=name) as caught:
        read(path)
    assert caught.value.where == str(path)
    with pytest.raises(FormatError, match=name):
        read(io.BytesIO(content))


def test_found_is_what_the_file_says_and_allowed_what_it_has(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    path.write_bytes((1_876_326_768_974_843_025).to_bytes(8, "little") + bytes(92))
    with pytest.raises(TruncatedError) as caught:
        read(path)
    assert caught.value.found == "a header of 1876326768974843025 bytes"
    assert caught.value.allowed.startswith("92 bytes")


@pytest.mark.parametrize("size", [0, 4, 40])
def test_every_cut_has_the_path(tmp_path: Path, size: int):
    path = tmp_path / "model.safetensors"
    path.write_bytes(whole(tmp_path)[:size])
    with pytest.raises(TruncatedError) as caught:
        read(path)
    assert caught.value.where == str(path)


def test_a_wrong_header_has_the_path(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(whole(tmp_path).replace(b'"F32"', b'"F33"'))
    with pytest.raises(FormatError) as caught:
        read(path)
    assert caught.value.where.startswith(f"{path}: ")


def test_the_innermost_file_is_told():
    with pytest.raises(CorruptError) as caught, in_file("outer"), in_file("inner"):
        raise CorruptError("bad", where="byte 0")
    assert caught.value.where == "inner: byte 0"
    with pytest.raises(CorruptError) as caught, in_file("w"):
        raise CorruptError("bad", where="tensor w")
    assert caught.value.where == "w: tensor w"


@pytest.mark.parametrize("length", range(9))
def test_too_few_bytes_are_nothing(length: int):
    assert recognise(POINTER.encode()[:length]) is None
    assert recognise(POINTER.encode()[:HEAD_BYTES]) is not None
