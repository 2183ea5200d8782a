"""One client's stream of features over a WebSocket (docs/protocol.md)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import WebSocket
from starlette.websockets import WebSocketDisconnect

from limosa.codec.feature.decode import FeatureDecoder
from limosa.errors import ConfigError, FormatError, LimosaError
from limosa.exchange.feature_service.answers import is_short, to_bitstream, to_json
from limosa.exchange.feature_service.batching import Answers
from limosa.exchange.feature_service.service import FeatureService
from limosa.hub.problems import (
    IDLE,
    SlowError,
    name_of,
    to_problem,
)

log = logging.getLogger("limosa.features")
#: Bytes of a text message of a client: a list of tasks.
MAX_CONTROL_BYTES = 16 * 1024


@dataclass
class _Reply:
    """What goes out for one feature, when it is there."""

    message: int
    number: int | None = None
    answer: asyncio.Future[Answers] | None = None
    error: Exception | None = None
    key: bool = False
    as_json: bool = True
    start: float = 0.0

    @property
    def head(self) -> dict[str, Any]:
        return {"message": self.message, "number": self.number}


class Stream:
    """Reads features, in order, and answers them, in order.

    At most ``settings.window`` features are under way; what the client sends beyond is not read,
    so that TCP makes it wait.
    """

    def __init__(self, service: FeatureService, socket: WebSocket, address: str) -> None:
        self._service, self._socket, self._address = service, socket, address
        self._settings = service.settings
        self._tasks = service.tasks
        self._decoders: dict[str, FeatureDecoder] = {}
        self._as_json = True
        self._count = 0
        self._told: list[str] = []
        # None: look whether other cuts are needed. Besides, one is read and one is answered.
        self._out: asyncio.Queue[_Reply | None] = asyncio.Queue(max(1, self._settings.window - 2))
        self._answering = False

    async def run(self) -> None:
        """Until either side ends it."""
        await self._socket.accept()
        unlisten = self._service.listen(self._wake)
        writer = asyncio.ensure_future(self._write())
        reader = asyncio.ensure_future(self._read())
        try:
            await self._tell_need({"tasks": list(self._tasks)})
            done, _ = await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except (WebSocketDisconnect, RuntimeError):
            pass  # it has gone; RuntimeError: starlette's, of a socket that is closed
        except SlowError as error:
            await self._end(error)
        finally:
            unlisten()
            await self._clean(reader, writer)

    async def _clean(self, *tasks: asyncio.Future[None]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while not self._out.empty():
            reply = self._out.get_nowait()
            if reply is not None and reply.answer is not None:
                reply.answer.cancel()

    async def _end(self, error: SlowError) -> None:
        log.info("a stream ends", extra={"client": self._address, "error": error.problem})
        try:
            await asyncio.wait_for(self._send(text=json.dumps({"error": to_problem(error)})), 1)
            await asyncio.wait_for(self._socket.close(IDLE, error.problem), 1)
        except (Exception, asyncio.TimeoutError):
            log.debug("a client is not told", extra={"client": self._address})
        transport = self._socket.scope.get("state", {}).get("transport")
        if transport is not None:
            # A client that reads nothing would keep its connection, and what waits in it.
            asyncio.get_running_loop().call_later(1, transport.abort)

    # In

    async def _read(self) -> None:
        while True:
            event = await self._receive()
            if event["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(event.get("code") or 1005)
            data = event.get("bytes")
            if data is not None:
                await self._feature(data)
            else:
                await self._control(event.get("text") or "")

    async def _receive(self) -> Any:
        waiting = asyncio.ensure_future(self._socket.receive())
        try:
            while True:
                done, _ = await asyncio.wait({waiting}, timeout=self._settings.idle_s)
                if done:
                    return waiting.result()
                if self._out.empty() and not self._answering:
                    raise SlowError("nothing came", allowed=f"{self._settings.idle_s:g} s")
        finally:
            waiting.cancel()

    async def _feature(self, data: bytes) -> None:
        while wait := self._service.rates.delay(self._address):
            await asyncio.sleep(wait)
        reply = _Reply(self._count, as_json=self._as_json, start=time.perf_counter())
        self._count += 1
        self._service.metrics.bytes.inc(len(data))
        cut = None
        try:
            header = await self._service.header_of(data)
            reply.number = header.number
            cut = self._service.cut_of(header)
            decoder = self._decoders.get(cut.at)
            if decoder is None:
                decoder = self._decoders[cut.at] = self._service.decoder(cut)
            if not any(task in cut.tasks for task in self._tasks):
                raise ConfigError("none of the tasks begins at this cut", found=cut.at)
            reply.answer = await self._service.submit(
                data, header, decoder, self._tasks, patient=True
            )
        except LimosaError as error:
            reply.error = error
            # What follows is predicted from this one, unless the sender hears of it.
            damaged = cut is None and isinstance(error, FormatError)
            lost = cut is not None and not isinstance(error, ConfigError)
            reply.key = damaged or lost
        except Exception as error:
            log.exception("a feature fails", extra={"client": self._address})
            reply.error = error
        try:
            await self._out.put(reply)
        except asyncio.CancelledError:
            if reply.answer is not None:
                reply.answer.cancel()
            raise

    async def _control(self, text: str) -> None:
        """What the client says of itself: its tasks, and how it wants its answers."""
        try:
            if len(text) > MAX_CONTROL_BYTES:
                raise ConfigError("too long a text", allowed=f"{MAX_CONTROL_BYTES} characters")
            asked = json.loads(text)
            if not isinstance(asked, dict) or not set(asked) <= {"tasks", "answers"}:
                raise ConfigError("not understood", allowed='{"tasks": […], "answers": "json"}')
            tasks = asked.get("tasks", list(self._tasks))
            if not isinstance(tasks, list) or asked.get("answers", "json") not in _ANSWERS:
                raise ConfigError("not understood", allowed='"json" or "limosa", lists of names')
            self._tasks = self._service.check_tasks(map(str, tasks))
        except (ValueError, RecursionError):
            await self._send(text=json.dumps({"error": to_problem(ConfigError("not JSON"))}))
        except LimosaError as error:
            await self._send(text=json.dumps({"error": to_problem(error)}))
        else:
            self._as_json = asked.get("answers", _ANSWERS[not self._as_json]) == "json"
            await self._tell_need({"tasks": list(self._tasks)})

    # Out

    def _wake(self) -> None:
        """Other cuts may be needed."""
        with contextlib.suppress(asyncio.QueueFull):  # the writer looks before each reply, too
            self._out.put_nowait(None)

    async def _write(self) -> None:
        while True:
            reply = await self._out.get()
            if self._told and self._told != self._service.needed(self._tasks):
                await self._tell_need({})
            if reply is not None:
                self._answering = True
                await self._reply(reply)
                self._answering = False

    async def _tell_need(self, more: dict[str, Any]) -> None:
        self._told = self._service.needed(self._tasks)
        await self._send(text=json.dumps({"need": self._told, **more}))

    async def _reply(self, reply: _Reply) -> None:
        answers: Answers = {}
        if reply.answer is not None:
            try:
                answers = await self._service.wait_for(reply.answer)
            except LimosaError as error:
                reply.error = error
            except Exception as error:
                log.exception("a feature fails", extra={"client": self._address})
                reply.error = error
        seconds = time.perf_counter() - reply.start
        self._service.metrics.seconds.labels("stream").observe(seconds)
        outcome = "ok" if reply.error is None else name_of(reply.error)
        self._service.metrics.features.labels("stream", outcome).inc()
        if reply.error is not None:
            message = {**reply.head, "error": to_problem(reply.error)}
            key = {"key": True} if reply.key else {}
            await self._send(text=json.dumps({**message, **key}))
            return
        write: Callable[..., str | bytes] = to_json if reply.as_json else to_bitstream
        make = partial(write, answers, reply.head)
        content = make() if is_short(answers) else await self._service.in_pool(make)
        if isinstance(content, str):
            await self._send(text=content)
        else:
            await self._send(data=content)

    async def _send(self, *, text: str | None = None, data: bytes | None = None) -> None:
        message: dict[str, Any] = {"type": "websocket.send"}
        message |= {"text": text} if data is None else {"bytes": data}
        try:
            await asyncio.wait_for(self._socket.send(message), self._settings.idle_s)
        except asyncio.TimeoutError:
            raise SlowError("the client takes no answers") from None


_ANSWERS = ("json", "limosa")
