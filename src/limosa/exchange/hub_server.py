"""A hub on a socket: the store, the workshop that knows the codec, and the web."""

from __future__ import annotations

import json
import logging
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limosa.errors import ConfigError, MissingExtraError
from limosa.hub.in_thread import InThread
from limosa.hub.server.settings import HubSettings
from limosa.hub.sockets import listen, url_of

try:
    import uvicorn

    from limosa.hub.server.app import make_app
    from limosa.hub.server.context import Hub
    from limosa.hub.server.zero_copy import FileProtocol
    from limosa.hub.store.store import Store
except ModuleNotFoundError:
    raise MissingExtraError.for_extra("hub", "a hub") from None

if TYPE_CHECKING:
    from fastapi import FastAPI

log = logging.getLogger("limosa.hub")
_SETTINGS = "LIMOSA_HUB_SETTINGS"
_STOP_S = 30
_KEEP_ALIVE_S = 30
_BACKLOG = 512


def open_hub(settings: HubSettings) -> Hub:
    """The hub of a folder, which is made if it is not there.

    Raises:
        ConfigError: the folder cannot be made.
        TransportError: the database or the blobs do not answer.
    """
    from limosa.exchange.workshop.shop import Shop

    try:
        (settings.folder / "work").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            "cannot make the hub's folder", where=str(settings.folder), found=str(error)
        ) from None
    store = Store(settings.database_url, settings.blobs_url)
    return Hub(store, Shop(store, settings), settings)


def app() -> FastAPI:
    """The application of one of several workers, whose settings are in the environment."""
    from limosa.hub.logs import start_logging

    found = json.loads(os.environ[_SETTINGS])
    start_logging(found.pop("log_level"))
    found |= {"folder": Path(found["folder"]), "anonymous": tuple(found["anonymous"])}
    return make_app(open_hub(HubSettings(**found)))


def run_workers(
    settings: HubSettings, host: str, port: int, workers: int, log_level: str = "info"
) -> None:
    """Serve with several processes until SIGINT or SIGTERM."""
    told = {**asdict(settings), "folder": str(settings.folder), "log_level": log_level}
    os.environ[_SETTINGS] = json.dumps(told)
    uvicorn.run(
        "limosa.exchange.hub_server:app", factory=True, host=host, port=port, workers=workers,
        **_uvicorn_settings(),
    )  # fmt: skip


def _uvicorn_settings() -> dict[str, Any]:
    return {
        "http": FileProtocol,
        "timeout_keep_alive": _KEEP_ALIVE_S,
        "timeout_graceful_shutdown": _STOP_S,
        "log_config": None,
        "access_log": False,
        "server_header": False,
    }


def drop_leftovers(settings: HubSettings) -> None:
    """Remove what a hub that was killed left while it decoded; before any worker starts."""
    work = settings.folder / "work"
    for left in work.glob("*-*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


class HubServer(InThread):
    """A hub that serves until told to stop; as a context, in a thread of its own.

    Args:
        settings: of the operator.
        host: name or address to listen at.
        port: 0 for any that is free.

    Attributes:
        url: where it answers.
        admin_token: of the first run; None if there were tokens already.

    Raises:
        ConfigError: it cannot listen there.
        TransportError: the database or the blobs do not answer.
    """

    def __init__(self, settings: HubSettings, host: str = "127.0.0.1", port: int = 0) -> None:
        self._socket = listen(host, port)
        self.url = url_of(host, self._socket)
        self.hub = open_hub(replace(settings, folder=settings.folder.resolve()))
        self.admin_token = self.hub.store.first_token()
        config = uvicorn.Config(make_app(self.hub), backlog=_BACKLOG, **_uvicorn_settings())
        super().__init__(uvicorn.Server(config), "limosa-hub", "the hub")

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM, then let what is under way end."""
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """Take nothing new, let what is under way end; from any thread."""
        self.hub.stopping = True
        self._server.should_exit = True
