"""Pull, against a hub that runs: little is fetched, what came is right, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi")

from codec_models import assert_equal, trained, tuned
from hubs import (
    PATIENCE_S,
    Machine,
    Wire,
    digest_of,
    leftovers,
    line,
    running_hub,
    same,
    save,
    spoil,
)

import limosa
from limosa.errors import (
    AuthError,
    ChecksumError,
    ConfigError,
    LimosaError,
    NotFoundError,
    TransportError,
)
from limosa.exchange import install
from limosa.exchange.install import pull_offline
from limosa.exchange.publish import Description
from limosa.exchange.tensors_only import pull_tensors
from limosa.hub.reference import parse_reference

MODEL = "team/detector"


@pytest.fixture(scope="module")
def shop(tmp_path_factory, kept):
    """A hub with v1, v2 and v3, the files of which lie beside it; tests only read from it."""
    folder = tmp_path_factory.mktemp("shop")
    with running_hub(folder / "hub", **kept()) as server:
        author = Machine(folder / "author", server.url, server.admin_token)
        paths = line(folder)
        for path in paths:
            words = Description(tags=["latest"])
            author.push(path, f"{MODEL}:{path.stem}", description=words)
        yield server, paths


@pytest.fixture
def hub(tmp_path):
    """A hub of its own, for tests that change or spoil something."""
    with running_hub(tmp_path / "hub") as server:
        yield server


@pytest.fixture
def edge(tmp_path, shop):
    server, _ = shop
    return Machine(tmp_path / "edge", server.url, server.admin_token)


def blobs(hub_folder: Path) -> list[Path]:
    return sorted(path for path in (hub_folder / "blobs" / "blobs").rglob("*") if path.is_file())


# What is fetched


def test_a_first_pull_is_the_whole_model(tmp_path, shop, edge):
    _, (_, _, v3) = shop
    out = tmp_path / "m.safetensors"
    result = edge.pull(f"{MODEL}:v3", out)
    assert same(out, v3)
    assert (result.start, result.fallback, result.digest) == ("", "", digest_of(v3))
    assert result.nbytes < v3.stat().st_size


def test_an_update_takes_a_fraction_of_the_whole(tmp_path, shop):
    server, (_v1, v2, v3) = shop
    out = tmp_path / "m.safetensors"
    out.write_bytes(v2.read_bytes())
    with Wire(server.url) as wire:
        edge = Machine(tmp_path / "edge", wire.url, server.admin_token)
        result = edge.pull(f"{MODEL}:v3", out)
        assert wire.down <= 1.02 * result.nbytes + 8192
    assert same(out, v3)
    assert (result.hops, result.fallback) == (1, "")
    limosa.diff(v2, v3, tmp_path / "best")
    assert result.nbytes <= 1.02 * (tmp_path / "best").stat().st_size
    assert result.nbytes < 0.2 * result.whole_nbytes


def test_two_versions_behind_takes_no_more_than_the_two_updates(tmp_path, shop, edge):
    _, (v1, v2, v3) = shop
    out = tmp_path / "m.safetensors"
    out.write_bytes(v1.read_bytes())
    result = edge.pull(f"{MODEL}:v3", out)
    assert same(out, v3)
    assert result.start
    limosa.diff(v1, v2, tmp_path / "a")
    limosa.diff(v2, v3, tmp_path / "b")
    both = sum((tmp_path / name).stat().st_size for name in "ab")
    assert result.nbytes <= both


def test_several_hops_are_applied_one_after_the_other(tmp_path, hub):
    author = Machine(tmp_path / "author", hub.url, hub.admin_token)
    v1, v2, v3 = line(tmp_path)
    for path in (v1, v2, v3):
        author.push(path, f"{MODEL}:{path.stem}")
    edge = Machine(tmp_path / "edge", hub.url, hub.admin_token)
    out = tmp_path / "m.safetensors"
    out.write_bytes(v1.read_bytes())
    # Nothing may be made for it: what there is, is the chain.
    result = edge.pull(f"{MODEL}:v3", out, limits={"seconds": 0})
    assert result.hops == 2
    assert same(out, v3)


def test_a_pull_of_what_is_there_fetches_nothing(tmp_path, shop, edge):
    _, (_, v2, _) = shop
    out = tmp_path / "m.safetensors"
    out.write_bytes(v2.read_bytes())
    stamp = out.stat().st_ino
    for _ in range(2):
        result = edge.pull(f"{MODEL}:v2", out)
        assert (result.hops, result.nbytes, result.copied) == (0, 0, False)
    assert out.stat().st_ino == stamp


def test_what_lies_elsewhere_on_this_machine_is_copied_not_fetched(tmp_path, shop, edge):
    _, (_, v2, _) = shop
    edge.pull(f"{MODEL}:v2", tmp_path / "a.safetensors")
    result = edge.pull(f"{MODEL}:v2", tmp_path / "deep" / "b.safetensors")
    assert (result.nbytes, result.copied, result.fallback) == (0, True, "")
    assert same(tmp_path / "deep" / "b.safetensors", v2)


def test_what_lies_elsewhere_is_what_an_update_starts_from(tmp_path, shop, edge):
    _, (_, _, v3) = shop
    edge.pull(f"{MODEL}:v2", tmp_path / "a.safetensors")
    result = edge.pull(f"{MODEL}:v3", tmp_path / "b.safetensors")
    assert result.start
    assert result.nbytes < 0.2 * result.whole_nbytes
    assert same(tmp_path / "b.safetensors", v3)


def test_going_back_to_an_older_version_is_an_update_too(tmp_path, shop, edge):
    _, (_, v2, v3) = shop
    out = tmp_path / "m.safetensors"
    out.write_bytes(v3.read_bytes())
    result = edge.pull(f"{MODEL}:v2", out)
    assert same(out, v2)
    assert result.nbytes < 0.2 * result.whole_nbytes


def test_tags_and_digests_name_versions(tmp_path, shop, edge):
    _, (_, v2, _v3) = shop
    latest = edge.pull(MODEL, tmp_path / "a.safetensors")
    assert latest.reference == f"{MODEL}:v3"
    edge.pull(f"{MODEL}@{digest_of(v2)}", tmp_path / "b.safetensors")
    assert same(tmp_path / "b.safetensors", v2)


def test_whole_starts_from_nothing(tmp_path, shop, edge):
    _, (_, v2, v3) = shop
    out = tmp_path / "m.safetensors"
    out.write_bytes(v2.read_bytes())
    result = edge.pull(f"{MODEL}:v3", out, whole=True)
    assert result.start == ""
    assert same(out, v3)


# What is at the output


@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\xff" * 4096])
def test_something_else_at_the_output_is_replaced_by_the_whole(tmp_path, shop, edge, content):
    _, (_, _, v3) = shop
    out = tmp_path / "m.safetensors"
    out.write_bytes(content)
    result = edge.pull(f"{MODEL}:v3", out)
    assert (result.start, result.fallback) == ("", "")
    assert same(out, v3)


def test_a_model_that_the_hub_does_not_know_is_no_base(tmp_path, shop, edge):
    _, (_, _, v3) = shop
    out = save(tmp_path / "m.safetensors", trained(77))
    result = edge.pull(f"{MODEL}:v3", out)
    assert (result.start, result.fallback) == ("", "")
    assert same(out, v3)


def test_a_base_with_one_bit_flipped_behind_our_back_falls_back(tmp_path, shop, edge):
    _, (_, _, v3) = shop
    out = tmp_path / "m.safetensors"
    edge.pull(f"{MODEL}:v2", out)
    stamp = out.stat()
    with out.open("r+b") as file:
        file.seek(out.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    # Size, times and place say nothing of it.
    os.utime(out, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    result = edge.pull(f"{MODEL}:v3", out)
    assert "base" in result.fallback
    assert result.start == ""
    assert same(out, v3)


def test_a_link_stays_a_link(tmp_path, shop, edge):
    _, (_, v2, v3) = shop
    real, out = tmp_path / "real.safetensors", tmp_path / "m.safetensors"
    real.write_bytes(v2.read_bytes())
    out.symlink_to(real)
    edge.pull(f"{MODEL}:v3", out)
    assert out.is_symlink()
    assert same(real, v3)


def test_a_folder_at_the_output_of_a_file_is_refused(tmp_path, shop, edge):
    out = tmp_path / "folder"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    with pytest.raises(ConfigError, match="name a file in it"):
        edge.pull(f"{MODEL}:v3", out)
    assert (out / "mine.txt").read_text() == "keep"


# Folders


@pytest.fixture
def folders(tmp_path, hub):
    """Two versions of a model folder, on a hub."""
    author, made = Machine(tmp_path / "author", hub.url, hub.admin_token), []
    model = trained(rows=200)
    for number in (1, 2):
        path = tmp_path / f"folder{number}"
        (path / "sub").mkdir(parents=True)
        save(path / "model.safetensors", model)
        (path / "config.json").write_text(json.dumps({"version": number}))
        (path / "sub" / f"only-in-{number}.txt").write_text("x")
        author.push(path, f"{MODEL}:v{number}")
        made.append(path)
        model = tuned(model, share=0.1)
    return made


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_folder_is_swapped_whole(tmp_path, hub, folders):
    edge, out = Machine(tmp_path / "edge", hub.url, hub.admin_token), tmp_path / "out"
    edge.pull(f"{MODEL}:v1", out)
    assert tree(out) == tree(folders[0])
    result = edge.pull(f"{MODEL}:v2", out)
    assert result.start
    assert tree(out) == tree(folders[1])
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("moment", ["before", "between", "after"])
def test_a_swap_of_folders_that_was_cut_off_is_mended(tmp_path, hub, folders, monkeypatch, moment):
    edge, out = Machine(tmp_path / "edge", hub.url, hub.admin_token), tmp_path / "out"
    edge.pull(f"{MODEL}:v1", out)
    real, count = os.replace, iter(range(100))
    stop = {"before": 0, "between": 1, "after": 2}[moment]

    def replace(source, target):
        if str(out) in (str(source), str(target)) and next(count) == stop:
            raise KeyboardInterrupt
        real(source, target)
        if moment == "after" and str(target) == str(out):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("limosa.exchange.swap.os.replace", replace)
        with pytest.raises(KeyboardInterrupt):
            edge.pull(f"{MODEL}:v2", out)
    result = edge.pull(f"{MODEL}:v2", out)
    assert tree(out) == tree(folders[1])
    assert result.fallback == ""
    assert leftovers(tmp_path) == []


# What goes wrong on the way


def test_a_pull_that_was_killed_while_fetching_goes_on(tmp_path, hub):
    author = Machine(tmp_path / "author", hub.url, hub.admin_token)
    (v1,) = line(tmp_path, 1, rows=9000)
    author.push(v1, f"{MODEL}:v1")
    out = tmp_path / "m.safetensors"
    with Wire(hub.url) as wire:
        edge = Machine(tmp_path / "edge", wire.url, hub.admin_token)
        wire.hold_after = 12 * 2**20
        process = edge.start("pull", f"{MODEL}:v1", "-o", out, cwd=tmp_path)
        assert wire.held.wait(PATIENCE_S)
        # What has passed the wire may not have been written yet.
        (partial,) = wait_for(lambda: [
            path for path in (edge.home / "cache" / "pulls").rglob("*.limosa")
            if path.stat().st_size > 8 * 2**20
        ])  # fmt: skip
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not out.exists()
        had = partial.stat().st_size
        wire.drop()
        found = edge.json("pull", f"{MODEL}:v1", "-o", out, cwd=tmp_path)
        assert wire.down <= found["nbytes"] - had + 2**15
    assert same(out, v1)
    assert leftovers(tmp_path) == []
    assert list((edge.home / "cache" / "pulls").iterdir()) == []


def wait_for(find):
    """What *find* finds, when it finds something."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if found := find():
            return found
        time.sleep(0.01)
    raise AssertionError("waited in vain")


