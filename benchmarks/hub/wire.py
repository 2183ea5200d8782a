"""Counts what travels: a TCP proxy in front of a hub."""

from __future__ import annotations

import socket
import threading
from types import TracebackType

_BUFFER = 2**16


class Wire:
    """Forwards connections and counts their bytes, heads of HTTP included, TCP's own not.

    Attributes:
        url: to ask instead of the hub's.
        up, down: bytes to the hub and from it, so far.

    >>> from benchmarks.hub.wire import Wire
    >>> with socket.create_server(("127.0.0.1", 0)) as there:
    ...     with Wire(f"http://127.0.0.1:{there.getsockname()[1]}") as wire:
    ...         wire.up, wire.down
    (0, 0)
    """

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._there = (host, int(port))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.up = self.down = 0
        self._lock = threading.Lock()

    def take(self) -> tuple[int, int]:
        """Bytes up and down since the last call."""
        with self._lock:
            found = self.up, self.down
            self.up = self.down = 0
        return found

    def __enter__(self) -> Wire:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            far = socket.create_connection(self._there)
            for source, sink, upwards in ((near, far, True), (far, near, False)):
                threading.Thread(
                    target=self._forward, args=(source, sink, upwards), daemon=True
                ).start()

    def _forward(self, source: socket.socket, sink: socket.socket, upwards: bool) -> None:
        try:
            while data := source.recv(_BUFFER):
                with self._lock:
                    if upwards:
                        self.up += len(data)
                    else:
                        self.down += len(data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            source.close()
            sink.close()
