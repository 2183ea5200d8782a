"""Serves the example pages as a hub would, with its headers."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from limosa.hub.pages import links, render


@contextmanager
def serve(pages: Mapping[str, str]) -> Iterator[str]:
    """The address that *pages* are at, each below its own path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, kind = self._find()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            for name, value in render.HEADERS.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def _find(self) -> tuple[int, bytes, str]:
            path, _, _ = self.path.partition("?")
            if path.startswith(links.STATIC):
                body, kind = render.static_files()[path.removeprefix(links.STATIC)]
                return 200, body, kind
            page = pages.get(self.path, pages.get(path))
            kind = "text/html; charset=utf-8"
            return (404, b"", kind) if page is None else (200, page.encode(), kind)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