_KILL = """
import os, signal, sys
from limosa.cli.main import main
from limosa.files.restore import Restorer
write, left = Restorer.write, [{tensors}]
def dying(self, spec, data):
    write(self, spec, data)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
Restorer.write = dying
main(sys.argv[1:])
"""


@pytest.mark.parametrize("tensors", [1, 3])
def test_a_pull_that_was_killed_while_decoding_leaves_the_old_model(tmp_path, shop, edge, tensors):
    _, (_, v2, v3) = shop
    folder = tmp_path / "models"
    folder.mkdir()
    out = folder / "m.safetensors"
    out.write_bytes(v2.read_bytes())
    edge.home.mkdir()
    program = [sys.executable, "-c", _KILL.format(tensors=tensors)]
    ended = subprocess.run(
        [*program, "pull", f"{MODEL}:v3", "-o", str(out)], env=edge.env(), capture_output=True,
        timeout=120,
    )  # fmt: skip
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert same(out, v2)
    assert leftovers(folder) != []
    result = edge.pull(f"{MODEL}:v3", out)
    assert same(out, v3)
    assert (result.fallback, leftovers(folder)) == ("", [])


def test_connections_that_end_do_not_end_a_pull(tmp_path, shop):
    server, (v1, _, _) = shop
    out = tmp_path / "m.safetensors"
    with Wire(server.url) as wire:
        edge = Machine(tmp_path / "edge", wire.url, server.admin_token)
        wire.cut_after = 600_000
        result = edge.pull(f"{MODEL}:v1", out)
        assert wire.cuts == 1
        # Nothing came twice, but what was under way when it ended.
        assert wire.down <= result.nbytes + 2**18
    assert same(out, v1)
    assert result.fallback == ""


