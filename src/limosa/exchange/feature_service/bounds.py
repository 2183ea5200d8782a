"""Counters that refuse: features a second for each client, bytes in memory for all."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable

from limosa.errors import LimitError
from limosa.hub.problems import BusyError

#: Addresses that are remembered; the one that was heard longest ago is forgotten first.
MAX_ADDRESSES = 4096


class Rates:
    """A token bucket for each address.

    >>> rates = Rates(rate=10, burst=1, clock=lambda: 0.0)
    >>> rates.delay("a"), rates.delay("a"), rates.delay("b")
    (0.0, 0.1, 0.0)
    """

    def __init__(
        self, rate: float | None, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def delay(self, address: str) -> float:
        """Take one token; 0, or the seconds until there is one, which is not taken then."""
        if self._rate is None:
            return 0.0
        now = self._clock()
        tokens, then = self._buckets.pop(address, (float(self._burst), now))
        tokens = min(float(self._burst), tokens + (now - then) * self._rate)
        wait = max(0.0, (1.0 - tokens) / self._rate)
        self._buckets[address] = (tokens if wait else tokens - 1.0), now
        if len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        return wait

    def take(self, address: str) -> None:
        """Take one token.

        Raises:
            BusyError: there is none.
        """
        wait = self.delay(address)
        if wait:
            raise BusyError(
                "too many features a second", where=f"client {address}", retry_after=wait,
                allowed=f"{self._rate:g} a second", remedy="send fewer",
            )  # fmt: skip


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
