"""Push, against a hub that runs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("fastapi")

from codec_models import trained, tuned
from hubs import PATIENCE_S, Machine, Wire, digest_of, line, running_hub, save

import limosa
from limosa.errors import (
    AuthError,
    ChecksumError,
    ConfigError,
    ConflictError,
    FormatError,
    NotFoundError,
)
from limosa.exchange import publish
from limosa.exchange.held import Inventory
from limosa.exchange.publish import Description

MODEL = "team/detector"


@pytest.fixture
def hub(tmp_path, kept):
    with running_hub(tmp_path / "hub", **kept()) as server:
        yield server


@pytest.fixture
def author(tmp_path, hub):
    return Machine(tmp_path / "author", hub.url, hub.admin_token)


def scoped(hub, tmp_path, *scopes):
    """A machine whose token allows less."""
    admin = Machine(tmp_path / "admin", hub.url, hub.admin_token)
    with admin.client() as client:
        token = client.post("/v1/tokens", {"name": "x", "scopes": list(scopes)})["token"]
    return Machine(tmp_path / "scoped", hub.url, token)


def test_versions_of_a_line_are_coded_against_the_one_before(tmp_path, author):
    v1, v2, v3 = line(tmp_path)
    results = [author.push(path, f"{MODEL}:{path.stem}") for path in (v1, v2, v3)]
    assert [result.base for result in results] == ["", "v1", "v2"]
    assert all(result.sent == result.nbytes for result in results)
    assert results[1].sent < 0.2 * results[0].sent
    with author.client() as client:
        found = client.repository(MODEL)
    assert [one["name"] for one in found["versions"]] == ["v1", "v2", "v3"]
    assert [one["digest"] for one in found["versions"]] == [digest_of(p) for p in (v1, v2, v3)]


def test_what_is_sent_is_little_more_than_the_update(tmp_path, hub):
    v1, v2, _ = line(tmp_path)
    with Wire(hub.url) as wire:
        author = Machine(tmp_path / "author", wire.url, hub.admin_token)
        author.push(v1, f"{MODEL}:v1")
        wire.measure()
        result = author.push(v2, f"{MODEL}:v2")
    limosa.diff(v1, v2, tmp_path / "update")
    best = (tmp_path / "update").stat().st_size
    assert result.nbytes <= 1.01 * best
    # All of HTTP included.
    assert wire.up <= 1.02 * best + 4096


def test_a_model_that_is_nothing_like_the_others_goes_whole(tmp_path, author):
    author.push(save(tmp_path / "a.safetensors", trained(0)), f"{MODEL}:v1")
    other = {name: -array for name, array in trained(99).items()}
    result = author.push(save(tmp_path / "b.safetensors", other), f"{MODEL}:v2")
    assert result.base == ""


def test_the_nearest_of_several_bases_is_chosen_not_the_newest(tmp_path, author):
    base = trained(0)
    for number, seed in enumerate((0, 7, 8), 1):
        author.push(save(tmp_path / f"{number}.safetensors", trained(seed)), f"{MODEL}:v{number}")
    result = author.push(
        save(tmp_path / "next.safetensors", tuned(base, share=0.05)), f"{MODEL}:v4"
    )
    assert result.base == "v1"


def test_a_base_that_this_machine_does_not_know_of_is_named(tmp_path, author, hub):
    v1, v2, _ = line(tmp_path)
    author.push(v1, f"{MODEL}:v1")
    colleague = Machine(tmp_path / "colleague", hub.url, hub.admin_token)
    assert colleague.push(v2, f"{MODEL}:v2", bases=[v1]).base == "v1"


def test_a_base_that_the_hub_lacks_is_refused(tmp_path, author):
    v1, v2, _ = line(tmp_path)
    with pytest.raises(ConfigError, match="the hub does not have this base"):
        author.push(v2, f"{MODEL}:v2", bases=[v1])


def test_a_base_that_changed_on_the_disk_is_no_base(tmp_path, author):
    v1, v2, _ = line(tmp_path)
    author.push(v1, f"{MODEL}:v1")
    save(v1, trained(5))
    assert author.push(v2, f"{MODEL}:v2").base == ""


def test_the_same_model_is_not_sent_again(tmp_path, hub):
    (v1,) = line(tmp_path, 1)
    with Wire(hub.url) as wire:
        author = Machine(tmp_path / "author", wire.url, hub.admin_token)
        first = author.push(v1, f"{MODEL}:v1")
        wire.measure()
        again = author.push(v1, f"{MODEL}:v1")
        other_name = author.push(v1, f"{MODEL}:release-1")
        assert wire.up < 8192
    assert (again.known, again.sent) == (other_name.known, other_name.sent) == (True, 0)
    with author.client() as client:
        assert client.version(MODEL, "release-1")["digest"] == first.digest


def test_a_version_never_changes_and_this_is_said_before_encoding(tmp_path, author, monkeypatch):
    v1, v2, _ = line(tmp_path)
    author.push(v1, f"{MODEL}:v1")
    monkeypatch.setattr(publish, "_encode", lambda *rest: pytest.fail("it was encoded"))
    with pytest.raises(ConflictError, match="the version exists"):
        author.push(v2, f"{MODEL}:v1")


def test_who_may_not_push_is_told_before_encoding(tmp_path, hub, author, monkeypatch):
    v1, v2, _ = line(tmp_path)
    author.push(v1, f"{MODEL}:v1")
    reader = scoped(hub, tmp_path, "read:team/*")
    monkeypatch.setattr(publish, "_encode", lambda *rest: pytest.fail("it was encoded"))
    with pytest.raises(AuthError, match="does not allow to push"):
        reader.push(v2, f"{MODEL}:v2")
    stranger = Machine(tmp_path / "stranger", hub.url, "limosa_" + "0" * 64)
    with pytest.raises(AuthError):
        stranger.push(v2, f"{MODEL}:v2")
    with pytest.raises(AuthError):
        Machine(tmp_path / "nobody", hub.url, "").push(v2, f"{MODEL}:v2")


def test_who_may_push_to_one_repository_makes_it(tmp_path, hub):
    (v1,) = line(tmp_path, 1)
    owner = scoped(hub, tmp_path, "push:team/detector")
    owner.push(v1, f"{MODEL}:v1")
    with pytest.raises(AuthError):
        owner.push(v1, "team/other:v1")


def test_what_a_sender_says_arrives_with_the_version(tmp_path, author):
    v1, v2, _ = line(tmp_path)
    author.push(v1, f"{MODEL}:v1")
    words = Description("mosaic off", {"map": 0.61, "loss": 1e-3}, ["v1"], ["stable", "night"])
    author.push(v2, f"{MODEL}:v2", description=words)
    with author.client() as client:
        found = client.version(MODEL, "stable")
        tags = {tag["name"]: tag["version"] for tag in client.repository(MODEL)["tags"]}
    assert (found["name"], found["notes"], found["parents"]) == ("v2", "mosaic off", ["v1"])
    assert found["metrics"] == {"map": 0.61, "loss": 1e-3}
    assert tags == {"stable": "v2", "night": "v2"}


def test_layers_are_sent_in_one_blob(tmp_path, author):
    (v1,) = line(tmp_path, 1)
    result = author.push(v1, f"{MODEL}:v1", layers=[limosa.Target(bits=3), limosa.Lossless()])
    with author.client() as client:
        coarse = client.plan(MODEL, "v1", layer=1)
        assert 0 < coarse["nbytes"] < 0.5 * result.nbytes
        assert client.plan(MODEL, "v1")["nbytes"] == result.nbytes


def test_layers_of_a_model_that_the_hub_has_without_them_are_not_dropped_silently(tmp_path, author):
    (v1,) = line(tmp_path, 1)
    layers = [limosa.Target(bits=3), limosa.Lossless()]
    author.push(v1, f"{MODEL}:v1", description=Description(tags=["latest"]))
    for name in ("v1", "again"):
        with pytest.raises(ConflictError, match="no layers"):
            author.push(v1, f"{MODEL}:{name}", layers=layers)
    with author.client() as client:
        assert [one["name"] for one in client.repository(MODEL)["versions"]] == ["v1"]
        # What the message says to do.
        client.delete(f"/v1/repos/{MODEL}/tags/latest")
        client.delete(f"/v1/repos/{MODEL}/versions/v1")
    with pytest.raises(ConflictError, match="no layers"):
        author.push(v1, f"{MODEL}:v1", layers=layers)  # the blob is still there
    with author.client() as client:
        client.post("/v1/gc", {"thin": True})
    assert not author.push(v1, f"{MODEL}:v1", layers=layers).known
    # With the layers that the hub has, it is the same push again.
    assert author.push(v1, f"{MODEL}:v1", layers=layers).known
    with pytest.raises(ConflictError, match="2 layers"):
        author.push(v1, f"{MODEL}:v1", layers=[limosa.Target(bits=2), *layers])


def test_what_is_named_beside_a_model_that_the_hub_has_is_looked_at(tmp_path, author):
    v1, v2, v3 = line(tmp_path)
    author.push(v1, f"{MODEL}:v1", description=Description(tags=["stable"]))
    for model in (v1, v2):
        for parent in ("nope", "team/other:v1"):
            words = Description(parents=[parent])
            with pytest.raises(NotFoundError):
                author.push(model, f"{MODEL}:v2", description=words)
        with pytest.raises(ConfigError, match="does not have this base"):
            author.push(model, f"{MODEL}:v2", bases=[v3])
    with author.client() as client:
        assert [one["name"] for one in client.repository(MODEL)["versions"]] == ["v1"]
        digest = client.version(MODEL, "v1")["digest"]
    # A tag moves: what it means now is kept.
    words = Description(parents=["v1", "stable", f"@{digest}", f"{MODEL}:v1"])
    author.push(v2, f"{MODEL}:v2", description=words)
    with author.client() as client:
        assert client.version(MODEL, "v2")["parents"] == ["v1", "v1", digest, f"{MODEL}:v1"]


@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_other_kinds_of_models(tmp_path, author, kind):
    (v1,) = line(tmp_path, 1)
    if kind == "folder":
        path = tmp_path / "model"
        path.mkdir()
        v1.rename(path / "model.safetensors")
        (path / "config.json").write_text('{"layers": 3}')
    else:
        path = tmp_path / "m.npz"
        np.savez(path, w=np.arange(1000, dtype="f4"))
    result = author.push(path, f"{MODEL}:v1")
    out = tmp_path / ("back" if kind == "folder" else "back.npz")
    receiver = Machine(tmp_path / "receiver", author.url, author.token)
    assert receiver.pull(f"{MODEL}:v1", out).digest == result.digest == digest_of(out)
    if kind == "folder":
        assert (out / "config.json").read_text() == '{"layers": 3}'


def test_a_push_that_was_killed_goes_on_where_it_stopped(tmp_path, hub):
    # Larger than one piece of an upload, which is what a hub keeps of a connection that ended.
    (v1,) = line(tmp_path, 1, rows=9000)
    with Wire(hub.url) as wire:
        author = Machine(tmp_path / "author", wire.url, hub.admin_token)
        wire.hold_up_after = 12 * 2**20
        process = author.start("push", v1, f"{MODEL}:v1", cwd=tmp_path)
        assert wire.held.wait(PATIENCE_S)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        first = wire.up
        wire.drop()
        found = author.json("push", v1, f"{MODEL}:v1", cwd=tmp_path)
        second = wire.up
    total = found["nbytes"]
    assert found["sent"] == total - 8 * 2**20
    assert second < total - 8 * 2**20 + 2**16
    assert first + second < total + 8 * 2**20
    assert list((author.home / "cache" / "uploads").iterdir()) == []
    out = tmp_path / "out.safetensors"
    receiver = Machine(tmp_path / "receiver", hub.url, hub.admin_token)
    receiver.pull(f"{MODEL}:v1", out)
    assert digest_of(out) == digest_of(v1)


def test_a_killed_push_is_not_encoded_again(tmp_path, hub, monkeypatch):
    (v1,) = line(tmp_path, 1)
    author = Machine(tmp_path / "author", hub.url, hub.admin_token)

    def fail(*rest, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(publish, "_send", fail)
        with pytest.raises(KeyboardInterrupt):
            author.push(v1, f"{MODEL}:v1")
    monkeypatch.setattr(publish, "_encode", lambda *rest: pytest.fail("encoded again"))
    assert author.push(v1, f"{MODEL}:v1").sent > 0


def test_connections_that_end_do_not_end_a_push(tmp_path, hub):
    (v1,) = line(tmp_path, 1, rows=9000)
    with Wire(hub.url) as wire:
        author = Machine(tmp_path / "author", wire.url, hub.admin_token)
        # The answer to the first piece gets lost: the hub has it, the sender does not know.
        wire.cut_after = 1500
        result = author.push(v1, f"{MODEL}:v1")
    assert wire.cuts == 1
    with author.client() as client:
        assert client.version(MODEL, "v1")["digest"] == result.digest


def test_a_blob_that_the_hub_finds_bad_is_made_anew_by_the_next_push(tmp_path, author, monkeypatch):
    (v1,) = line(tmp_path, 1)
    encode = publish._encode

    def badly(model, blob, *rest):
        encode(model, blob, *rest)
        data = bytearray(blob.read_bytes())
        data[len(data) // 2] ^= 1
        blob.write_bytes(data)

    with monkeypatch.context() as patch:
        patch.setattr(publish, "_encode", badly)
        with pytest.raises(FormatError):
            author.push(v1, f"{MODEL}:v1")
    with author.client() as client, pytest.raises(NotFoundError):
        client.version(MODEL, "v1")
    assert author.push(v1, f"{MODEL}:v1").sent > 0


def test_who_announces_another_model_than_the_blob_is_refused(tmp_path, author):
    v1, v2, _ = line(tmp_path)
    author.push(v1, f"{MODEL}:v1")
    here = Inventory(author.places.make_cache())
    lie = here.look(v2)
    here.remember(v1, lie.state, lie.form, kind="safetensors")
    with pytest.raises(ChecksumError):
        author.push(v1, f"{MODEL}:v2")


def test_two_pushes_of_one_model_at_once_send_it_once(tmp_path, author):
    (v1,) = line(tmp_path, 1, rows=3000)
    started = [
        author.start("push", v1, f"{MODEL}:{name}", "--json", cwd=tmp_path) for name in ("a", "b")
    ]
    ended = [process.communicate(timeout=PATIENCE_S) for process in started]
    assert [process.returncode for process in started] == [0, 0], ended
    assert sorted(json.loads(out)["known"] for out, _ in ended) == [False, True]
    with author.client() as client:
        assert {one["name"] for one in client.repository(MODEL)["versions"]} == {"a", "b"}


def test_what_a_push_left_that_was_killed_while_it_encoded_goes(tmp_path, author):
    v1, _, _ = line(tmp_path)
    program = (
        "import os, signal, sys\n"
        "from limosa.cli.main import main\n"
        "from limosa.files.atomic import AtomicFile\n"
        "AtomicFile.commit = lambda self: os.kill(os.getpid(), signal.SIGKILL)\n"
        "main(sys.argv[1:])\n"
    )
    author.home.mkdir()
    ended = subprocess.run(
        [sys.executable, "-c", program, "push", str(v1), f"{MODEL}:v1"], env=author.env(),
        capture_output=True, timeout=120,
    )  # fmt: skip
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    uploads = author.home / "cache" / "uploads"
    assert len(list(uploads.iterdir())) == 1
    author.push(v1, f"{MODEL}:v1")
    assert list(uploads.iterdir()) == []


def test_a_reference_without_a_name_is_no_version(tmp_path, author):
    (v1,) = line(tmp_path, 1)
    with pytest.raises(ConfigError, match="a version needs a name"):
        author.push(v1, MODEL)


def test_bytes_that_change_on_their_way_are_sent_again(tmp_path, author, monkeypatch):
    (v1,) = line(tmp_path, 1)
    from limosa.hub import client

    right, wrong = client.content_digest, iter(["sha-256=:" + "A" * 43 + "=:"])
    monkeypatch.setattr(client, "content_digest", lambda found: next(wrong, right(found)))
    assert author.push(v1, f"{MODEL}:v1").sent > 0
    assert next(wrong, None) is None


def test_what_a_push_left_that_was_killed_after_the_hub_had_it_goes_with_the_next(tmp_path, author):
    path = line(tmp_path, 1)[0]
    author.push(path, f"{MODEL}:v1")
    uploads = author.home / "cache" / "uploads"
    digest = author.client().version(MODEL, "v1")["digest"]
    (uploads / f"{digest[:32]}-{'0' * 32}.limosa").write_bytes(b"left")
    (uploads / "of-another-model.limosa").write_bytes(b"left")
    assert author.push(path, f"{MODEL}:v1").known
    assert [one.name for one in uploads.iterdir()] == ["of-another-model.limosa"]
