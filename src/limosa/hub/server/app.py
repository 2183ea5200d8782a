"""The application: routes, problems, counters, health."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from limosa import __version__
from limosa.errors import AuthError, ConfigError, LimitError, LimosaError, NotFoundError
from limosa.hub.problems import (
    PROBLEM,
    BusyError,
    SlowError,
    UnavailableError,
    status_of,
    to_problem,
)
from limosa.hub.server import admin, blobs, pages, pushing, reading
from limosa.hub.server.chores import Chores
from limosa.hub.server.context import Hub, caller_of

log = logging.getLogger("limosa.hub")
# Of a body whose sender nobody knows.
_STRANGERS_BYTES = 64 * 2**10
# How long the next bytes of a body may take.
_SILENCE_S = 60.0
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {PROBLEM: {"schema": {"type": "object"}}}}
    for status, text in {
        400: "not what it should be", 401: "no good token", 403: "not allowed",
        404: "not there, or not for the caller", 405: "no such method", 409: "somebody was faster",
        413: "too large", 422: "impossible", 429: "too many requests", 503: "not now",
    }.items()
}  # fmt: skip


def make_app(hub: Hub) -> FastAPI:
    """The ASGI application of a hub, which it closes when it ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        chores = Chores(hub)
        chores.start()
        log.info("ready", extra={"version": __version__})
        yield
        await run_in_threadpool(chores.stop)
        await run_in_threadpool(hub.close)
        log.info("stopped")

    app = FastAPI(
        title="limosa hub", version=__version__, lifespan=lifespan, responses=_PROBLEMS,
        # Their pages take their scripts from elsewhere.
        docs_url=None, redoc_url=None,
    )  # fmt: skip
    app.state.hub = hub
    for router in (reading.router, blobs.router, pushing.router, admin.router, pages.router):
        app.include_router(router)
    _add_health(app, hub)
    _add_problems(app)
    app.add_middleware(Measured, hub=hub)
    return app


def _add_health(app: FastAPI, hub: Hub) -> None:
    @app.get("/healthz", tags=["health"])
    async def healthz() -> dict[str, str]:
        """The process lives."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["health"])
    def readyz() -> dict[str, str]:
        """The database and the blobs answer."""
        if hub.stopping:
            raise UnavailableError("the hub stops")
        hub.store.check()
        return {"status": "ok"}

    @app.get("/metrics", tags=["health"], response_class=PlainTextResponse)
    def metrics() -> Response:
        """Counters of this worker, for Prometheus."""
        return Response(hub.metrics.text(), media_type=hub.metrics.content_type)


def _add_problems(app: FastAPI) -> None:
    @app.exception_handler(LimosaError)
    async def known(request: Request, error: LimosaError) -> Response:
        return told(request, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(map(str, first.get("loc", ())))[:200]
        found = repr(first.get("input"))[:100]
        return told(request, ConfigError(str(first.get("msg")), where=where, found=found))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        if isinstance(error, _RefusedError):
            return told(request, error.error)
        if error.status_code == 404:
            return told(request, NotFoundError("no such address", where=request.url.path[:200]))
        plain = {"type": "LimosaError", "title": str(error.detail), "status": error.status_code}
        return JSONResponse(
            {**plain, "detail": str(error.detail)}, error.status_code, error.headers,
            media_type=PROBLEM,
        )  # fmt: skip

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        log.error("a request failed", exc_info=error, extra={"path": request.url.path})
        return told(request, error)


def told(request: Request, error: Exception) -> Response:
    """An error as whoever asks can read it: a page for people, a problem for programs."""
    if request.url.path.startswith("/v1/") or "text/html" not in request.headers.get("accept", ""):
        return problem(error)
    return pages.problem_page(request, error)


def problem(error: Exception) -> Response:
    """An error as an answer."""
    headers = {"Cache-Control": "no-store"}
    status = status_of(error)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, BusyError):
        headers["Retry-After"] = str(max(1, round(error.retry_after)))
    return JSONResponse(to_problem(error), status, headers, media_type=PROBLEM)


class Measured:
    """Counts and logs requests, and ends those whose bodies are too long."""

    def __init__(self, app: Any, hub: Hub) -> None:
        self._app, self._hub = app, hub

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_SECURITY]
            await send(message)

        if "\0" in scope["path"]:
            # PostgreSQL has no place for it, and no name has it.
            error = NotFoundError("no such address", where=repr(scope["path"])[:200])
            await problem(error)(scope, receive, watched)
            self._count(scope, status, time.monotonic() - started)
            return
        body = receive if scope["method"] == "PATCH" else self._bounded(scope, receive)
        try:
            await self._app(scope, _in_time(body), watched)
        finally:
            self._count(scope, status, time.monotonic() - started)

    def _bounded(self, scope: Message, receive: Receive) -> Receive:
        size, known = 0, False

        async def bounded() -> Message:
            nonlocal size, known
            message = await receive()
            size += len(message.get("body", b""))
            most = self._hub.settings.max_json_bytes
            if size > most:
                raise _RefusedError(LimitError("the request is too long", allowed=f"{most} bytes"))
            if size > _STRANGERS_BYTES and not known:
                # All of a body is in memory before anybody asks who sent it.
                await self._check_known(scope)
                known = True
            return message

        return bounded

    async def _check_known(self, scope: Message) -> None:
        try:
            if not self._hub.settings.anonymous:
                caller = await run_in_threadpool(caller_of, Request(scope))
                if caller.kind == "anonymous":
                    raise AuthError("a token is needed for so long a request")
        except LimosaError as error:
            raise _RefusedError(error) from None

    def _count(self, scope: Message, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        self._hub.metrics.requests.labels(route, str(status)).inc()
        if route in ("/healthz", "/readyz", "/metrics"):
            return
        extra = {
            "method": scope["method"], "path": scope["path"], "status": status,
            "seconds": round(seconds, 4), "caller": scope.get("state", {}).get("caller"),
            "client": (scope.get("client") or ("",))[0],
        }  # fmt: skip
        log.info("request", extra=extra)


class _RefusedError(HTTPException):
    """A body is longer than it may be, or does not come; FastAPI lets no other class pass."""

    def __init__(self, error: LimosaError) -> None:
        super().__init__(status_of(error), str(error))
        self.error = error


def _in_time(receive: Receive) -> Receive:
    """A body whose sender may be slow, and not silent: it holds memory, and a connection."""
    ended = False

    async def timed() -> Message:
        nonlocal ended
        if ended:
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), _SILENCE_S)
        except asyncio.TimeoutError:
            error = SlowError("nothing came for long", allowed=f"{_SILENCE_S:g} s")
            raise _RefusedError(error) from None
        ended = not message.get("more_body", False)
        return message

    return timed


_SECURITY = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"same-origin")]
