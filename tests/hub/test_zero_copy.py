"""Files that the kernel sends: over real sockets, with both loops, to receivers of all kinds."""

import asyncio
import hashlib
import os
import socket
import struct
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn

from limosa.errors import NotFoundError
from limosa.hub.server.files import FileResponse
from limosa.hub.server.zero_copy import ZERO_COPY, FileProtocol
from limosa.hub.sockets import listen, url_of

SIZE = 40 * 2**20 + 7


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("zero") / "file"
    path.write_bytes(os.urandom(SIZE))
    return path


def make_app(path: Path, offered: list[bool]):
    async def app(scope, receive, send) -> None:
        if scope["type"] != "http":
            return
        offered.append(ZERO_COPY in scope.get("extensions", {}))
        start, end = (int(part) for part in scope["path"][1:].split("-"))
        headers = {"Content-Length": str(end - start), "X-Part": f"{start}-{end}"}
        response = FileResponse(path, start, end, 200, headers, "application/test")
        await response(scope, receive, send)

    return app


@contextmanager
def serving(path: Path, loop: str, offered: list[bool]):
    listening = listen("127.0.0.1", 0)
    config = uvicorn.Config(
        make_app(path, offered), http=FileProtocol, loop=loop, lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    yield url_of("127.0.0.1", listening)
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


@pytest.fixture(params=["asyncio", "uvloop"])
def url(file: Path, request: pytest.FixtureRequest):
    offered: list[bool] = []
    with serving(file, request.param, offered) as address:
        yield address
    assert offered
    assert all(offered)


def connect(url: str, receive_buffer: int | None = None) -> socket.socket:
    made = socket.socket()
    if receive_buffer is not None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    made.settimeout(60)
    made.connect(("127.0.0.1", httpx.URL(url).port))
    return made


def ask(connection: socket.socket, *spans: str) -> None:
    """Ask for all of them before the first answer is read."""
    lines = [f"GET /{span} HTTP/1.1\r\nHost: here\r\n\r\n" for span in spans]
    connection.sendall("".join(lines).encode())


def read(connection: socket.socket, nap: float = 0.0) -> tuple[bytes, bytes]:
    """The head and the body of an answer, and not a byte of the next."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    left = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    parts = []
    while left:
        part = connection.recv(min(left, 2**18))
        assert part, f"{left} bytes are missing"
        parts.append(part)
        left -= len(part)
        time.sleep(nap)
    return head, b"".join(parts)


def test_a_connection_gives_whole_files_and_parts_one_after_the_other(url: str, file: Path) -> None:
    data = file.read_bytes()
    with connect(url) as connection:
        for start, end in [(0, SIZE), (5, 6), (SIZE - 1, SIZE), (10, 10), (3, 33 * 2**20), (0, 1)]:
            ask(connection, f"{start}-{end}")
            head, body = read(connection)
            assert head.startswith(b"HTTP/1.1 200 ")
            assert f"x-part: {start}-{end}".encode() in head.lower()
            assert body == data[start:end]


def test_a_slow_receiver_gets_the_same_bytes(url: str, file: Path) -> None:
    with connect(url, receive_buffer=2**16) as connection:
        ask(connection, f"0-{6 * 2**20}")
        _, body = read(connection, nap=0.001)
    assert hashlib.sha256(body).digest() == hashlib.sha256(file.read_bytes()[: 6 * 2**20]).digest()


def test_pipelined_answers_come_in_order_and_apart(url: str, file: Path) -> None:
    data = file.read_bytes()
    spans = [(0, 9 * 2**20), (7, 8), (2**20, 3 * 2**20), (0, SIZE)]
    with connect(url, receive_buffer=2**16) as connection:
        ask(connection, *(f"{start}-{end}" for start, end in spans))
        for start, end in spans:
            assert read(connection)[1] == data[start:end]


def test_many_receivers_at_once(url: str, file: Path) -> None:
    want = hashlib.sha256(file.read_bytes()).digest()
    found = []

    def fetch() -> None:
        with connect(url) as connection:
            ask(connection, f"0-{SIZE}")
            found.append(hashlib.sha256(read(connection)[1]).digest())

    threads = [threading.Thread(target=fetch) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [want] * 6


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("how", ["reset", "close"])
def test_receivers_that_hang_up_leave_nothing_open(url: str, file: Path, how: str) -> None:
    httpx.get(f"{url}/0-1")
    before = open_files()
    for _ in range(4):
        connection = connect(url, receive_buffer=2**14)
        ask(connection, f"0-{SIZE}")
        connection.recv(1000)
        if how == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    deadline = time.monotonic() + 60
    while open_files() > before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert open_files() <= before
    assert httpx.get(f"{url}/0-9").content == file.read_bytes()[:9]


def test_a_file_that_shrinks_breaks_the_answer_off(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(SIZE))
    with (
        serving(path, "uvloop", []) as url,
        connect(url, receive_buffer=2**14) as connection,
    ):
        ask(connection, f"0-{SIZE}")
        count = len(connection.recv(1000))
        os.truncate(path, 2**20)
        while part := connection.recv(2**20):
            count += len(part)
        assert count < SIZE


def test_a_file_that_is_not_there_is_told_before_the_answer_begins(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(NotFoundError):
        FileResponse(path, 0, 1, 200, {}, "a/b")
    path.write_bytes(b"four")
    with pytest.raises(NotFoundError):
        FileResponse(path, 0, 5, 200, {}, "a/b")


def test_another_server_gets_the_same_bytes_by_hand(file: Path) -> None:
    offered: list[bool] = []

    async def fetch() -> bytes:
        transport = httpx.ASGITransport(make_app(file, offered))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return (await client.get(f"/3-{SIZE - 2}")).content

    assert asyncio.run(fetch()) == file.read_bytes()[3 : SIZE - 2]
    assert offered == [False]
