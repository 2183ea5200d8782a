"""Which blobs there are, and which nobody needs any more."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import sqlalchemy as sa

from limosa.errors import ConflictError
from limosa.hub.store.database import Database
from limosa.hub.store.schema import blobs, edges


def adopt(
    database: Database,
    connection: sa.Connection,
    sha256: str,
    nbytes: int,
    now: float,
    stored: Callable[[], bool],
) -> None:
    """Within a transaction, name a blob that was just stored.

    The row is ours until the transaction ends, and :meth:`BlobTable.sweep` removes a blob only
    while it holds the row: so whoever comes second sees what the first one did.

    Raises:
        ConflictError: a sweep was faster; store it again.
    """
    values = {"sha256": sha256, "nbytes": nbytes, "created": now, "condemned": None}
    connection.execute(database.upsert(blobs, values, ["sha256"]))
    if not stored():
        raise ConflictError("the blob was removed meanwhile", where=sha256[:16], remedy="try again")


class BlobTable:
    """All blobs of the hub.

    Args:
        database: where they stand.
        clock: seconds since 1970.
    """

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def all(self) -> dict[str, int]:
        """Bytes by SHA-256."""
        with self._database.read() as connection:
            rows = connection.execute(sa.select(blobs.c.sha256, blobs.c.nbytes)).all()
        return {row.sha256: row.nbytes for row in rows}

    def needed(self) -> dict[str, int]:
        """Bytes by SHA-256 of those that an edge needs."""
        query = sa.select(blobs.c.sha256, blobs.c.nbytes).where(
            blobs.c.sha256.in_(sa.select(edges.c.sha256))
        )
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return {row.sha256: row.nbytes for row in rows}

    def condemn(self, orphans: Iterable[tuple[str, int]], *, dry_run: bool = False) -> None:
        """Note which blobs no edge needs, and from when on; take back what is needed again.

        Args:
            orphans: blobs that lie in the store and in no row: of a push that was killed.
            dry_run: change nothing.
        """
        if dry_run:
            return
        now = self._clock()
        needed = sa.select(edges.c.sha256)
        with self._database.begin() as connection:
            for sha256, nbytes in orphans:
                values = {"sha256": sha256, "nbytes": nbytes, "created": now, "condemned": now}
                connection.execute(self._database.insert_missing(blobs, values, ["sha256"]))
            connection.execute(
                sa.update(blobs).where(blobs.c.sha256.in_(needed)).values(condemned=None)
            )
            connection.execute(
                sa.update(blobs)
                .where(blobs.c.condemned.is_(None), blobs.c.sha256.not_in(needed))
                .values(condemned=now)
            )

    def due(self, grace_s: float) -> list[tuple[str, int]]:
        """Blobs that were condemned so long ago, and that no lease holds."""
        now = self._clock()
        with self._database.read() as connection:
            rows = connection.execute(
                sa.select(blobs.c.sha256, blobs.c.nbytes).where(
                    blobs.c.condemned <= now - grace_s, blobs.c.leased <= now
                )
            ).all()
        return [(row.sha256, row.nbytes) for row in rows]

    def sweep(self, sha256: str, grace_s: float, remove: Callable[[], None]) -> bool:
        """Remove a blob if still nobody needs it; returns whether it went."""
        now = self._clock()
        with self._database.begin() as connection:
            found = connection.execute(
                sa.select(blobs.c.sha256)
                .where(
                    blobs.c.sha256 == sha256,
                    blobs.c.condemned <= now - grace_s,
                    blobs.c.leased <= now,
                    blobs.c.sha256.not_in(sa.select(edges.c.sha256)),
                )
                .with_for_update()
            ).first()
            if found is None:
                return False
            remove()
            connection.execute(sa.delete(blobs).where(blobs.c.sha256 == sha256))
        return True
