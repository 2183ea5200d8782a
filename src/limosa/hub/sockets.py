"""Sockets that listen."""

from __future__ import annotations

import socket
from typing import Any, cast

from limosa.errors import ConfigError


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at *host*; port 0: any that is free.

    Raises:
        ConfigError: it cannot listen there.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.create_server(cast(Any, address[:2]), family=family, backlog=512)
    except OSError as error:
        raise ConfigError(
            "cannot listen", where=f"{host}:{port}", found=error.strerror or str(error)
        ) from None
    found.set_inheritable(True)
    return found


def url_of(host: str, listening: socket.socket) -> str:
    """The address of a server behind a socket.

    >>> with listen("127.0.0.1", 0) as found:
    ...     url_of("127.0.0.1", found) == f"http://127.0.0.1:{found.getsockname()[1]}"
    True
    """
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listening.getsockname()[1]}"
