"""What was delivered, and so what was saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from limosa.hub.store.database import Database
from limosa.hub.store.schema import deliveries

_DAY_S = 86400.0


@dataclass(frozen=True)
class Delivery:
    """A pull that ended well.

    Attributes:
        repository, start, target: from which state to which version.
        nbytes: that travelled.
        whole_nbytes: that the whole compressed model would have taken.
        raw_nbytes: of the decoded model.
        by: who received it.
        at: seconds since 1970; the ledger's clock says so.
    """

    repository: str
    start: str
    target: str
    nbytes: int
    whole_nbytes: int
    raw_nbytes: int
    by: str
    at: float = 0.0


@dataclass(frozen=True)
class Day:
    """Sums of a day, which begins *at* seconds since 1970 (UTC)."""

    at: float
    pulls: int
    nbytes: int
    whole_nbytes: int
    raw_nbytes: int


class Ledger:
    """All deliveries.

    Args:
        database: where they stand.
        clock: seconds since 1970.
    """

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def add(self, delivery: Delivery) -> None:
        """One more."""
        values = {**vars(delivery), "at": self._clock()}
        with self._database.begin() as connection:
            connection.execute(sa.insert(deliveries).values(**values))

    def days(self, repositories: list[str] | None = None, last: int = 90) -> list[Day]:
        """Sums by day, oldest first; of some repositories only, where given."""
        day = sa.func.floor(deliveries.c.at / _DAY_S).label("day")
        query = sa.select(
            day,
            sa.func.count().label("pulls"),
            _sum(deliveries.c.nbytes).label("nbytes"),
            _sum(deliveries.c.whole_nbytes).label("whole"),
            _sum(deliveries.c.raw_nbytes).label("raw"),
        ).where(deliveries.c.at >= self._clock() - last * _DAY_S)
        if repositories is not None:
            query = query.where(deliveries.c.repository.in_(repositories))
        with self._database.read() as connection:
            rows = connection.execute(query.group_by(day).order_by(day)).all()
        return [
            Day(float(r.day) * _DAY_S, r.pulls, int(r.nbytes), int(r.whole), int(r.raw))
            for r in rows
        ]

    def latest(self, repository: str, count: int = 20) -> list[Delivery]:
        """The last ones of a repository, latest first."""
        query = (
            sa.select(deliveries)
            .where(deliveries.c.repository == repository)
            .order_by(deliveries.c.id.desc())
            .limit(count)
        )
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return [
            Delivery(
                r.repository, r.start, r.target, r.nbytes, r.whole_nbytes, r.raw_nbytes, r.by, r.at
            )
            for r in rows
        ]

    def wanted(self, repository: str, since_s: float = 30 * _DAY_S) -> dict[tuple[str, str], int]:
        """How often each start was turned into each target lately."""
        query = (
            sa.select(deliveries.c.start, deliveries.c.target, sa.func.count().label("pulls"))
            .where(deliveries.c.repository == repository)
            .where(deliveries.c.at >= self._clock() - since_s)
            .group_by(deliveries.c.start, deliveries.c.target)
        )
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return {(row.start, row.target): row.pulls for row in rows}


def _sum(column: sa.Column[int]) -> sa.Function[float]:
    # As floats: what receivers report may be anything, and SQLite fails where 64 bits overflow.
    return sa.func.sum(sa.cast(column, sa.Double))
