"""A folder at the output: what pulls put there is replaced, what is somebody's stays."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from codec_models import trained, tuned
from hubs import Machine, leftovers, running_hub, save

from limosa.errors import ConfigError
from limosa.exchange.install import pull_offline
from limosa.hub.reference import parse_reference

MODEL = "team/shard"


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A hub with three versions of a folder, of which tests change nothing."""
    root = tmp_path_factory.mktemp("shop")
    with running_hub(root / "hub") as server:
        author, made, model = Machine(root / "author", server.url, server.admin_token), [], None
        for number in (1, 2, 3):
            model = trained(rows=200) if model is None else tuned(model, share=0.1)
            path = root / f"folder{number}"
            (path / "sub").mkdir(parents=True)
            save(path / "model.safetensors", model)
            (path / "config.json").write_text(json.dumps({"version": number}))
            (path / "sub" / f"only-in-{number}.txt").write_text("x")
            author.push(path, f"{MODEL}:v{number}")
            made.append(path)
        yield server, made


@pytest.fixture
def edge(tmp_path, shop):
    server, _ = shop
    return Machine(tmp_path / "edge", server.url, server.admin_token)


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_folder_of_somebody_else_stays(tmp_path, edge):
    out = tmp_path / "shard"
    out.mkdir()
    (out / "thesis.txt").write_text("important")
    _, errors = edge.run("pull", f"{MODEL}:v1", cwd=tmp_path, status=2)
    assert "thesis.txt" in errors
    assert "-o" in errors
    assert tree(out) == {"thesis.txt": b"important"}
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("output", [".", "../proj", "..", "inner/.."])
def test_the_current_folder_and_those_above_stay(tmp_path, edge, output):
    here = tmp_path / "proj"
    (here / "inner").mkdir(parents=True)
    _, errors = edge.run("pull", f"{MODEL}:v1", "-o", output, cwd=here, status=2)
    assert "current folder" in errors
    assert sorted(path.name for path in here.iterdir()) == ["inner"]


def test_the_home_folder_stays(tmp_path, edge):
    home = tmp_path / "user"
    home.mkdir()
    edge.environment["HOME"] = str(home)
    _, errors = edge.run("pull", f"{MODEL}:v1", "-o", home, cwd=tmp_path, status=2)
    assert "home folder" in errors
    assert home.is_dir()


def test_an_empty_folder_takes_a_model_and_later_ones(tmp_path, shop, edge):
    _, folders = shop
    out = tmp_path / "out"
    out.mkdir()
    for number, folder in enumerate(folders, 1):
        edge.pull(f"{MODEL}:v{number}", out)
        assert tree(out) == tree(folder)
    assert leftovers(tmp_path) == []


def test_what_was_put_beside_a_pulled_model_is_not_lost(tmp_path, shop, edge):
    _, folders = shop
    out = tmp_path / "out"
    edge.pull(f"{MODEL}:v1", out)
    (out / "sub" / "notes.txt").write_text("mine")
    for _ in range(2):  # the list of held models has forgotten the folder the second time
        with pytest.raises(ConfigError, match=r"notes\.txt: not of an earlier pull"):
            edge.pull(f"{MODEL}:v2", out)
    assert tree(out) == {**tree(folders[0]), "sub/notes.txt": b"mine"}
    # What the message says to do helps.
    (out / "sub" / "notes.txt").unlink()
    edge.pull(f"{MODEL}:v2", out)
    assert tree(out) == tree(folders[1])


def test_what_was_changed_in_a_pulled_model_is_not_lost(tmp_path, shop, edge):
    _, folders = shop
    out = tmp_path / "out"
    edge.pull(f"{MODEL}:v1", out)
    (out / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"config\.json: changed since it was pulled"):
        edge.pull(f"{MODEL}:v2", out)
    assert (out / "config.json").read_text() == "{}"
    # What is missing is no loss.
    (out / "config.json").unlink()
    edge.pull(f"{MODEL}:v2", out)
    assert tree(out) == tree(folders[1])


def test_a_file_that_appears_while_it_is_fetched_is_not_lost(tmp_path, shop, edge, monkeypatch):
    out = tmp_path / "out"
    edge.pull(f"{MODEL}:v1", out)
    from limosa.exchange import install

    real = install.open_route

    def slow(*arguments, **named):
        (out / "late.txt").write_text("mine")
        return real(*arguments, **named)

    monkeypatch.setattr(install, "open_route", slow)
    with pytest.raises(ConfigError, match=r"late\.txt"):
        edge.pull(f"{MODEL}:v2", out)
    assert (out / "late.txt").read_text() == "mine"
    assert leftovers(tmp_path) == []


