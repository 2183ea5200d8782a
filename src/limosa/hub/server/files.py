"""Answers that are parts of files."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from limosa.errors import NotFoundError
from limosa.hub.server.zero_copy import ZERO_COPY

# Large enough that a thread is asked seldom, small enough to lie in a processor's cache.
_PIECE = 2**20


class FileResponse(StreamingResponse):
    """The bytes of a file from *start* to *end*: by the kernel where the server can, else by hand.

    Raises:
        NotFoundError: there is no such file, or it is shorter.
    """

    def __init__(
        self,
        path: Path,
        start: int,
        end: int,
        status_code: int,
        headers: Mapping[str, str],
        media_type: str,
    ) -> None:
        self._start, self._end = start, end
        self._file = _open(path, end)
        super().__init__(self._pieces(), status_code, headers, media_type)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer."""
        with self._file:
            if ZERO_COPY not in scope.get("extensions", {}):
                await super().__call__(scope, receive, send)
                return
            begun = {"type": "http.response.start", "status": self.status_code}
            await send({**begun, "headers": self.raw_headers})
            part = {"file": self._file, "offset": self._start, "count": self._end - self._start}
            await send({"type": ZERO_COPY, **part, "more_body": False})

    async def _pieces(self) -> AsyncIterator[bytes]:
        start, end, number = self._start, self._end, self._file.fileno()
        while start < end:
            piece = await run_in_threadpool(os.pread, number, min(_PIECE, end - start), start)
            if not piece:
                return
            start += len(piece)
            yield piece


def _open(path: Path, end: int) -> Any:
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError:
        raise _missing(path) from None
    if os.fstat(file.fileno()).st_size < end:
        file.close()
        raise _missing(path)
    return file


def _missing(path: Path) -> NotFoundError:
    return NotFoundError(
        "the blob's file is not there",
        where=path.name[:16],
        remedy="limosa fsck says what is missing",
    )
