"""A hub that is killed again and again, while it is pushed to, pulled from and cleaned up."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from hubs import PATIENCE_S, Machine, digest_of, line, same
from servers import free_port

from limosa.errors import LimosaError
from limosa.exchange.publish import Description
from limosa.hub.store.store import Store
from limosa.hub.store.upkeep import fsck, gc

MODEL = "team/detector"
# Kills by the clock, while all goes on at once; and after each step of a push on the disk.
KILLS, STEPS = 5, 12
VERSIONS = 25
# A hub that dies after so many steps on the disk, from when the file is there.
_MORTAL = """
import os, runpy, signal, sys
from contextlib import contextmanager
from limosa.hub.store.blobs import BlobStore
from limosa.hub.store.database import Database
begun, left = sys.argv.pop(1), int(sys.argv.pop(1))

def step():
    global left
    if os.path.exists(begun):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

def stepping(plain):
    def act(*arguments):
        found = plain(*arguments)
        step()
        return found
    return act

for name in ("put_file", "put_bytes", "delete"):
    setattr(BlobStore, name, stepping(getattr(BlobStore, name)))
plain = Database.begin

@contextmanager
def begin(self):
    with plain(self) as connection:
        yield connection
    step()

Database.begin = begin
runpy.run_module("limosa.cli.main", run_name="__main__")
"""


class Victim:
    """A hub in a process of its own, that starts again in the same folder and at the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{free_port()}"
        self.token = ""
        self._process: subprocess.Popen | None = None

    def start(self, steps: int = 0) -> None:
        """Start it, to die by itself after some steps on the disk."""
        port = self.url.rsplit(":", 1)[1]
        begun = self.folder.with_name("begun")
        begun.unlink(missing_ok=True)
        command = [
            sys.executable, "-c", _MORTAL, str(begun), str(steps), "hub", "serve", "--folder",
            str(self.folder), "--port", port, "--chores", "0", "--rate", "0", "--threads", "1",
            "--log-level", "error",
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        end = time.monotonic() + PATIENCE_S
        while not self._is_ready():
            assert self._process.poll() is None, self._process.communicate()[1].decode()
            assert time.monotonic() < end, "the hub does not start"
            time.sleep(0.01)
        if not self.token:
            assert self._process.stdout is not None
            lines = [self._process.stdout.readline().decode() for _ in range(2)]
            self.token = lines[1].split()[-1]
        begun.touch()

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:
                return answer.status == 200
        except (OSError, urllib.error.URLError):
            return False

    def end(self, how: signal.Signals = signal.SIGKILL) -> str:
        """End it; what it said on standard error."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(how)
        return self._process.communicate(timeout=PATIENCE_S)[1].decode()

    def store(self) -> Store:
        """What it left."""
        return Store(f"sqlite:///{self.folder / 'hub.db'}", str(self.folder / "blobs"))

    def let_hours_pass(self) -> None:
        """Locks of the dead end, leases too, and what nobody needs is due."""
        with closing(sqlite3.connect(self.folder / "hub.db")) as database, database:
            database.execute("DELETE FROM locks")
            database.execute("UPDATE blobs SET leased = 0, condemned = condemned - 7200")


class World:
    """What was said to be done, and those who do it."""

    def __init__(self, folder: Path, hub: Victim, versions: list[Path]) -> None:
        self.folder, self.hub = folder, hub
        self.versions = {path.stem: path for path in versions}
        self.digests = {name: digest_of(path) for name, path in self.versions.items()}
        self.new = iter(self.versions)
        self.pushed: set[str] = set()
        self.bad: list[BaseException] = []

    def machine(self, name: str) -> Machine:
        return Machine(self.folder / name, self.hub.url, self.hub.token, pause=0.002)

    def push(self, name: str) -> None:
        words = Description(tags=["latest"])
        self.machine("author").push(self.versions[name], f"{MODEL}:{name}", description=words)
        self.pushed.add(name)

    def push_until_death(self) -> bool:
        """Push new versions, of which nothing is there yet; whether the hub died of it."""
        for name in self.new:
            try:
                self.push(name)
            except LimosaError:
                return True
        return False

    def pull(self, name: str, output: Path, machine: str) -> None:
        self.machine(machine).pull(f"{MODEL}:{name}", output)
        assert same(output, self.versions[name])

    def make_edge(self, base: str, target: str, path: Path) -> None:
        with self.machine("reader").client() as client:
            state = client.version(MODEL, base)["state"]
            client.fetch_edge(MODEL, state, self.digests[target], 2**30, path)

    def collect(self) -> None:
        with self.machine("admin").client() as client:
            client.post("/v1/gc", {"thin": True})

    def under_way(self, chance: random.Random, number: int) -> list[threading.Thread]:
        """Begin some of all that goes on at a hub."""
        there = sorted(self.pushed)
        work = [(self.collect, ()), (self.push, (next(self.new),))]
        if there:
            out = self.folder / f"pulled-{number}.safetensors"
            work.append((self.pull, (chance.choice(there), out, f"edge-{number}")))
        if len(there) > 1:
            base, target = chance.sample(there, 2)
            work.append((self.make_edge, (base, target, self.folder / "edge")))
        threads = [threading.Thread(target=self._try, args=one) for one in work]
        for thread in threads:
            thread.start()
        return threads

    def _try(self, act, arguments) -> None:
        try:
            act(*arguments)
        except LimosaError:
            pass  # the hub died, and whoever asked was told
        except BaseException as error:
            self.bad.append(error)

    def check_what_is_left(self) -> None:
        """Right after the kill: all that was said is true, and nothing is there by half."""
        assert self.bad == []
        store = self.hub.store()
        try:
            assert fsck(store, read_data=True).problems == []
            if not self.pushed:
                return
            seen = {one.name: one.node.digest for one in store.catalog.versions(MODEL)}
            assert self.pushed <= set(seen)
            assert seen.items() <= self.digests.items()
            for name, digest in seen.items():
                assert store.catalog.manifest(MODEL, digest).digest == digest, name
                assert store.graph.plan(MODEL, [], digest)[1], name
        finally:
            store.close()


def test_a_hub_that_is_killed_keeps_what_it_said(tmp_path):
    chance = random.Random(6)
    hub = Victim(tmp_path / "hub")
    world = World(tmp_path, hub, line(tmp_path, VERSIONS, rows=200))
    died = 0
    moments = [*[0] * KILLS, *range(1, STEPS + 1)]
    chance.shuffle(moments)
    for number, steps in enumerate(moments):
        hub.start(steps)
        threads: list[threading.Thread] = []
        if steps:
            died += world.push_until_death()
        else:
            threads = world.under_way(chance, number)
            time.sleep(chance.uniform(0.0, 0.7))
        hub.end()
        for thread in threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "somebody waits for a dead hub"
        hub.let_hours_pass()
        world.check_what_is_left()
    assert died == STEPS
    assert world.pushed, "the hub never lived long enough to be tested"

    hub.start()
    for name in world.versions:
        world.push(name)
    for name in world.versions:
        world.pull(name, tmp_path / "last.safetensors", f"last-{name}")
    errors = hub.end(signal.SIGTERM)
    assert "Traceback" not in errors
    hub.let_hours_pass()
    world.check_what_is_left()
    # Nothing lies about that nobody will ever remove.
    assert sorted(path.name for path in (hub.folder / "work").iterdir()) == ["decoded"]
    with closing(sqlite3.connect(hub.folder / "hub.db")) as database, database:
        database.execute("UPDATE uploads SET created = 0, expires = 0")
    store = hub.store()
    gc(store, cache_bytes=0)
    assert list(store.blobs.list("uploads/")) == []
    assert fsck(store, read_data=True).problems == []
    store.close()