def test_a_partial_file_that_was_spoiled_is_fetched_again(tmp_path, shop, edge):
    _server, (v1, _, _) = shop
    with edge.client() as client:
        (step,) = client.plan(MODEL, "v1")["route"]
        folder = edge.places.make_cache() / "pulls" / step["target"]
        folder.mkdir(parents=True)
        partial = folder / f"{step['sha256']}-{step['nbytes']}.limosa"
        client.fetch_blob(MODEL, step["sha256"], 500_000, partial)
    spoil(partial)
    out = tmp_path / "m.safetensors"
    result = edge.pull(f"{MODEL}:v1", out)
    assert same(out, v1)
    assert result.fallback == ""


@pytest.mark.parametrize("extra", [1, 1000])
def test_a_partial_file_that_is_too_long_is_fetched_again(tmp_path, shop, edge, extra):
    _, (v1, _, _) = shop
    with edge.client() as client:
        (step,) = client.plan(MODEL, "v1")["route"]
    folder = edge.places.make_cache() / "pulls" / step["target"]
    folder.mkdir(parents=True)
    (folder / f"{step['sha256']}-{step['nbytes']}.limosa").write_bytes(
        bytes(step["nbytes"] + extra)
    )
    out = tmp_path / "m.safetensors"
    edge.pull(f"{MODEL}:v1", out)
    assert same(out, v1)


