"""What arrives is the model, in its own form, whatever else of it lies on this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi")

from codec_models import trained, tuned
from hubs import Machine, digest_of, line, running_hub, same, save

import limosa
from limosa.codec.constants import MAGIC
from limosa.errors import ChecksumError, ConfigError, FormatError
from limosa.exchange import local
from limosa.exchange.copies import check_copy
from limosa.exchange.forms import manifest_of
from limosa.exchange.held import Inventory
from limosa.exchange.install import pull_offline
from limosa.exchange.on_disk import kind_here
from limosa.hub.reference import parse_reference

MODEL = "team/birds"


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A hub with v1, v2 and v3, the files of which lie beside it; tests only read from it."""
    folder = tmp_path_factory.mktemp("shop")
    with running_hub(folder / "hub") as server:
        author = Machine(folder / "author", server.url, server.admin_token)
        paths = line(folder)
        for path in paths:
            author.push(path, f"{MODEL}:{path.stem}")
        yield server, paths


@pytest.fixture
def edge(tmp_path, shop):
    server, _ = shop
    return Machine(tmp_path / "edge", server.url, server.admin_token)


@pytest.fixture
def compressed(tmp_path, shop):
    """v2 as a compressed file, as an update, and as a set with another."""
    _, (v1, v2, _) = shop
    limosa.compress(v2, tmp_path / "v2.limosa")
    limosa.diff(v1, v2, tmp_path / "v2.update")
    local.compress_set([v1, v2], tmp_path / "set.limosa")
    return {name: tmp_path / name for name in ("v2.limosa", "v2.update", "set.limosa")}


def kept(edge: Machine) -> list[str]:
    return sorted(Path(one.path).name for one in Inventory(edge.places.make_cache()).all())


# Compressed files


@pytest.mark.parametrize("name", ["v2.limosa", "v2.update", "set.limosa"])
def test_a_push_that_is_refused_leaves_nothing_to_copy(tmp_path, shop, edge, compressed, name):
    _, (_, v2, _) = shop
    with pytest.raises(FormatError, match="no model"):
        edge.push(compressed[name], "team/odd:v2")
    assert kept(edge) == []
    out = tmp_path / "got.safetensors"
    edge.pull(f"{MODEL}:v2", out)
    assert same(out, v2)


def test_a_compressed_file_that_is_held_is_decoded_not_copied(tmp_path, shop, edge, compressed):
    _, (_, v2, v3) = shop
    out = tmp_path / "got.safetensors"
    edge.run("plan", f"{MODEL}:v2", "--have", compressed["v2.limosa"], cwd=tmp_path)
    result = edge.pull(f"{MODEL}:v2", out)
    assert same(out, v2)
    assert (result.copied, result.nbytes, result.fallback) == (True, 0, "")
    out.unlink()
    # And an update may start from it.
    result = edge.pull(f"{MODEL}:v3", out)
    assert same(out, v3)
    assert result.start
    assert "0 not as they were" in edge.run("cache", "verify", cwd=tmp_path)[0]


def test_a_compressed_file_in_the_place_of_the_model_is_not_the_model(
    tmp_path, shop, edge, compressed
):
    _, (_, v2, _) = shop
    out = compressed["v2.limosa"]
    result = edge.pull(f"{MODEL}:v2", out)
    assert same(out, v2)
    assert (result.copied, result.nbytes) == (True, 0)


@pytest.mark.parametrize("name", ["v2.update", "set.limosa"])
def test_an_update_or_a_set_is_nothing_that_is_held(tmp_path, shop, edge, compressed, name):
    _, (_, v2, _) = shop
    _, errors = edge.run("plan", f"{MODEL}:v2", "--have", compressed[name], cwd=tmp_path, status=2)
    assert "no model to start from" in errors
    v1 = shop[1][0]
    edge.run("push", v1, "team/x:v1", "--base", compressed[name], cwd=tmp_path, status=2)
    assert name not in kept(edge)
    result = edge.pull(f"{MODEL}:v2", compressed[name])
    assert same(compressed[name], v2)
    assert result.nbytes > 0


def test_a_compressed_file_as_a_base_that_the_hub_lacks_is_harmless(tmp_path, shop, edge):
    _, (v1, v2, _) = shop
    limosa.compress(v2, tmp_path / "v2.limosa")
    edge.run("push", v1, "team/y:v1", "--base", tmp_path / "v2.limosa", cwd=tmp_path, status=2)
    out = tmp_path / "got.safetensors"
    edge.pull(f"{MODEL}:v2", out)
    assert same(out, v2)


