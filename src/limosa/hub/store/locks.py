"""Work that one worker at a time does, whichever machine it runs on."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import sqlalchemy as sa

from limosa.errors import TransportError
from limosa.hub.store.database import Database
from limosa.hub.store.schema import locks

#: A worker that gave no sign of life for so long has died.
DEAD_S = 30.0
_SIGN_S = 8.0


class Locks:
    """Locks that a worker which died loses.

    Args:
        database: where they stand.
        clock: seconds since 1970; those of several machines should agree within seconds.
    """

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._owner = secrets.token_hex(16)
        self._held: set[str] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @contextmanager
    def hold(self, key: str) -> Iterator[bool]:
        """Whether the lock was free and is now ours, until the end of the block."""
        mine = f"{self._owner}-{secrets.token_hex(8)}"[:64]
        if not self._take(key, mine):
            yield False
            return
        with self._changed:
            self._held.add(f"{mine} {key}")
            self._start_signs()
        try:
            yield True
        finally:
            with self._changed:
                self._held.discard(f"{mine} {key}")
            # One that cannot be given back now is free when no more signs of life come.
            with suppress(TransportError):
                self._give(key, mine)

    def is_held(self, key: str) -> bool:
        """Whether somebody alive has the lock."""
        now = self._clock()
        query = sa.select(locks.c.key).where(locks.c.key == key, sa.not_(_is_dead(now)))
        with self._database.read() as connection:
            return connection.execute(query).first() is not None

    def _take(self, key: str, mine: str) -> bool:
        now = self._clock()
        values = {"key": key, "owner": mine, "until": now + DEAD_S}
        with self._database.begin() as connection:
            connection.execute(sa.delete(locks).where(locks.c.key == key, _is_dead(now)))
            return self._database.is_inserted(connection, locks, values, ["key"])

    def _give(self, key: str, mine: str) -> None:
        with self._database.begin() as connection:
            connection.execute(sa.delete(locks).where(locks.c.key == key, locks.c.owner == mine))

    def _start_signs(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._sign, name="limosa-locks", daemon=True)
            self._thread.start()

    def _sign(self) -> None:
        """Say every few seconds that we live, as long as we hold anything."""
        while True:
            with self._changed:
                self._changed.wait(_SIGN_S)
                held = list(self._held)
                if not held:
                    self._thread = None
                    return
            with suppress(TransportError):
                self._renew([pair.split(" ", 1) for pair in held])

    def _renew(self, held: list[list[str]]) -> None:
        with self._database.begin() as connection:
            for owner, key in held:
                connection.execute(
                    sa.update(locks)
                    .where(locks.c.key == key, locks.c.owner == owner)
                    .values(until=self._clock() + DEAD_S)
                )


def _is_dead(now: float) -> sa.ColumnElement[bool]:
    """No sign of life for long; or one from a future, before a clock was put back."""
    return (locks.c.until <= now) | (locks.c.until > now + 2 * DEAD_S)
