"""A counter that refuses: bytes of features in memory."""

from __future__ import annotations

import asyncio

from limosa.errors import LimitError
from limosa.hub.problems import BusyError


class Budget:
    """Bytes that may be in use at once; belongs to one event loop."""

    def __init__(self, total: int) -> None:
        self.total, self.used = total, 0
        self._freed = asyncio.Event()

    def take(self, size: int) -> None:
        """Use *size* bytes.

        Raises:
            LimitError: that is more than there will ever be.
            BusyError: they are in use.
        """
        if size > self.total:
            raise LimitError(
                "the feature is too large", where="feature", found=f"{size} bytes decoded",
                allowed=f"{self.total}",
            )  # fmt: skip
        if self.used + size > self.total:
            raise BusyError("too many features are under way", allowed=f"{self.total} bytes")
        self.used += size

    async def wait(self, size: int) -> None:
        """As :meth:`take`, but wait for them."""
        while True:
            try:
                return self.take(size)
            except BusyError:
                self._freed.clear()
                await self._freed.wait()

    def give(self, size: int) -> None:
        """Give them back."""
        self.used -= size
        self._freed.set()