def test_a_version_that_came_there_otherwise_is_replaced(tmp_path, shop, edge):
    """By rsync, say, or in the image of the device: the hub has all of it."""
    _, folders = shop
    out = tmp_path / "out"
    shutil.copytree(folders[0], out)
    result = edge.pull(f"{MODEL}:v2", out)
    assert result.start
    assert tree(out) == tree(folders[1])
    result = edge.pull(f"{MODEL}:v3", out)
    assert tree(out) == tree(folders[2])


def test_a_folder_behind_a_link_is_replaced_where_it_is(tmp_path, shop, edge):
    _, folders = shop
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    edge.pull(f"{MODEL}:v1", link)
    edge.pull(f"{MODEL}:v2", link)
    assert link.is_symlink()
    assert tree(real) == tree(folders[1])


def test_a_machine_that_stops_at_any_moment_can_be_updated_on(tmp_path, shop, edge, monkeypatch):
    _, folders = shop
    out = tmp_path / "out"
    edge.pull(f"{MODEL}:v1", out)
    real = os.replace
    for stop in (0, 1, 0, 1, 2):
        left = [stop]

        def replace(source, target, left=left):
            if str(out) in (str(source), str(target)):
                if left[0] == 0:
                    raise KeyboardInterrupt
                left[0] -= 1
            real(source, target)
            if str(target) == str(out) and left[0] == 0:
                raise KeyboardInterrupt

        wanted = 2 if tree(out) == tree(folders[0]) else 3
        with monkeypatch.context() as patch:
            patch.setattr("limosa.exchange.swap.os.replace", replace)
            with pytest.raises(KeyboardInterrupt):
                edge.pull(f"{MODEL}:v{wanted}", out)
        if not out.exists():
            edge.pull(f"{MODEL}:v1", out)
    edge.pull(f"{MODEL}:v1", out)
    assert tree(out) == tree(folders[0])


def test_offline_too(tmp_path, edge):
    edge.pull(f"{MODEL}:v1", tmp_path / "held")
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("important")
    named = parse_reference(f"{MODEL}:v1")
    with pytest.raises(ConfigError, match=r"thesis\.txt"):
        pull_offline(named, out, places=edge.places, hub="")
    (out / "thesis.txt").unlink()
    pull_offline(named, out, places=edge.places, hub="")
    assert tree(out) == tree(tmp_path / "held")


def test_who_follows_is_told_and_stops(tmp_path, edge):
    out = tmp_path / "out"
    edge.pull(f"{MODEL}:v1", out)
    (out / "log.txt").write_text("of the service")
    _, errors = edge.run(
        "pull", f"{MODEL}:v2", "-o", out, "--follow", "--interval", "0.1", cwd=tmp_path, status=2
    )
    assert "log.txt" in errors


def test_a_repository_around_a_model_is_sent_nowhere_and_never_lost(tmp_path, shop, edge):
    _, folders = shop
    here = tmp_path / "here"
    shutil.copytree(folders[0], here)
    (here / ".git").mkdir()
    (here / ".git" / "config").write_text("url = https://user:password@host")
    (here / ".cache" / "huggingface").mkdir(parents=True)
    (here / ".cache" / "huggingface" / "lock").touch()
    printed, errors = edge.run("push", here, f"{MODEL}:again", "--no-latest", cwd=tmp_path)
    assert "has this model already" in printed
    assert errors.count("left out") == 1
    assert ".git" in errors
    # A copy on this machine is without it as well.
    out = tmp_path / "out"
    assert edge.pull(f"{MODEL}:v1", out).copied
    assert tree(out) == tree(folders[0])
    # What git does meanwhile does not change the model.
    (here / ".git" / "config").write_text("changed")
    out = tmp_path / "next"
    assert edge.pull(f"{MODEL}:v2", out).start
    # Where it lies it is in the way.
    shutil.rmtree(here / ".cache")
    with pytest.raises(ConfigError, match=r"\.git/config: not of an earlier pull"):
        edge.pull(f"{MODEL}:v2", here)
    assert (here / ".git" / "config").read_text() == "changed"


def test_folders_that_are_gone_are_forgotten_by_prune(tmp_path, edge):
    stays, goes = tmp_path / "stays", tmp_path / "goes"
    for out in (stays, goes):
        edge.pull(f"{MODEL}:v1", out)
    shutil.rmtree(goes)
    lists = edge.places.make_cache() / "placed"
    edge.run("cache", "prune", "--dry-run", cwd=tmp_path)
    assert len(list(lists.iterdir())) == 2
    edge.run("cache", "prune", cwd=tmp_path)
    assert len(list(lists.iterdir())) == 1
    edge.pull(f"{MODEL}:v2", stays)
