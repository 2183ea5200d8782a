"""Outputs appear whole or not at all."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest

from limosa.errors import ConfigError, CorruptError, FormatError
from limosa.files import Restorer, Source, bundle_from_tensors, kind_of, read
from limosa.limits import Limits
from limosa.tensors import Tensor, TensorSpec

BUNDLE = bundle_from_tensors(
    {"a": Tensor.from_numpy(np.arange(4.0)), "b": Tensor.from_numpy(np.array(1))}
)


def opaque(path, skeleton=bytes([0, 0, 1]) + b"x"):
    return Source(path, "bytes", skeleton, ())


def test_nothing_is_left_of_an_unfinished_file(tmp_path):
    with Restorer(BUNDLE.sources, BUNDLE.specs, tmp_path / "m", Limits()) as restorer:
        restorer.write(*next(iter(BUNDLE)))
        with pytest.raises(ConfigError, match="missing"):
            restorer.finish()
    assert list(tmp_path.iterdir()) == []


def test_an_old_file_stays_until_the_new_one_is_whole(tmp_path):
    out = tmp_path / "m"
    out.write_text("old")
    with pytest.raises(ZeroDivisionError), Restorer(BUNDLE.sources, BUNDLE.specs, out):
        raise ZeroDivisionError
    assert out.read_text() == "old"
    with Restorer(BUNDLE.sources, BUNDLE.specs, out) as restorer:
        for spec, data in BUNDLE:
            restorer.write(spec, data)
        assert out.read_text() == "old"
        restorer.finish()
    assert read(out, kind="safetensors").get("a").numpy()[3] == 3
    assert len(list(tmp_path.iterdir())) == 1


def test_tensors_come_in_order_and_whole(tmp_path):
    a, b = list(BUNDLE)
    with Restorer(BUNDLE.sources, BUNDLE.specs, tmp_path / "m") as restorer:
        with pytest.raises(ConfigError, match="order"):
            restorer.write(*b)
        with pytest.raises(CorruptError, match="length"):
            restorer.write(a[0], a[1][:-1])
        restorer.write(*a)
        restorer.write(*b)
        with pytest.raises(ConfigError, match="no more"):
            restorer.write(*b)


@pytest.mark.parametrize(
    "paths",
    [
        ["../x"], ["/x"], ["a/../../x"], ["a//b"], ["."], ["a\\b"], ["C:x"], ["a\0b"], ["NUL.txt"],
        ["x" * 256], ["a", "a"], ["a", "a/b"], ["", "a"], ["\ud800"],
    ],
)  # fmt: skip
def test_paths_that_escape_are_refused_before_anything_is_written(paths, tmp_path):
    with pytest.raises(CorruptError, match="path"):
        Restorer([opaque(path) for path in paths], [], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_left_alone_unless_empty(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with Restorer([opaque("sub/file")], [], out) as restorer:
        restorer.finish()
    assert (out / "sub/file").read_text() == "x"
    with pytest.raises(ConfigError, match="not an empty folder"):
        Restorer([opaque("sub/file")], [], out)
    with pytest.raises(ConfigError, match="is a folder"):
        Restorer(BUNDLE.sources, BUNDLE.specs, out)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_failing_source_leaves_no_folder(tmp_path):
    with pytest.raises(FormatError):
        Restorer([opaque("good"), opaque("bad", b"\0\x07\x01x")], [], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_sources_and_tensors_must_belong_together(tmp_path):
    spec = TensorSpec("w", "U8", (1,))
    with pytest.raises(CorruptError, match="sources"):
        Restorer([opaque("a")], [spec], tmp_path / "out")
    with pytest.raises(CorruptError, match="unknown kind"):
        Restorer([Source("", "exe", b"", ())], [], tmp_path / "out")
    with pytest.raises(CorruptError, match="opaque"):
        Restorer([Source("", "bytes", b"\1", ())], [], tmp_path / "out")


def test_only_one_file_fits_a_pipe():
    with pytest.raises(ConfigError, match="pipe"):
        Restorer([opaque("a")], [], io.BytesIO())


def test_missing_folders_and_files(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        Restorer(BUNDLE.sources, BUNDLE.specs, tmp_path / "no" / "m")
    with pytest.raises(ConfigError, match="no such file"):
        read(tmp_path / "m.safetensors")
    (tmp_path / "m.txt").touch()
    with pytest.raises(FormatError, match=r"suffix '\.txt'"):
        read(tmp_path / "m.txt")
    with pytest.raises(ConfigError, match="unknown kind"):
        read(tmp_path / "m.txt", kind="text")
    with pytest.raises(ConfigError, match="not a npz"):
        read(tmp_path, kind="npz")
    with pytest.raises(ConfigError, match="pipe"):
        read(io.BytesIO(), kind="npz")


def test_kinds(tmp_path):
    assert kind_of(tmp_path) == "folder"
    assert kind_of("a/model.safetensors.index.json") == "index"
    assert kind_of("A.PTH") == "torch"


def test_devices_and_links_are_written_through(tmp_path):
    null = Path(os.devnull)
    with Restorer([opaque("")], [], null) as restorer:
        restorer.finish()
    with Restorer([opaque("")], [], null):
        pass
    assert null.is_char_device()
    (tmp_path / "link").symlink_to("target")
    with Restorer([opaque("")], [], tmp_path / "link") as restorer:
        restorer.finish()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "x"
