"""The service over HTTP (docs/protocol.md)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

from limosa.errors import LimitError, LimosaError, MissingExtraError
from limosa.exchange.feature_service.answers import BITSTREAM, is_short, to_bitstream, to_json
from limosa.exchange.feature_service.service import FeatureService
from limosa.hub.problems import (
    CROWDED,
    PROBLEM,
    STOPPING,
    BusyError,
    SlowError,
    UnavailableError,
    name_of,
    status_of,
    to_problem,
)

try:
    from fastapi import FastAPI, Request, Response, WebSocket
    from fastapi.responses import JSONResponse, PlainTextResponse
    from starlette.requests import ClientDisconnect

    from limosa.exchange.feature_service.stream import Stream
except ModuleNotFoundError:
    raise MissingExtraError.for_extra("hub", "a service of features") from None

log = logging.getLogger("limosa.features")


def make_app(service: FeatureService) -> FastAPI:
    """The ASGI application of a service; starts and stops it with its own lifespan."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        log.info("ready", extra={"cuts": list(service.cuts), "tasks": list(service.tasks)})
        yield
        await service.stop()
        log.info("stopped")

    app = FastAPI(title="limosa features", lifespan=lifespan, docs_url=None, redoc_url=None)
    gate = _Gate(service)
    _add_features(app, service, gate)
    _add_states(app, service)
    return app


class _Gate:
    """Counts requests and streams under way."""

    def __init__(self, service: FeatureService) -> None:
        self._service, self._count = service, 0

    @contextmanager
    def passing(self) -> Iterator[None]:
        """One more of them.

        Raises:
            UnavailableError: there are as many as there may be, or the service stops.
        """
        if not self._service.ready:
            raise UnavailableError("the service stops")
        if self._count >= self._service.settings.max_connections:
            raise UnavailableError("too many connections", allowed=f"{self._count}")
        self._count += 1
        self._service.metrics.connections.set(self._count)
        try:
            yield
        finally:
            self._count -= 1
            self._service.metrics.connections.set(self._count)


def _add_features(app: FastAPI, service: FeatureService, gate: _Gate) -> None:
    @app.get("/v1/cuts")
    async def cuts() -> dict[str, Any]:
        """The model, its cuts, the tasks behind them, and the limits."""
        return service.describe()

    async def features(request: Request) -> Response:
        """The answers to one feature."""
        with gate.passing():
            return await _counted(service, request, _answer)

    # As a plain route: FastAPI's way of calling a function takes longer than the rest of a request.
    app.add_route("/v1/features", features, methods=["POST"])

    @app.websocket("/v1/stream")
    async def stream(socket: WebSocket) -> None:
        """The answers to a stream of features."""
        address = _address(socket)
        try:
            with gate.passing():
                log.info("a stream begins", extra={"client": address})
                await Stream(service, socket, address).run()
                log.info("a stream has ended", extra={"client": address})
        except UnavailableError as error:
            await socket.accept()
            await socket.close(CROWDED if service.ready else STOPPING, error.problem)

    @app.exception_handler(LimosaError)
    async def problem(request: Request, error: Exception) -> Response:
        return _problem(error)


def _add_states(app: FastAPI, service: FeatureService) -> None:
    @app.get("/healthz", response_class=PlainTextResponse)
    async def healthz() -> str:
        """Whether the process is alive."""
        return "ok\n"

    @app.get("/readyz")
    async def readyz() -> Response:
        """Whether it takes features."""
        return PlainTextResponse("ready\n" if service.ready else "stopping\n", _ok(service))

    @app.get("/metrics")
    async def metrics() -> Response:
        """What Prometheus asks for."""
        return Response(service.metrics.text(), media_type=service.metrics.content_type)


def _ok(service: FeatureService) -> int:
    return 200 if service.ready else 503


async def _counted(
    service: FeatureService,
    request: Request,
    answer: Callable[[FeatureService, Request], Awaitable[Response]],
) -> Response:
    start = time.perf_counter()
    outcome = "ok"
    try:
        return await answer(service, request)
    except ClientDisconnect:
        outcome = "gone"
        return Response(status_code=499)
    except LimosaError as error:
        outcome = name_of(error)
        log.info(
            "refused", extra={"client": _address(request), "type": outcome, "error": str(error)}
        )
        return _problem(error)
    except Exception as error:
        outcome = "LimosaError"
        log.exception("a feature fails", extra={"client": _address(request)})
        return _problem(error)
    finally:
        service.metrics.features.labels("post", outcome).inc()
        service.metrics.seconds.labels("post").observe(time.perf_counter() - start)


async def _answer(service: FeatureService, request: Request) -> Response:
    service.rates.take(_address(request))
    data = await _body(request, service.settings.max_message_bytes, service.settings.request_s)
    service.metrics.bytes.inc(len(data))
    answers = await service.ask(data, request.query_params.getlist("task"))
    packed = BITSTREAM in request.headers.get("accept", "")
    make = partial(to_bitstream if packed else to_json, answers)
    # A few numbers are written sooner than a thread begins.
    content = make() if is_short(answers) else await service.in_pool(make)
    return Response(content, media_type=BITSTREAM if packed else "application/json")


async def _body(request: Request, most: int, seconds: float) -> bytes:
    """A body that is as short, and comes as soon, as it must.

    Raises:
        LimitError: it is too long; what is announced is believed before it comes.
        SlowError: it does not come in time.
    """
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > most:
        raise _too_long(announced, most)

    async def collect() -> bytes:
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > most:
                raise _too_long(f"more than {most}", most)
            parts.append(part)
        return b"".join(parts)

    try:
        return await asyncio.wait_for(collect(), seconds)
    except asyncio.TimeoutError:
        raise SlowError("the body did not come in time", allowed=f"{seconds:g} s") from None


def _too_long(found: str, most: int) -> LimitError:
    return LimitError(
        "the feature is too long", where="body", found=f"{found} bytes", allowed=f"{most}",
        remedy="code it coarser",
    )  # fmt: skip


def _problem(error: Exception) -> Response:
    status = status_of(error)
    headers = {}
    if isinstance(error, BusyError):
        headers["Retry-After"] = str(max(1, round(error.retry_after)))
    if status in (408, 413):
        headers["Connection"] = "close"  # the rest of the body would be read and thrown away
    return JSONResponse(to_problem(error), status, headers, media_type=PROBLEM)


def _address(connection: Request | WebSocket) -> str:
    return connection.client.host if connection.client else "unknown"