def test_an_update_that_rotted_on_the_hub_is_replaced_by_the_whole(tmp_path, hub):
    author = Machine(tmp_path / "author", hub.url, hub.admin_token)
    v1, v2 = line(tmp_path, 2)
    author.push(v1, f"{MODEL}:v1")
    before = set(blobs(tmp_path / "hub"))
    author.push(v2, f"{MODEL}:v2")
    (update,) = set(blobs(tmp_path / "hub")) - before
    spoil(update)
    out = tmp_path / "m.safetensors"
    out.write_bytes(v1.read_bytes())
    edge = Machine(tmp_path / "edge", hub.url, hub.admin_token)
    result = edge.pull(f"{MODEL}:v2", out)
    assert same(out, v2)
    assert "the bytes are not those of the blob" in result.fallback
    assert result.start == ""


def test_a_model_that_rotted_on_the_hub_is_not_installed(tmp_path, hub):
    author = Machine(tmp_path / "author", hub.url, hub.admin_token)
    (v1,) = line(tmp_path, 1)
    author.push(v1, f"{MODEL}:v1")
    (blob,) = blobs(tmp_path / "hub")
    spoil(blob)
    out = tmp_path / "m.safetensors"
    out.write_bytes(b"old")
    edge = Machine(tmp_path / "edge", hub.url, hub.admin_token)
    with pytest.raises(ChecksumError):
        edge.pull(f"{MODEL}:v1", out)
    assert out.read_bytes() == b"old"
    assert leftovers(tmp_path) == []


