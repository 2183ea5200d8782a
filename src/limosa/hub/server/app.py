"""The application: routes, problems, counters, health."""

from __future__ import annotations

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
from limosa.errors import ConfigError, LimitError, LimosaError, NotFoundError
from limosa.hub.problems import PROBLEM, BusyError, UnavailableError, status_of, to_problem
from limosa.hub.server import admin, blobs, pages, pushing, reading
from limosa.hub.server.chores import Chores
from limosa.hub.server.context import Hub

log = logging.getLogger("limosa.hub")
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

        body = receive if scope["method"] == "PATCH" else self._bounded(receive)
        try:
            await self._app(scope, body, watched)
        except _TooLongError:
            most = self._hub.settings.max_json_bytes
            error = LimitError("the request is too long", allowed=f"{most} bytes")
            await problem(error)(scope, receive, watched)
        finally:
            self._count(scope, status, time.monotonic() - started)

    def _bounded(self, receive: Receive) -> Receive:
        left = self._hub.settings.max_json_bytes

        async def bounded() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise _TooLongError
            return message

        return bounded

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


class _TooLongError(Exception):
    """A body is longer than it may be."""


_SECURITY = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"same-origin")]
