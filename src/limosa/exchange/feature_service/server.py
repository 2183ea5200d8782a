"""A service on a socket."""

from __future__ import annotations

import asyncio
from types import FrameType

from limosa.errors import MissingExtraError
from limosa.exchange.feature_service.http import make_app
from limosa.exchange.feature_service.service import FeatureService
from limosa.hub.in_thread import InThread
from limosa.hub.sockets import listen, url_of

try:
    import uvicorn
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
except ModuleNotFoundError:
    raise MissingExtraError.for_extra("hub", "a service of features") from None

# Connections beyond those that are answered, so that health can be asked for and refusals told.
_SPARE = 64


class Server(InThread):
    """Serves features until told to stop; as a context, in a thread of its own.

    Args:
        service: what to serve.
        host: name or address to listen at.
        port: 0 for any that is free.

    Raises:
        ConfigError: it cannot listen there.

    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> with Server(FeatureService(model, "1", {"class": "tail"})) as server:
    ...     import httpx
    ...     httpx.get(f"{server.url}/v1/cuts").json()["need"]
    ['1']
    """

    def __init__(self, service: FeatureService, host: str = "127.0.0.1", port: int = 0) -> None:
        self.service = service
        self._socket = listen(host, port)
        self.url = url_of(host, self._socket)
        bounds = service.settings
        config = uvicorn.Config(
            make_app(service),
            http=_protocol(service),
            ws=_Streamed,
            ws_max_size=bounds.max_message_bytes,
            ws_per_message_deflate=False,
            ws_ping_interval=bounds.idle_s,
            ws_ping_timeout=bounds.idle_s,
            timeout_keep_alive=max(1, int(bounds.idle_s)),
            timeout_graceful_shutdown=max(1, int(bounds.stop_s)),
            log_config=None,
            access_log=False,
            server_header=False,
        )
        self._uvicorn = _Uvicorn(config, service)
        super().__init__(self._uvicorn, "limosa-features", "the service")

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM, then let what is under way end."""
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """Take nothing new, let what is under way end; from any thread."""
        self._uvicorn.finish()


class _Uvicorn(uvicorn.Server):
    """Refuses what is new from the moment that it is told to stop."""

    def __init__(self, config: uvicorn.Config, service: FeatureService) -> None:
        super().__init__(config)
        self._service = service

    def finish(self) -> None:
        self._service.stopping = True
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._service.stopping = True
        super().handle_exit(sig, frame)


class _Streamed(WebSocketsSansIOProtocol):
    """Gives a stream the means to end a connection whose other side reads nothing."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.app_state = {**self.app_state, "transport": transport}
        super().connection_made(transport)


def _protocol(service: FeatureService) -> type[asyncio.Protocol]:
    bounds = service.settings

    class Timed(HttpToolsProtocol):
        """Ends connections on which no whole request comes in time; takes no more than it may."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            self._deadline: asyncio.TimerHandle | None = None
            super().connection_made(transport)
            if len(self.connections) > bounds.max_connections + _SPARE:
                transport.abort()
            self._expect()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._expect()

        def connection_lost(self, exc: Exception | None) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
            super().connection_lost(exc)

        def _expect(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
            self._deadline = self.loop.call_later(bounds.idle_s, self._look)

        def _look(self) -> None:
            # The parser announces a request when its head is there, a body has a time of its own.
            under_way = self.cycle is not None and not self.cycle.response_complete
            if self.transport.get_protocol() is self and not under_way:
                self.transport.abort()

    return Timed