def test_a_blob_that_the_hub_lost_is_an_error_of_the_hub(tmp_path, hub):
    author = Machine(tmp_path / "author", hub.url, hub.admin_token)
    (v1,) = line(tmp_path, 1)
    author.push(v1, f"{MODEL}:v1")
    (blob,) = blobs(tmp_path / "hub")
    blob.unlink()
    edge = Machine(tmp_path / "edge", hub.url, hub.admin_token)
    with pytest.raises(LimosaError):
        edge.pull(f"{MODEL}:v1", tmp_path / "m.safetensors")
    assert not (tmp_path / "m.safetensors").exists()


def test_a_hub_that_stops_midway_leaves_the_old_model_and_what_came(tmp_path):
    author_home, out = tmp_path / "author", tmp_path / "m.safetensors"
    out.write_bytes(b"old")
    with running_hub(tmp_path / "hub") as server:
        token = server.admin_token
        (v1,) = line(tmp_path, 1, rows=9000)
        Machine(author_home, server.url, token).push(v1, f"{MODEL}:v1")
        wire = Wire(server.url)
        wire.hold_after = 12 * 2**20
        edge = Machine(tmp_path / "edge", wire.url, token)
        process = edge.start("pull", f"{MODEL}:v1", "-o", out, cwd=tmp_path)
        assert wire.held.wait(PATIENCE_S)
        with wire:
            wire.drop()
            wire._socket.close()
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 8, errors
    assert b"the hub cannot be reached" in errors
    assert out.read_bytes() == b"old"
    with running_hub(tmp_path / "hub") as server, Wire(server.url) as wire:
        edge.url = wire.url
        result = edge.pull(f"{MODEL}:v1", out)
        assert wire.down < result.nbytes - 8 * 2**20
    assert same(out, v1)


def test_an_update_that_nobody_made_yet_and_that_breaks_off_comes_again(tmp_path, hub):
    author = Machine(tmp_path / "author", hub.url, hub.admin_token)
    v1, v2, v3 = line(tmp_path, rows=3000, share=0.3)
    for path in (v1, v2, v3):
        author.push(path, f"{MODEL}:{path.stem}")
    out = tmp_path / "m.safetensors"
    out.write_bytes(v1.read_bytes())
    with Wire(hub.url) as wire:
        edge = Machine(tmp_path / "edge", wire.url, hub.admin_token)
        with edge.client() as client:
            route = client.plan(MODEL, "v3", [digest_of(v1)])["route"]
        assert [step["sha256"] for step in route] == [None]
        wire.cut_after = 300_000
        result = edge.pull(f"{MODEL}:v3", out)
        assert wire.cuts == 1
    assert same(out, v3)
    assert (result.start != "", result.fallback) == (True, "")


def test_an_edge_that_is_longer_than_announced_is_cut_off(tmp_path, shop, edge, monkeypatch):
    _, (v1, _, v3) = shop
    out = tmp_path / "m.safetensors"
    out.write_bytes(v1.read_bytes())
    monkeypatch.setattr(install, "_MARGIN", 0)
    monkeypatch.setattr(install, "_MARGIN_BYTES", 10)
    edge.pull(f"{MODEL}:v3", out)
    assert same(out, v3)


# Two at once


def test_two_pulls_to_one_file(tmp_path, shop, edge):
    _, (v1, v2, v3) = shop
    out = tmp_path / "m.safetensors"
    out.write_bytes(v1.read_bytes())
    with ThreadPoolExecutor(4) as pool:
        wanted = [f"{MODEL}:v2", f"{MODEL}:v3"] * 2
        list(pool.map(lambda name: edge.pull(name, out), wanted))
    assert same(out, v2) or same(out, v3)
    assert leftovers(tmp_path) == []