@pytest.mark.parametrize("name", ["v2.limosa", "v2.update"])
def test_what_an_older_limosa_noted_of_compressed_files_is_not_believed(
    tmp_path, shop, edge, compressed, name
):
    _, (_, v2, _) = shop
    known = manifest_of(v2)
    inventory = Inventory(edge.places.make_cache())
    inventory.remember(compressed[name], known.state, known.form, reference=f"{MODEL}:v2")
    out = tmp_path / "got.safetensors"
    edge.pull(f"{MODEL}:v2", out)
    assert same(out, v2)
    # Without a network as well: the older note is the first that fits.
    inventory.remember(out, known.state, known.form, kind="safetensors")
    for place in (tmp_path / "offline.safetensors", compressed[name]):
        pull_offline(parse_reference(f"{MODEL}@{known.digest}"), place, places=edge.places, hub="")
        assert same(place, v2)


def test_a_model_that_became_a_compressed_file_behind_our_back_is_not_copied(
    tmp_path, shop, edge, compressed
):
    _, (_, v2, _) = shop
    held = tmp_path / "held.safetensors"
    edge.pull(f"{MODEL}:v2", held)
    inventory = Inventory(edge.places.make_cache())
    (one,) = inventory.all()
    held.write_bytes(compressed["v2.update"].read_bytes())
    # Size, times and place say nothing of it.
    inventory.remember(held, one.state, one.form, kind="safetensors", reference=one.reference)
    out = tmp_path / "got.safetensors"
    result = edge.pull(f"{MODEL}:v2", out)
    assert same(out, v2)
    assert result.nbytes > 0


def test_a_copy_is_proved_to_be_of_the_form_that_is_wanted(tmp_path, shop, compressed):
    _, (_, v2, _) = shop
    check_copy(v2, digest_of(v2), "safetensors")
    assert compressed["v2.limosa"].read_bytes()[: len(MAGIC)] == MAGIC
    for name in ("v2.limosa", "v2.update"):
        with pytest.raises((ChecksumError, ConfigError)):
            check_copy(compressed[name], digest_of(v2), "safetensors")


# Names that do not say what they are


@pytest.mark.parametrize("name", ["model", "m.bin", "m.pt", "model.v1"])
def test_updates_work_whatever_the_name(tmp_path, shop, edge, name):
    _, (_, v2, v3) = shop
    out = tmp_path / name
    edge.pull(f"{MODEL}:v1", out)
    result = edge.pull(f"{MODEL}:v2", out)
    assert (bool(result.start), result.hops, result.fallback) == (True, 1, "")
    assert same(out, v2)
    assert "0 not as they were" in edge.run("cache", "verify", cwd=tmp_path)[0]
    # And where the list was lost, the bytes tell.
    (edge.places.make_cache() / "held.json").unlink()
    result = edge.pull(f"{MODEL}:v3", out)
    assert (bool(result.start), result.fallback) == (True, "")
    assert same(out, v3)
    elsewhere = tmp_path / "other.safetensors"
    assert edge.pull(f"{MODEL}:v3", elsewhere).copied
    assert same(elsewhere, v3)


def test_what_was_pulled_to_such_a_name_can_be_pushed(tmp_path, edge):
    with running_hub(tmp_path / "hub") as server:
        author = Machine(tmp_path / "author", server.url, server.admin_token)
        v1, v2 = line(tmp_path, 2)
        author.push(v1, f"{MODEL}:v1")
        author.pull(f"{MODEL}:v1", tmp_path / "model")
        v1.unlink()
        (tmp_path / "next").write_bytes(v2.read_bytes())
        result = author.push(tmp_path / "next", f"{MODEL}:v2")
        assert result.base == "v1"
        assert result.digest == digest_of(v2)


@pytest.mark.parametrize("kind", ["npz", "torch"])
def test_other_kinds_are_known_by_their_bytes(tmp_path, kind):
    place = tmp_path / "model"
    arrays = {"w": np.arange(600, dtype=np.float32)}
    if kind == "npz":
        with place.open("wb") as file:
            np.savez(file, **arrays)
    else:
        torch = pytest.importorskip("torch")
        torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, place)
    assert kind_here(place) == kind


