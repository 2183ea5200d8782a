"""How much each client may ask for."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from limosa.hub.problems import BusyError

#: Addresses that are remembered; the one that was heard longest ago is forgotten first.
MAX_ADDRESSES = 4096


class Rates:
    """A token bucket for each address.

    Args:
        rate: requests a second; None: any.
        burst: that may come at once.
        what: is counted, for messages.
        clock: seconds from any moment on.

    >>> rates = Rates(rate=10, burst=1, clock=lambda: 0.0)
    >>> rates.delay("a"), rates.delay("a"), rates.delay("b")
    (0.0, 0.1, 0.0)
    """

    def __init__(
        self,
        rate: float | None,
        burst: int,
        clock: Callable[[], float] = time.monotonic,
        *,
        what: str = "requests",
    ) -> None:
        self._rate, self._burst, self._clock, self._what = rate, burst, clock, what
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        # Of one address two threads may ask at once: neither is to find a bucket missing.
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._buckets)

    def delay(self, address: str) -> float:
        """Take one token; 0, or the seconds until there is one, which is not taken then."""
        if self._rate is None:
            return 0.0
        with self._lock:
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
                f"too many {self._what} a second", where=f"client {address}", retry_after=wait,
                allowed=f"{self._rate:g} a second", remedy="send fewer",
            )  # fmt: skip