def test_two_processes_that_pull_one_version_to_two_files(tmp_path, shop, edge):
    _, (_, _, v3) = shop
    outs = [tmp_path / f"{number}.safetensors" for number in range(3)]
    started = [edge.start("pull", f"{MODEL}:v3", "-o", out, "--json", cwd=tmp_path) for out in outs]
    results = [process.communicate(timeout=PATIENCE_S) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], results
    assert all(same(out, v3) for out in outs)
    # The first fetched it for all.
    found = [json.loads(out) for out, _ in results]
    assert sorted(bool(one["nbytes"]) for one in found) == [False, False, True]


def test_the_inventory_survives_many_writers(tmp_path, edge):
    cache = edge.places.make_cache()
    paths = [save(tmp_path / f"{n}.safetensors", {"w": np.full(9, n, "f4")}) for n in range(12)]
    barrier = threading.Barrier(4)

    def look(some):
        barrier.wait()
        for path in some:
            install.Inventory(cache).look(path)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(look, [paths[n::4] for n in range(4)]))
    assert {one.path for one in install.Inventory(cache).all()} == {str(path) for path in paths}


def test_an_inventory_that_was_spoiled_is_made_anew(tmp_path, shop, edge):
    _, (_, _v2, v3) = shop
    out = tmp_path / "m.safetensors"
    edge.pull(f"{MODEL}:v2", out)
    for text in ("", "{", "[1]", '[{"path": 3}]', "null"):
        (edge.home / "cache" / "held.json").write_text(text)
        assert edge.pull(f"{MODEL}:v2", out).hops == 0
    (edge.home / "cache" / "held.json").write_text("[")
    result = edge.pull(f"{MODEL}:v3", out)
    assert result.start
    assert same(out, v3)


# Less than everything


def test_a_lossy_copy(tmp_path, shop, edge):
    _, (v1, _, _) = shop
    out = tmp_path / "small.safetensors"
    result = edge.pull(f"{MODEL}:v1", out, quality="size=5%")
    assert result.nbytes <= 0.055 * v1.stat().st_size
    with edge.client() as client:
        found = client.version(MODEL, f"@{result.digest}")
    assert found["of"] == digest_of(v1)
    assert found["bound"]["quality"] == "size=5%"
    again = edge.pull(f"{MODEL}:v1", out, quality="size=5%")
    assert (again.hops, again.nbytes) == (0, 0)
    with pytest.raises(ConfigError):
        edge.pull(f"{MODEL}:v1", out, quality="best")


def test_layers_are_taken_one_by_one(tmp_path, hub):
    author = Machine(tmp_path / "author", hub.url, hub.admin_token)
    (v1,) = line(tmp_path, 1)
    author.push(v1, f"{MODEL}:v1", layers=[limosa.Target(bits=3), limosa.Lossless()])
    edge = Machine(tmp_path / "edge", hub.url, hub.admin_token)
    out = tmp_path / "m.safetensors"
    coarse = edge.pull(f"{MODEL}:v1", out, layer=1)
    assert not same(out, v1)
    assert digest_of(out) == coarse.digest
    fine = edge.pull(f"{MODEL}:v1", out)
    assert same(out, v1)
    assert coarse.nbytes < 0.5 * fine.whole_nbytes
    with pytest.raises(ConfigError, match="no such layer"):
        edge.pull(f"{MODEL}:v1", out, layer=7)


def test_single_tensors_by_ranges(tmp_path, shop, edge):
    _server, (_v1, _, _v3) = shop
    with edge.client() as client:
        result = pull_tensors(
            client, parse_reference(f"{MODEL}:v3"), ["norm.bias", "norm.weight"],
            tmp_path / "t.safetensors", places=edge.places,
        )  # fmt: skip
        whole = client.plan(MODEL, "v1")["nbytes"]
    from safetensors.numpy import load_file

    expected = tuned(tuned(trained(), 1, 0.1), 2, 0.1)
    assert_equal(
        load_file(tmp_path / "t.safetensors"),
        {name: expected[name] for name in ("norm.bias", "norm.weight")},
    )
    assert result.nbytes < 0.4 * whole
    with edge.client() as client, pytest.raises(ConfigError, match="no such tensor"):
        pull_tensors(
            client, parse_reference(f"{MODEL}:v3"), ["nothing"], tmp_path / "u.safetensors",
            places=edge.places,
        )  # fmt: skip


