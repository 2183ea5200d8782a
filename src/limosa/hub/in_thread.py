"""A server that, as a context, runs in a thread of its own."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING

from limosa.errors import ConfigError

if TYPE_CHECKING:
    import uvicorn
    from typing_extensions import Self


class InThread(ABC):
    """What the servers have in common.

    Args:
        server: of uvicorn.
        name: of the thread.
        what: it is, for messages.
    """

    def __init__(self, server: uvicorn.Server, name: str, what: str) -> None:
        self._server, self._what = server, what
        self._thread = threading.Thread(target=self.run, name=name, daemon=True)

    @abstractmethod
    def run(self) -> None:
        """Serve until SIGINT or SIGTERM, then let what is under way end."""

    @abstractmethod
    def stop(self) -> None:
        """Take nothing new, let what is under way end; from any thread."""

    @property
    def ended(self) -> bool:
        """Whether it has served and then stopped as it should, nothing left under way."""
        return self._server.started and self._server.should_exit and not self._server.force_exit

    def __enter__(self) -> Self:
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise ConfigError(f"{self._what} did not start")
            time.sleep(0.005)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self._thread.join()
