"""A file's bytes from the kernel to the socket, without a copy in this process.

uvicorn's protocol with ASGI's extension ``http.response.zerocopysend``. Pieces are sent in threads,
since a disk may be slow; a receiver that is slow is waited for without one.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from starlette.concurrency import run_in_threadpool
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

#: What ASGI calls it, as an extension and as a message.
ZERO_COPY = "http.response.zerocopysend"
# Bytes after which another receiver may have the thread.
_TURN = 32 * 2**20
# Seconds after which is seen whether a receiver that takes nothing is still there.
_LOOK_S = 5.0
_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ESHUTDOWN, errno.ETIMEDOUT)
Send = Callable[[Any], Awaitable[None]]


class FileProtocol(HttpToolsProtocol):
    """HTTP/1.1 whose application may answer with a part of an open file."""

    def on_headers_complete(self) -> None:
        """Offer the extension, where nothing is encrypted on the way."""
        if self.scheme == "http" and hasattr(os, "sendfile"):
            self.scope["extensions"] = {ZERO_COPY: {}}
        super().on_headers_complete()
        cycle = self.cycle
        # No new one is there for what becomes a WebSocket.
        if cycle is not None and cycle.scope is self.scope:
            cycle.send = partial(_send, cycle, cycle.send)  # type: ignore[method-assign]


async def _send(cycle: RequestResponseCycle, plain: Send, message: Any) -> None:
    if message["type"] != ZERO_COPY:
        await plain(message)
        return
    count = message["count"]
    if not cycle.response_started or count > cycle.expected_content_length:
        raise RuntimeError("Response content longer than Content-Length")
    await _empty(cycle)
    if not cycle.disconnected:
        await _send_file(cycle, message["file"].fileno(), message["offset"], count)
    if not cycle.disconnected:
        cycle.expected_content_length -= count
        more = message.get("more_body", False)
        await plain({"type": "http.response.body", "body": b"", "more_body": more})


async def _empty(cycle: RequestResponseCycle) -> None:
    """Wait until what was written before, the head at least, is on its way."""
    transport = cycle.transport
    if transport.is_closing():
        cycle.disconnected = True
        return
    transport.set_write_buffer_limits(0)
    await cycle.flow.drain()
    if transport.is_closing():
        cycle.disconnected = True
    else:
        transport.set_write_buffer_limits()


async def _send_file(cycle: RequestResponseCycle, file: int, start: int, count: int) -> None:
    loop, end = asyncio.get_running_loop(), start + count
    # A number of its own: the loop watches the transport's already, and may close it.
    number = os.dup(cycle.transport.get_extra_info("socket").fileno())
    try:
        while start < end and not cycle.disconnected:
            start += await run_in_threadpool(_push, number, file, start, end)
            if start < end:
                await _writable(loop, number)
                cycle.disconnected |= cycle.transport.is_closing()
    except OSError as error:
        if error.errno not in _GONE:
            raise
        cycle.disconnected = True
    finally:
        os.close(number)


def _push(number: int, file: int, start: int, end: int) -> int:
    """Send what the socket takes at once; how many bytes these were."""
    at, end = start, min(end, start + _TURN)
    while at < end:
        try:
            sent = os.sendfile(number, file, at, end - at)
        except BlockingIOError:
            break
        if not sent:
            raise OSError(errno.EIO, "the file ends early")
        at += sent
    return at - start


async def _writable(loop: asyncio.AbstractEventLoop, number: int) -> None:
    """Wait until a socket takes bytes again, or for a while."""
    woken = asyncio.Event()
    loop.add_writer(number, woken.set)
    timer = loop.call_later(_LOOK_S, woken.set)
    try:
        await woken.wait()
    finally:
        timer.cancel()
        loop.remove_writer(number)
