"""A client that costs little: sockets and one buffer, in a process of its own.

    python -m benchmarks.hub.fetch CLIENTS EACH TOKEN URL

prints the seconds in which so many clients at once fetched the address so often each. A client
keeps its connections, follows redirects, and shows the token only to the first server.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

_BUFFER = 2**20


class Client:
    """Fetches and forgets."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._connections: dict[str, socket.socket] = {}
        self._buffer = bytearray(_BUFFER)

    def fetch(self, url: str, *headers: str) -> tuple[int, int]:
        """Status of an answer and bytes of its body."""
        status, head, nbytes = self._ask(url, [f"Authorization: Bearer {self._token}", *headers])
        if status == 307:
            return self._ask(_field(head, "location"), list(headers))[::2]
        return status, nbytes

    def head(self, url: str, *headers: str) -> dict[str, str]:
        """The fields of an answer, of which the body is read."""
        _, head, _ = self._ask(url, [f"Authorization: Bearer {self._token}", *headers])
        lines = head.decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}

    def _ask(self, url: str, headers: list[str]) -> tuple[int, bytes, int]:
        parts = urlsplit(url)
        found = self._connections.get(parts.netloc)
        if found is None:
            found = socket.create_connection((parts.hostname, parts.port))
            self._connections[parts.netloc] = found
        path = parts.path + ("?" + parts.query if parts.query else "")
        lines = [f"GET {path} HTTP/1.1", f"Host: {parts.netloc}", *headers, "", ""]
        found.sendall("\r\n".join(lines).encode())
        head = b""
        while b"\r\n\r\n" not in head:
            piece = found.recv(65536)
            if not piece:
                raise ConnectionError(f"{parts.netloc} hung up after {head!r}")
            head += piece
        head, _, body = head.partition(b"\r\n\r\n")
        nbytes = int(_field(head, "content-length") or 0)
        left = nbytes - len(body)
        while left:
            count = found.recv_into(self._buffer, min(left, _BUFFER))
            if not count:
                raise ConnectionError(f"{parts.netloc} hung up, {left} bytes early")
            left -= count
        # Servers that do not keep connections say so.
        if "close" in _field(head, "connection").lower() or head.startswith(b"HTTP/1.0"):
            self._connections.pop(parts.netloc).close()
        return int(head.split()[1]), head, nbytes


def _field(head: bytes, name: str) -> str:
    for line in head.decode("latin-1").split("\r\n"):
        if line.lower().startswith(name + ":"):
            return line.partition(":")[2].strip()
    return ""


def measure(clients: int, each: int, token: str, url: str) -> float:
    """Bytes a second that a process with so many clients took from an address."""
    command = [sys.executable, "-m", "benchmarks.hub.fetch", str(clients), str(each), token, url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    nbytes, seconds = done.stdout.split()
    return int(nbytes) / float(seconds)


def main() -> None:
    """Fetch, and print bytes and seconds."""
    clients, each, token, url = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:5]
    crowd = [Client(token) for _ in range(clients)]
    total: list[int] = []

    def ask(client: Client) -> None:
        for _ in range(each):
            status, nbytes = client.fetch(url)
            if status != 200:
                raise RuntimeError(f"{url}: status {status}")
            total.append(nbytes)

    threads = [threading.Thread(target=ask, args=(client,)) for client in crowd]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    if len(total) != clients * each:
        raise SystemExit("some fetch failed")
    print(sum(total), seconds)


if __name__ == "__main__":
    main()
