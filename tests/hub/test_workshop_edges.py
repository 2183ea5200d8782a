"""Edges that a hub makes, what they were thought to take, and who reads along meanwhile."""

from __future__ import annotations

import threading
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from workshop import LIMITS, mixed, tuned, unpacked

import limosa
from limosa import ChecksumError, LimosaError
from limosa.errors import TransportError
from limosa.exchange import local
from limosa.exchange.forms import manifest_of
from limosa.exchange.workshop.estimate import estimate
from limosa.exchange.workshop.make import make_edge
from limosa.exchange.workshop.making import Makings
from limosa.exchange.workshop.unpacked import base_of
from limosa.exchange.workshop.verify import check_state, read_through, verify_blob


def made(base: Path | None, target: Path) -> bytes:
    parts: list[bytes] = []
    make_edge(base_of(base, LIMITS, 1), target, parts.append, limits=LIMITS, threads=1)
    return b"".join(parts)


def sizes(bases: list[Path | None], target: Path) -> list[int]:
    return estimate(bases, target, limits=LIMITS, threads=1)


def test_an_edge_gives_the_target_from_the_base(tmp_path):
    old, new = unpacked(tmp_path / "old", mixed()), unpacked(tmp_path / "new", tuned(mixed()))
    for base in (None, old):
        (tmp_path / "edge").write_bytes(made(base, new))
        held = base_of(base, LIMITS, 1)
        found = verify_blob(tmp_path / "edge", held, tmp_path / f"out-{base is None}",
                            limits=LIMITS)  # fmt: skip
        assert found.manifest == manifest_of(base_of(new, LIMITS, 1))
        through = read_through(tmp_path / "edge", held, limits=LIMITS)
        assert (through.state, through.memory) == (found.manifest.state, found.memory)
    assert len(made(old, new)) < 0.5 * len(made(None, new))


def test_an_edge_of_a_sender_s_file_is_what_the_sender_would_make(tmp_path):
    """The same bytes, so that a hub that has the one does not keep the other beside it."""
    for number, model in enumerate((mixed(), tuned(mixed()))):
        limosa.save_file(model, tmp_path / f"{number}.limosa")
        local.decompress(tmp_path / f"{number}.limosa", tmp_path / f"{number}.safetensors")
    folders = [unpacked(tmp_path / str(n), tmp_path / f"{n}.safetensors") for n in (0, 1)]
    local.diff(
        tmp_path / "0.safetensors", tmp_path / "1.safetensors", tmp_path / "update", threads=1
    )
    assert made(folders[0], folders[1]) == (tmp_path / "update").read_bytes()


def test_a_state_that_is_not_the_wanted_one_is_refused():
    check_state("ab", "ab", "edge")
    with pytest.raises(ChecksumError):
        check_state("ab", "cd", "edge")


def test_estimates_of_small_models_are_exact(tmp_path):
    target = unpacked(tmp_path / "t", tuned(mixed()))
    other = {"embed": mixed()["embed"].T.copy(), "x": np.ones(3)}
    bases = [None, unpacked(tmp_path / "b", mixed()), unpacked(tmp_path / "o", other),
             unpacked(tmp_path / "e", {})]  # fmt: skip
    assert sizes(bases, target) == [len(made(base, target)) for base in bases]


def network(seed: int, rows: int = 256) -> dict[str, np.ndarray]:
    """About 20 MB whose tensors differ in dtype, scale and how well they can be coded."""
    rng = np.random.default_rng(seed)
    found: dict[str, np.ndarray] = {"ids": np.arange(200_000)}
    for layer in range(4):
        scale = 0.02 * 2.0**layer * rng.uniform(0.5, 2, (rows, 1))
        found[f"{layer}.weight"] = (rng.standard_normal((rows, 3000)) * scale).astype("f4")
        low = (rng.standard_normal((rows, 4000)) * scale).astype(ml_dtypes.bfloat16)
        found[f"{layer}.low"] = low
    found["mask"] = (rng.random((rows, 3000)) < 0.1).astype("f4")
    return found


def test_estimates_of_large_models_are_close(tmp_path):
    """Within 5 % (measured: 0.3 %), for the whole and against bases near, far and partial."""
    model = network(0)
    assert sum(array.nbytes for array in model.values()) > 2**24
    target = unpacked(tmp_path / "t", tuned(model))
    partial = {name: array for name, array in model.items() if name.startswith(("0", "1"))}
    other = {**model, "0.weight": model["0.weight"].T.copy(), "new": np.ones(5)}
    bases = [None, *(unpacked(tmp_path / str(n), b) for n, b in enumerate((model, partial, other)))]
    for found, base in zip(sizes(bases, target), bases, strict=True):
        exact = len(made(base, target))
        assert found == pytest.approx(exact, rel=0.05), base


def wait_for(thing: threading.Event) -> None:
    assert thing.wait(60)


def test_all_who_ask_read_the_bytes_of_one_making(tmp_path):
    makings, runs, go = Makings(tmp_path, 2), [], threading.Event()

    def make(sink, path: Path) -> None:
        runs.append(path)
        sink(b"first")
        wait_for(go)
        sink(memoryview(b" second"))
        assert path.read_bytes() == b"first second"

    one = makings.stream(("a",), make)
    assert next(one) == b"first"
    two = makings.stream(("a",), make)
    assert next(two) == b"first"
    go.set()
    assert b"".join(one) == b"".join(two) == b" second"
    makings.close()
    assert len(runs) == 1
    assert not list(tmp_path.iterdir())


def test_who_starts_a_making_may_go_away(tmp_path):
    makings, go, kept = Makings(tmp_path, 1), threading.Event(), []

    def make(sink, path: Path) -> None:
        wait_for(go)
        sink(b"bytes")
        kept.append(path.read_bytes())

    makings.stream(("a",), make).close()
    go.set()
    makings.close()
    assert kept == [b"bytes"]


@pytest.mark.parametrize(
    ("error", "told"),
    [(ChecksumError("wrong"), ChecksumError), (OSError("full"), TransportError)],
)
def test_all_who_read_along_are_told_of_an_error(tmp_path, error, told):
    makings, go = Makings(tmp_path, 1), threading.Event()

    def make(sink, path: Path) -> None:
        sink(b"some")
        wait_for(go)
        raise error

    readers = [makings.stream(("a",), make) for _ in range(2)]
    assert [next(reader) for reader in readers] == [b"some"] * 2
    go.set()
    for reader in readers:
        with pytest.raises(told):
            next(reader)
    makings.close()
    assert not list(tmp_path.iterdir())
    # It is not remembered: the next one tries anew.
    makings = Makings(tmp_path, 1)
    assert b"".join(makings.stream(("a",), lambda sink, path: sink(b"well"))) == b"well"
    makings.close()


def test_what_waits_when_the_hub_stops_is_told_so(tmp_path):
    makings, started, go = Makings(tmp_path, 1), threading.Event(), threading.Event()

    def slow(sink, path: Path) -> None:
        started.set()
        wait_for(go)
        sink(b"slow")

    running = makings.stream(("slow",), slow)
    wait_for(started)
    waiting = makings.stream(("waits",), slow)
    closer = threading.Thread(target=makings.close)
    closer.start()
    found: list[LimosaError] = []

    def read() -> None:
        try:
            next(waiting)
        except LimosaError as error:
            found.append(error)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(30)
    assert [type(error) for error in found] == [TransportError]
    go.set()
    closer.join()
    assert b"".join(running) == b"slow"
    with pytest.raises(TransportError):
        makings.stream(("late",), slow)
    assert not list(tmp_path.iterdir())
