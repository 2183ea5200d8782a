"""Real servers for tests: PostgreSQL, an S3 and a browser, each started when a test first asks.

`tests/conftest.py` makes them fixtures for all tests. Where the software is missing a test is
skipped, and says what to install; in CI (`CI` is set) it fails.
"""

import importlib.util
import itertools
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_USER = "limosa"
_PATIENCE_S = 60
_BUCKETS = itertools.count(1)
# The S3 ends when this process does, however it does: its standard input is closed then.
_MOTO = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
server.stop()
"""


def missing(what: str, remedy: str) -> None:
    """Skip the test, or fail it in CI, which has to have everything."""
    text = f"{what} is missing; run: {remedy}"
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def postgres_programs() -> Path | None:
    """The folder with initdb and pg_ctl of the newest PostgreSQL here."""
    found = [
        *Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        *(Path(path) for path in [shutil.which("initdb")] if path),
    ]
    return max(found, key=lambda path: path.parts[-3].zfill(4)).parent if found else None


class Postgres:
    """A cluster in a folder that goes away with it; it never runs as root, since it refuses to."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self.folder = Path(tempfile.mkdtemp(prefix="limosa-postgres-"))
        self._as: dict[str, object] = {}
        if os.geteuid() == 0:
            names = {entry.pw_name for entry in pwd.getpwall()}
            user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self._data = self.folder / "data"
        self._number = itertools.count(1)
        self.port = 0

    def _run(self, program: str, *arguments: str) -> int:
        # Not to a pipe: the server inherits it and would hold it open.
        with (self.folder / "programs.log").open("ab") as log:
            return subprocess.run(
                [self._programs / program, *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                cwd=self.folder, timeout=_PATIENCE_S, check=False, **self._as,
            ).returncode  # fmt: skip

    def start(self) -> None:
        made = self._run(
            "initdb", "-D", str(self._data), "-U", _USER, "-A", "trust", "--no-sync",
            "--encoding=UTF8", "--no-locale", "--no-instructions",
        )  # fmt: skip
        # A free port may be taken by somebody else before the server has it.
        for _ in range(5 if made == 0 else 0):
            self.port = free_port()
            settings = (
                f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off "
                "-c synchronous_commit=off -c full_page_writes=off -c max_connections=200"
            )
            if self._run("pg_ctl", "-D", str(self._data), "-w", "-o", settings, "start") == 0:
                return
        log = (self.folder / "programs.log").read_text(encoding="utf-8", errors="replace")
        raise RuntimeError(f"PostgreSQL does not start:\n{log[-2000:]}")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "-w", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str = "postgres") -> str:
        return f"postgresql+psycopg://{_USER}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str) -> None:
        import psycopg

        # By the socket in its folder: the other of its two addresses.
        with psycopg.connect(
            host=str(self.folder), port=self.port, user=_USER, dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(statement)

    def new_database(self) -> str:
        name = f"test_{next(self._number)}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    def drop_database(self, name: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The cluster of this session; stop and start it to see what a hub does without."""
    programs = postgres_programs()
    if programs is None:
        missing("PostgreSQL", "apt-get install postgresql")
    cluster = Postgres(programs)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def postgres_url(postgres: Postgres) -> str:
    """SQLAlchemy's URL of the cluster's first database, which all tests share."""
    return postgres.url()


@pytest.fixture
def postgres_database(postgres: Postgres) -> Iterator[str]:
    """SQLAlchemy's URL of a new, empty database; it goes after the test, with who is connected."""
    name = postgres.new_database()
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def s3_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address, http://127.0.0.1:PORT, of an S3 in a process of its own."""
    if importlib.util.find_spec("moto") is None:
        missing("moto", 'pip install ".[test]"')
    path = tmp_path_factory.mktemp("s3") / "log"
    with path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _MOTO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        )
    try:
        port = process.stdout.readline().decode().strip()
        if not port:
            raise RuntimeError(f"moto does not start:\n{path.read_text(errors='replace')[-2000:]}")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def s3_bucket(s3_url: str) -> str:
    """The url, for BlobStore.open, of a new and empty bucket."""
    return new_bucket(s3_url)


def new_bucket(s3_url: str) -> str:
    """The url, for BlobStore.open, of a new and empty bucket."""
    name = f"test-{next(_BUCKETS)}-{time.monotonic_ns()}"
    make = urllib.request.Request(f"{s3_url}/{name}", method="PUT")
    with urllib.request.urlopen(make, timeout=_PATIENCE_S):
        pass
    return (
        f"s3://{name}?endpoint={s3_url}&region=us-east-1"
        "&access_key_id=of-the-tests&secret_access_key=of-the-tests"
    )


@pytest.fixture(scope="session", params=["sqlite and a folder", "postgresql and s3"])
def kept(request: pytest.FixtureRequest) -> Callable[[], dict[str, str]]:
    """Settings for a new hub's database and blobs: a test that asks for it runs on both kinds."""
    if request.param == "sqlite and a folder":
        return dict
    postgres, s3_url = (request.getfixturevalue(name) for name in ("postgres", "s3_url"))

    def new() -> dict[str, str]:
        return {"database": postgres.url(postgres.new_database()), "blobs": new_bucket(s3_url)}

    return new


@pytest.fixture
def unused_port() -> int:
    """A port of 127.0.0.1 on which nobody listens."""
    return free_port()


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Debian's chromium."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        missing("Chromium", "apt-get install chromium")
    return found


@pytest.fixture(scope="module")
def browser(chromium: str):
    """Playwright's browser, for the tests of a module.

    Its loop runs in this thread until the module's end, so no test of that module may call
    ``asyncio.run``.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield started
        started.close()


@pytest.fixture
def page(browser):
    """A page of a new profile: no cookies, no storage, nothing of other tests."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    yield context.new_page()
    context.close()
