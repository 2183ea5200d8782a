"""Real servers, each a process of its own: a hub, nginx with the guide's configuration, an S3."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from limosa.hub.store import schema
from limosa.hub.store.blobs import blob_key
from limosa.hub.store.store import Store

CONFIGURATION = Path(__file__).parents[2] / "docs" / "guide" / "hub-nginx.conf"
REPOSITORY = "bench/blobs"
_PATIENCE_S = 120.0
# Ends when its standard input is closed, so with this process however that ends.
_MOTO = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def seed(folder: Path, blobs: str, nbytes: int) -> tuple[str, str]:
    """Put one blob of random bytes into a new hub; its SHA-256 and an admin's token.

    The rows are written by hand: no model is so incompressible, and none need be decoded.
    """
    folder.mkdir(parents=True)
    store = Store(f"sqlite:///{folder / 'hub.db'}", blobs)
    token = store.first_token()
    assert token is not None
    data = os.urandom(nbytes)
    sha256 = hashlib.sha256(data).hexdigest()
    file = folder / "random"
    file.write_bytes(data)
    store.blobs.put_file(blob_key(sha256), file)
    file.unlink()
    now = time.time()
    with store.database.begin() as connection:

        def insert(table: sa.Table, **values: object) -> int:
            made = connection.execute(sa.insert(table).values(**values)).inserted_primary_key
            return 0 if made is None or table is schema.blobs else int(made[0])

        number = insert(schema.repositories, name=REPOSITORY, description="", created=now)
        node = insert(
            schema.nodes, repository_id=number, digest="a" * 64, state="b" * 64, nbytes=nbytes,
            manifest=b"{}", created=now,
        )  # fmt: skip
        insert(schema.blobs, sha256=sha256, nbytes=nbytes, created=now)
        insert(
            schema.edges, repository_id=number, base="", node_id=node, sha256=sha256,
            nbytes=nbytes, kind="pushed", memory=0, created=now, used=now,
        )  # fmt: skip
    store.close()
    return sha256, token


@contextmanager
def _running(
    command: Sequence[str | Path], log: Path, port: int, **environment: str
) -> Iterator[None]:
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            env={**os.environ, **environment},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    text = log.read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"{command[0]} does not start:\n{text}") from None
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


@contextmanager
def hub(folder: Path, *options: str) -> Iterator[int]:
    """``limosa hub serve`` with one worker; its port."""
    port = free_port()
    command = [sys.executable, "-c", "from limosa.cli.main import main; main()"]
    served = [*command, "hub", "serve", "--folder", str(folder), "--port", str(port), *options]
    with _running(served, folder.parent / f"hub-{port}.log", port):
        yield port


@contextmanager
def nginx(folder: Path, hub_folder: Path, upstream: int) -> Iterator[tuple[int, int]]:
    """nginx as Debian starts it, a worker a core; ports of the guide's hub and of the folder."""
    front, plain = free_port(), free_port()
    text = CONFIGURATION.read_text("utf-8")
    for there, here in (
        ("127.0.0.1:8470", f"127.0.0.1:{upstream}"),
        ("listen 80;", f"listen 127.0.0.1:{front};"),
        ("/var/lib/limosa/", f"{hub_folder}/"),
    ):
        assert text.count(there) >= 1, f"the guide's configuration has no {there}"
        text = text.replace(there, here)
    folder.mkdir()
    (folder / "hub.conf").write_text(text)
    places = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "scgi", "uwsgi")
    )
    user = "user root;\n" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"{user}daemon off; pid {folder}/pid; error_log {folder}/errors; worker_processes auto;\n"
        "events { worker_connections 64; }\n"
        f"http {{ access_log off; {places} sendfile on; tcp_nopush on;\n"
        f"server {{ listen 127.0.0.1:{plain}; root {hub_folder}/blobs; }}\n"
        f"include {folder}/hub.conf; }}\n"
    )
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    with _running([program, "-c", folder / "nginx.conf"], folder / "log", front):
        yield front, plain


@contextmanager
def object_storage() -> Iterator[str]:
    """An S3 (moto's); the address of a new bucket, as ``limosa hub serve --blobs`` takes it."""
    process = subprocess.Popen(
        [sys.executable, "-c", _MOTO], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        made = urllib.request.Request(f"http://127.0.0.1:{port}/blobs", method="PUT")
        urllib.request.urlopen(made, timeout=_PATIENCE_S).close()
        yield (
            f"s3://blobs?endpoint=http://127.0.0.1:{port}&region=us-east-1"
            "&access_key_id=none&secret_access_key=none"
        )
    finally:
        process.kill()
        process.communicate()