def test_a_held_model_that_cannot_be_used_is_passed_over(tmp_path, shop, edge):
    """The next one is tried before the whole is fetched."""
    _, (v1, v2, _) = shop
    bad, good = tmp_path / "bad.safetensors", tmp_path / "good.safetensors"
    for place in (bad, good):
        edge.pull(f"{MODEL}:v1", place)
    stamp = bad.stat()
    with bad.open("r+b") as file:
        file.write(b"{")
    os.utime(bad, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    result = edge.pull(f"{MODEL}:v2", tmp_path / "out.safetensors")
    assert same(tmp_path / "out.safetensors", v2)
    assert (bool(result.start), result.fallback) == (True, "")
    result = edge.pull(f"{MODEL}:v1", tmp_path / "copy.safetensors")
    assert result.copied
    assert same(tmp_path / "copy.safetensors", v1)


def test_cache_verify_says_why(tmp_path, shop, edge):
    out = tmp_path / "m.safetensors"
    edge.pull(f"{MODEL}:v1", out)
    stamp = out.stat()
    with out.open("r+b") as file:
        file.write(bytes(8))
    os.utime(out, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    printed, _ = edge.run("cache", "verify", "--json", cwd=tmp_path, status=1)
    (row,) = json.loads(printed)
    assert row["problem"]
    edge.pull(f"{MODEL}:v1", out)
    stamp = out.stat()
    with out.open("r+b") as file:
        file.write(bytes(8))
    os.utime(out, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    printed, _ = edge.run("cache", "verify", cwd=tmp_path, status=1)
    assert f"{out} changed: " in printed
    assert len(printed.splitlines()[0]) > len(f"{out} changed: ")


# Models of several files


@pytest.fixture
def external(tmp_path):
    """Two versions of an ONNX model with external data, each in a folder of its own."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    paths, arrays = [], trained(rows=200)
    for number in (1, 2):
        folder = tmp_path / f"author{number}"
        folder.mkdir()
        graph = helper.make_graph(
            [helper.make_node("Identity", ["x"], ["y"])], "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
            [
                numpy_helper.from_array(array, name)
                for name, array in arrays.items()
                if array.dtype == np.float32
            ],
        )  # fmt: skip
        path = folder / "model.onnx"
        onnx.save(
            helper.make_model(graph), path, save_as_external_data=True, location="model.data",
            size_threshold=0,
        )  # fmt: skip
        assert (folder / "model.data").stat().st_size > 10000
        paths.append(path)
        arrays = tuned(arrays, share=0.1)
    return paths


def weights(path: Path) -> dict[str, bytes]:
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    return {one.name: numpy_helper.to_array(one).tobytes() for one in model.graph.initializer}


def test_external_data_are_copied_and_started_from(tmp_path, external):
    with running_hub(tmp_path / "hub") as server:
        author = Machine(tmp_path / "author", server.url, server.admin_token)
        author.push(external[0], "team/net:v1")
        out = tmp_path / "out.onnx"
        result = author.pull("team/net:v1", out)
        assert (result.copied, result.nbytes, result.fallback) == (True, 0, "")
        assert weights(out) == weights(external[0])
        other = Machine(tmp_path / "other", server.url, server.admin_token)
        other.push(external[1], "team/net:v2")
        out.unlink()
        result = author.pull("team/net:v2", out)
        assert (bool(result.start), result.fallback) == (True, "")
        assert weights(out) == weights(external[1])


def test_shards_that_were_pushed_by_their_index_are_copied(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    model = trained(rows=200)
    names = sorted(model)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, own in halves.items():
        save(folder / file, {name: model[name] for name in own})
    index = folder / "model.safetensors.index.json"
    weight_map = {name: file for file, own in halves.items() for name in own}
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "notes.txt").write_text("not of the model")
    with running_hub(tmp_path / "hub") as server:
        author = Machine(tmp_path / "author", server.url, server.admin_token)
        first = author.push(index, "team/shards:v1")
        result = author.pull("team/shards:v1", tmp_path / "out")
        assert (result.copied, result.nbytes, result.fallback) == (True, 0, "")
        found = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        (folder / "notes.txt").unlink()
        assert found == {path.name: path.read_bytes() for path in folder.iterdir()}
        # Another training changes the shards, and not the index: it is another model.
        after = tuned(model)
        save(folder / "a.safetensors", {name: after[name] for name in halves["a.safetensors"]})
        second = author.push(index, "team/shards:v2")
        assert not second.known
        assert second.digest != first.digest


def test_external_data_that_changed_make_another_model(tmp_path, external):
    data = external[0].with_name("model.data")
    with running_hub(tmp_path / "hub") as server:
        author = Machine(tmp_path / "author", server.url, server.admin_token)
        first = author.push(external[0], "team/net:v1")
        data.write_bytes(external[1].with_name("model.data").read_bytes())
        second = author.push(external[0], "team/net:v2")
        assert not second.known
        assert second.digest != first.digest
