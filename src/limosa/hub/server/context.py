"""What every request needs: the store, the workshop, who asks, and how much they may."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, TypeVar

import anyio
from fastapi import Depends, Request

from limosa.errors import AuthError, ConfigError, LimosaError
from limosa.hub.problems import BusyError, UnavailableError
from limosa.hub.rates import Rates
from limosa.hub.reference import check_repository
from limosa.hub.server.metrics import Metrics
from limosa.hub.server.settings import HubSettings
from limosa.hub.store.store import Store
from limosa.hub.trust import Caller, Scope, no_repository
from limosa.hub.workshop import Workshop

log = logging.getLogger("limosa.hub")
COOKIE = "limosa_token"
_STATISTICS = 64
# Tensors of all these; each takes some kilobytes.
_DESCRIBED = 20_000
# Requests that wait for a codec, and those of one token or address among them.
_WAITING, _WAITING_EACH = 256, 64
# Of pieces of uploads that are in memory.
_PIECES_BYTES = 2**30
Found = TypeVar("Found")


class Pieces:
    """Memory for pieces of uploads that are on their way, of all senders together.

    >>> pieces = Pieces(most=10)
    >>> with pieces.room() as take:
    ...     take(10)
    ...     take(1)
    Traceback (most recent call last):
    limosa.hub.problems.UnavailableError: too many uploads at once; allowed 10 bytes under way
    """

    def __init__(self, most: int) -> None:
        # Only ever in the one thread of the event loop.
        self._most, self._held = most, 0

    @contextmanager
    def room(self) -> Iterator[Callable[[int], None]]:
        """What takes room, which is given back at the end of the block.

        Raises:
            UnavailableError: when it takes more than there is.
        """
        mine = 0

        def take(nbytes: int) -> None:
            nonlocal mine
            if self._held + nbytes > self._most:
                raise UnavailableError(
                    "too many uploads at once", allowed=f"{self._most} bytes under way",
                    retry_after=2.0,
                )  # fmt: skip
            self._held += nbytes
            mine += nbytes

        try:
            yield take
        finally:
            self._held -= mine


class Hub:
    """A running hub.

    Args:
        store: where everything is.
        workshop: who knows what is in a blob.
        settings: of the operator.
    """

    def __init__(self, store: Store, workshop: Workshop, settings: HubSettings) -> None:
        self.store, self.workshop, self.settings = store, workshop, settings
        self.metrics = Metrics()
        self.rates = Rates(settings.rate or None, settings.burst)
        self.stopping = False
        #: Of versions that were looked at lately, by digests of them and of what they differ from.
        self.statistics: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self._pool = ThreadPoolExecutor(settings.jobs, "limosa-job")
        self._jobs: dict[str, Future[None]] = {}
        self._lock = threading.Lock()
        self._slow = anyio.CapacityLimiter(_WAITING)
        self._waiting: Counter[str] = Counter()
        self.pieces = Pieces(_PIECES_BYTES)

    async def slowly(
        self, request: Request, work: Callable[..., Found], *arguments: object
    ) -> Found:
        """What *work* gives, which may wait for a codec: in threads of its own, so that what is
        quick goes on however many wait.

        Raises:
            BusyError: whoever asks has enough under way.
        """
        # Only ever in the one thread of the event loop.
        who: str = request.state.who
        if self._waiting[who] >= _WAITING_EACH:
            raise BusyError(
                "too many requests under way", where=f"client {who}", retry_after=5.0,
                allowed=str(_WAITING_EACH), remedy="wait for some of them",
            )  # fmt: skip
        self._waiting[who] += 1
        try:
            job = partial(work, *arguments)
            return await anyio.to_thread.run_sync(job, limiter=self._slow)
        finally:
            self._waiting[who] -= 1
            if not self._waiting[who]:
                del self._waiting[who]

    def keep_statistics(self, key: tuple[str, str], found: list[dict[str, Any]]) -> None:
        """Remember statistics, of so many versions that memory does not fill."""
        with self._lock:
            self.statistics[key] = found
            tensors = sum(map(len, self.statistics.values()))
            while len(self.statistics) > 1 and (
                len(self.statistics) > _STATISTICS or tensors > _DESCRIBED
            ):
                tensors -= len(self.statistics.pop(next(iter(self.statistics))))

    def start(self, key: str, work: Callable[[], object]) -> Future[None]:
        """Begin *work*, unless what has that key is under way already in this worker."""
        with self._lock:
            found = self._jobs.get(key)
            if found is None:
                found = self._pool.submit(self._run, key, work)
                self._jobs[key] = found
            return found

    def _run(self, key: str, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception:
            log.exception("work failed", extra={"work": key})
        finally:
            with self._lock:
                self._jobs.pop(key, None)

    def close(self) -> None:
        """Let work under way end, take nothing new."""
        self.stopping = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.workshop.close()
        self.store.close()

    def anonymous(self) -> Caller:
        """Who shows no token."""
        scopes = tuple(Scope("read", pattern) for pattern in self.settings.anonymous)
        return Caller(0, "anonymous", "anonymous", scopes)

    def caller(self, token: str | None) -> Caller:
        """Who has this token.

        Raises:
            AuthError: nobody.
        """
        return self.anonymous() if not token else self.store.accounts.caller(token)


def hub_of(request: Request) -> Hub:
    """The hub that answers."""
    found: Hub = request.app.state.hub
    return found


def caller_of(request: Request) -> Caller:
    """Who asks; too many requests of one are refused.

    Raises:
        AuthError: the token is none, or has expired.
        BusyError: too many requests.
    """
    hub = hub_of(request)
    field = request.headers.get("authorization")
    kind, _, token = (field or "").partition(" ")
    if field and (kind.lower() != "bearer" or not token.strip()):
        raise AuthError("no token", found=kind[:20], allowed="Authorization: Bearer limosa_…")
    address = request.client.host if request.client else "unknown"
    try:
        caller = hub.caller(token.strip())
    except LimosaError:
        # Guesses are counted as well, or they would be free.
        hub.rates.take(address)
        raise
    request.state.who = f"token {caller.id}" if caller.id else address
    hub.rates.take(request.state.who)
    request.state.caller = caller.name
    return caller


def repository_of(owner: str, name: str) -> str:
    """The repository of an address.

    Raises:
        NotFoundError: none can have that name.
    """
    try:
        return check_repository(f"{owner}/{name}")
    except ConfigError:
        raise no_repository(f"{owner}/{name}") from None


async def _hub_of(request: Request) -> Hub:
    # What waits for nothing needs no thread, which FastAPI would give to a plain function.
    return hub_of(request)


async def _repository_of(owner: str, name: str) -> str:
    return repository_of(owner, name)


HubHere = Annotated[Hub, Depends(_hub_of)]
Asking = Annotated[Caller, Depends(caller_of)]
Repository = Annotated[str, Depends(_repository_of)]
