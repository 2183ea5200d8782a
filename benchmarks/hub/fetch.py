"""A client that costs little: sockets and one buffer, in a process of its own.

    python -m benchmarks.hub.fetch CLIENTS ROUNDS TOKEN URL...

lets so many clients at once fetch each address in its turn, so many rounds and one before that is
not counted, and prints the bytes a second of each address by round. A client keeps its connections,
follows redirects, and shows the token only to the first server.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
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
        shown = [f"Authorization: Bearer {self._token}"] if self._token else []
        status, head, nbytes = self._ask(url, [*shown, *headers])
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


def measure(clients: int, rounds: int, token: str, urls: list[str]) -> list[list[float]]:
    """Bytes a second that a process with so many clients took from each address, by round."""
    command = [sys.executable, "-m", "benchmarks.hub.fetch", str(clients), str(rounds), token]
    done = subprocess.run([*command, *urls], capture_output=True, text=True, check=True)
    found: list[list[float]] = json.loads(done.stdout)
    return found


def main() -> None:
    """Fetch in turns, and print bytes a second."""
    clients, rounds, token, urls = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]
    # A signed address is shown no token.
    crowds = {
        url: [Client("" if "X-Amz-" in url else token) for _ in range(clients)] for url in urls
    }
    rates: dict[str, list[float]] = {url: [] for url in urls}
    with ThreadPoolExecutor(clients) as pool:
        for number in range(rounds + 1):
            # Another one begins each time, so that none is always behind the same.
            first = number % len(urls)
            for url in urls[first:] + urls[:first]:
                started = time.perf_counter()
                answers = list(pool.map(lambda client, url=url: client.fetch(url), crowds[url]))
                seconds = time.perf_counter() - started
                if any(status != 200 for status, _ in answers):
                    raise SystemExit(f"{url}: {answers}")
                if number:
                    rates[url].append(sum(nbytes for _, nbytes in answers) / seconds)
    print(json.dumps([rates[url] for url in urls]))


if __name__ == "__main__":
    main()