def test_single_tensors_of_what_is_held(tmp_path, shop, edge):
    edge.pull(f"{MODEL}:v3", tmp_path / "m.safetensors")
    with edge.client() as client:
        result = pull_tensors(
            client, parse_reference(f"{MODEL}:v3"), ["norm.bias"], tmp_path / "t.safetensors",
            places=edge.places,
        )  # fmt: skip
    assert result.nbytes == 0


# Who is told, and who may ask


def test_a_device_tells_what_it_holds_of_this_hub_alone(tmp_path, shop, hub):
    server, _ = shop
    admin = Machine(tmp_path / "admin", server.url, server.admin_token)
    with admin.client() as client:
        made = client.post("/v1/devices", {"name": "camera", "scopes": ["read:team/*"]})
    v1, _, _ = line(tmp_path)
    Machine(tmp_path / "author", hub.url, hub.admin_token).push(v1, "team/secret:v1")
    camera = Machine(tmp_path / "camera", server.url, made["token"])
    Machine(camera.home, hub.url, hub.admin_token).pull(
        "team/secret:v1", tmp_path / "s.safetensors"
    )
    out = tmp_path / "m.safetensors"
    camera.pull(f"{MODEL}:v2", out)
    with admin.client() as client:
        devices = {one["name"]: one["holds"] for one in client.get("/v1/devices")["devices"]}
    assert devices["camera"] == [{"repository": MODEL, "digest": digest_of(out), "path": str(out)}]


def test_who_may_not_read_finds_nothing(tmp_path, shop):
    server, _ = shop
    admin = Machine(tmp_path / "admin", server.url, server.admin_token)
    with admin.client() as client:
        token = client.post("/v1/tokens", {"name": "x", "scopes": ["read:other/*"]})["token"]
    with pytest.raises(NotFoundError):
        Machine(tmp_path / "x", server.url, token).pull(MODEL, tmp_path / "m.safetensors")
    with pytest.raises(AuthError):
        Machine(tmp_path / "y", server.url, "").pull(MODEL, tmp_path / "m.safetensors")


def test_anonymous_readers_where_the_hub_allows_them(tmp_path):
    with running_hub(tmp_path / "hub", anonymous=("open/*",)) as server:
        (v1,) = line(tmp_path, 1)
        Machine(tmp_path / "author", server.url, server.admin_token).push(v1, "open/model:v1")
        out = tmp_path / "m.safetensors"
        Machine(tmp_path / "reader", server.url, "").pull("open/model:v1", out)
    assert same(out, v1)


def test_offline_copies_what_is_here_and_says_what_is_not(tmp_path, shop, edge):
    server, (_, v2, _) = shop
    edge.pull(f"{MODEL}:v2", tmp_path / "a.safetensors")
    named, places = parse_reference(f"{MODEL}:v2"), edge.places
    out = tmp_path / "b.safetensors"
    result = pull_offline(named, out, places=places, hub=server.url)
    assert (result.copied, same(out, v2)) == (True, True)
    by_digest = parse_reference(f"{MODEL}@{digest_of(v2)}")
    pull_offline(by_digest, tmp_path / "c.safetensors", places=places, hub=server.url)
    for name, hub in (
        (MODEL, server.url),
        (f"{MODEL}:v3", server.url),
        (f"{MODEL}:v2", "http://x"),
    ):
        with pytest.raises(TransportError, match="offline"):
            pull_offline(parse_reference(name), out, places=places, hub=hub)


def test_a_hub_that_cannot_be_reached(tmp_path):
    nobody = Machine(tmp_path / "edge", "http://127.0.0.1:9", "")
    with pytest.raises(TransportError, match="cannot be reached"):
        nobody.pull(MODEL, tmp_path / "m.safetensors")
