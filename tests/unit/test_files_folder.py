"""Folders and sharded models: every file comes back byte for byte."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from limosa.errors import ConfigError, CorruptError, LimitError
from limosa.files import Restorer, read
from limosa.limits import MIB, Limits


def restore(bundle, out):
    """Write a bundle as a decoder would."""
    with Restorer(bundle.sources, bundle.specs, out, Limits()) as restorer:
        for spec, data in bundle:
            restorer.write(spec, data.copy())
        restorer.finish()


def content_of(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "model"
    (root / "unet" / "deep").mkdir(parents=True)
    weights = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    save_file({"w": weights, "only": np.ones(2)}, root / "a.safetensors", {"format": "pt"})
    save_file({"w": weights * 2}, root / "unet" / "b.safetensors")
    save_file({"w": weights * 3}, root / "unet" / "deep" / "c.safetensors", {"k": "v"})
    (root / "config.json").write_text(json.dumps({"layers": 3}, indent=2))
    (root / "empty").touch()
    (root / "tokenizer.model").write_bytes(bytes(range(256)) * 50)
    (root / "ünï 層.txt").write_text("ü")
    (root / "lfs.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    np.savez(root / "arrays.npz", x=weights)
    return root


def test_a_folder(folder, tmp_path):
    with read(folder) as bundle:
        assert [s.path for s in bundle.sources] == sorted(s.path for s in bundle.sources)
        names = [spec.name for spec in bundle.specs]
        assert len(set(names)) == len(names) == 4
        assert sorted(names) == ["only", "unet/b.safetensors:w", "unet/deep/c.safetensors:w", "w"]
        restore(bundle, tmp_path / "out")
    assert content_of(tmp_path / "out") == content_of(folder)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "out"]
    # The copy has the same bundle: names do not depend on the order of the disk.
    assert read(tmp_path / "out").sources == bundle.sources


def test_what_tools_put_around_a_model_is_left_out_and_said_once(folder, tmp_path, caplog):
    expected = read(folder).sources
    for name in (".git/config", "unet/.git", ".cache/huggingface/download/a.lock"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("password")
    (folder / ".gitattributes").write_text("*.bin lfs")
    (folder / ".cache" / "own.json").write_text("{}")
    # Nor is it looked at: a pipe or a link would be refused.
    os.mkfifo(folder / ".git" / "pipe")
    for _ in range(2):
        found = read(folder).sources
    assert [s for s in found if s.path not in (".gitattributes", ".cache/own.json")] == expected
    assert len(found) == len(expected) + 2
    (record,) = caplog.records
    assert ".cache/huggingface, .git, unet/.git" in record.getMessage()


def test_large_files_that_do_not_shrink_travel_as_tensors(tmp_path):
    root = tmp_path / "model"
    root.mkdir()
    (root / "weights.bin").write_bytes(np.random.default_rng(0).bytes(2 * MIB))
    (root / "vocab.txt").write_bytes(b"the quick brown fox\n" * 100_000)
    bundle = read(root)
    assert [(s.name, s.dtype, s.shape) for s in bundle.specs] == [("weights.bin", "U8", (2 * MIB,))]
    assert len(bundle.sources[0].skeleton) < 10_000
    restore(bundle, tmp_path / "out")
    assert content_of(tmp_path / "out") == content_of(root)


def test_an_empty_folder(tmp_path):
    (tmp_path / "in").mkdir()
    restore(read(tmp_path / "in"), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_links_inside_are_followed(folder, tmp_path):
    (folder / "link.json").symlink_to("config.json")
    restore(read(folder), tmp_path / "out")
    assert (tmp_path / "out" / "link.json").read_text() == (folder / "config.json").read_text()
    assert not (tmp_path / "out" / "link.json").is_symlink()


@pytest.mark.parametrize("target", ["../secret", "missing", ".", "/etc/hostname", "unet"])
def test_other_links_are_refused(folder, target):
    (folder.parent / "secret").write_text("secret")
    (folder / "link").symlink_to(target)
    with pytest.raises(ConfigError, match="link"):
        read(folder)


def test_pipes_are_refused_without_being_opened(folder):
    os.mkfifo(folder / "pipe")
    with pytest.raises(ConfigError, match="neither a file"):
        read(folder)


def test_limits(folder):
    with pytest.raises(LimitError, match="max_sources 3"):
        read(folder, limits=Limits(max_sources=3))
    with pytest.raises(LimitError, match="max_tensors 2"):
        read(folder, limits=Limits(max_tensors=2))


@pytest.fixture
def sharded(tmp_path):
    root = tmp_path / "sharded"
    root.mkdir()
    weight_map = {}
    for i in range(3):
        file = f"model-0000{i}-of-00003.safetensors"
        save_file({f"layer.{i}": np.full(9, i, np.float16)}, root / file, {"format": "pt"})
        weight_map[f"layer.{i}"] = file
    index = root / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 54}, "weight_map": weight_map}))
    (root / "unrelated.txt").touch()
    return index


def test_an_index_and_its_shards(sharded, tmp_path):
    bundle = read(sharded)
    assert [spec.name for spec in bundle.specs] == ["layer.0", "layer.1", "layer.2"]
    restore(bundle, tmp_path / "out")
    expected = content_of(sharded.parent)
    del expected["unrelated.txt"]
    assert content_of(tmp_path / "out") == expected


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('{"weight_map": {"a": "../../etc/passwd"}}', CorruptError),
        ('{"weight_map": {"a": "/etc/passwd"}}', CorruptError),
        ('{"weight_map": {"a": "missing.safetensors"}}', ConfigError),
        ('{"weight_map": {"a": 1}}', CorruptError),
        ('{"weight_map": {"a": "x", "a": "y"}}', CorruptError),
        ('{"weight_map": []}', CorruptError),
        ("[]", CorruptError),
        ("{", CorruptError),
        ("[" * 100_000, CorruptError),
    ],
)
def test_malformed_indexes(sharded, text, error):
    sharded.write_text(text)
    with pytest.raises(error):
        read(sharded)


def test_a_shard_behind_a_link_out_of_the_folder(sharded, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (sharded.parent / "s").symlink_to(tmp_path / "secret")
    sharded.write_text('{"weight_map": {"a": "s"}}')
    with pytest.raises(ConfigError, match="leaves the folder"):
        read(sharded)


# A snapshot in the cache of huggingface_hub is a folder of links to blobs beside it.


@pytest.fixture
def snapshot(tmp_path):
    model = tmp_path / "hub" / "models--team--detector"
    root = model / "snapshots" / "0123456789abcdef"
    (root / "unet").mkdir(parents=True)
    (model / "blobs").mkdir()
    save_file({"w": np.ones(9, np.float32)}, model / "blobs" / ("a" * 64))
    (model / "blobs" / ("b" * 40)).write_text("{}")
    (root / "model.safetensors").symlink_to("../../blobs/" + "a" * 64)
    (root / "config.json").symlink_to("../../blobs/" + "b" * 40)
    (root / "unet" / "config.json").symlink_to("../../../blobs/" + "b" * 40)
    return root


def test_a_snapshot_is_read_through_its_links(snapshot, tmp_path):
    for place in (snapshot, tmp_path / "link"):
        if place != snapshot:
            place.symlink_to(snapshot)
        restore(read(place), tmp_path / f"out-{place.name}")
        assert content_of(tmp_path / f"out-{place.name}") == content_of(snapshot)
    restore(read(snapshot / "unet"), tmp_path / "unet")
    assert content_of(tmp_path / "unet") == content_of(snapshot / "unet")


def test_shards_of_a_snapshot_are_read_through_their_links(snapshot):
    index = snapshot / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"w": "model.safetensors"}}')
    assert [spec.name for spec in read(index).specs] == ["w"]


@pytest.mark.parametrize(
    "target",
    [
        "../../secret",
        "../../blobs/secret",
        "../../blobs/../secret",
        "../../../models--other/blobs/" + "c" * 64,
        "../../blobs/" + "d" * 64,
        "../../blobs/" + "e" * 64,
        "../../refs/" + "c" * 64,
    ],
)
def test_other_links_of_a_snapshot_are_refused(snapshot, target):
    model, other = snapshot.parents[1], snapshot.parents[2] / "models--other"
    (model / "refs").mkdir()
    (other / "blobs").mkdir(parents=True)
    for path in (
        model / "secret", model / "blobs" / "secret", model / "refs" / ("c" * 64),
        other / "blobs" / ("c" * 64),
    ):  # fmt: skip
        path.write_text("secret")
    (model / "blobs" / ("d" * 64)).symlink_to("../secret")
    (model / "blobs" / ("e" * 64)).symlink_to("/etc/hostname")
    (snapshot / "stray").symlink_to(target)
    with pytest.raises(ConfigError, match="leaves the folder"):
        read(snapshot)


def test_blobs_beside_another_folder_are_refused(snapshot):
    copy = snapshot.parents[2] / "mine" / "snapshots" / "1"
    copy.mkdir(parents=True)
    (copy.parents[1] / "blobs").mkdir()
    (copy.parents[1] / "blobs" / ("a" * 64)).write_text("secret")
    (copy / "stray").symlink_to("../../blobs/" + "a" * 64)
    with pytest.raises(ConfigError, match="leaves the folder"):
        read(copy)
