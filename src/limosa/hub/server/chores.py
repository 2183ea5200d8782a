"""What a hub does by itself: it keeps its cache small, and makes what a fleet needs."""

from __future__ import annotations

import logging
import threading

from limosa.errors import ConflictError, LimosaError
from limosa.hub.server.context import Hub
from limosa.hub.store.upkeep import gc

log = logging.getLogger("limosa.hub")


class Chores:
    """Runs again and again in a thread of its own; of many workers one at a time does it.

    Args:
        hub: whose.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="limosa-chores", daemon=True)

    def start(self) -> None:
        """Begin, unless the operator wants none."""
        if self._hub.settings.chores_seconds > 0:
            self._thread.start()

    def stop(self) -> None:
        """End after what is under way."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._hub.settings.chores_seconds):
            try:
                self.do()
            except LimosaError as error:
                log.warning("a chore failed", extra={"problem": str(error)})
            except Exception:
                log.exception("a chore failed")

    def do(self) -> None:
        """All chores, once.

        Raises:
            TransportError: the store does not answer.
        """
        store = self._hub.store
        with store.locks.hold("chores") as mine:
            if not mine:
                return
            try:
                freed = gc(store, cache_bytes=self._hub.settings.cache_bytes)
                log.info("gc", extra=vars(freed))
            except ConflictError:
                return  # an operator does it right now
            held = {one.repository for device in store.accounts.devices() for one in device.holds}
            known = [one.name for one in store.catalog.repositories(lambda name: name in held)]
            for repository in known:
                if self._stopped.is_set():
                    return
                seconds = self._hub.settings.chores_seconds / 4
                made = self._hub.workshop.prebake(repository, seconds=seconds, dry_run=False)
                log.info("prebake", extra={"repository": repository, "edges": len(made)})
