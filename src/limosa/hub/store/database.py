"""A connection to SQLite or PostgreSQL, whose tables are brought up to date."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from limosa.errors import ConfigError, MissingExtraError, TransportError

try:
    import sqlalchemy as sa
    from sqlalchemy import exc
    from sqlalchemy.dialects import postgresql, sqlite
except ModuleNotFoundError:
    raise MissingExtraError.for_extra("hub", "a hub's database") from None

# Of PostgreSQL, for the one worker that changes the tables.
_MIGRATING = 0x6C696D6F7361
_BUSY_S = 60


class Database:
    """Transactions.

    Args:
        url: as SQLAlchemy writes them: ``sqlite:////path/hub.db``,
            ``postgresql+psycopg://user@host/name``.

    Raises:
        ConfigError: it is no such URL.
        MissingExtraError: the driver is not installed.
        TransportError: the database does not answer.
    """

    def __init__(self, url: str) -> None:
        try:
            made = sa.make_url(url)
        except exc.ArgumentError:
            raise ConfigError(
                "no address of a database", found=url.split("@")[-1],
                allowed="sqlite:///PATH or postgresql+psycopg://USER@HOST/NAME",
            ) from None  # fmt: skip
        if made.drivername in ("postgres", "postgresql"):
            made = made.set(drivername="postgresql+psycopg")
        self.is_sqlite = made.get_backend_name() == "sqlite"
        if not self.is_sqlite and made.get_backend_name() != "postgresql":
            raise ConfigError(
                "no such database", found=made.drivername, allowed="sqlite or postgresql"
            )
        self.engine = self._engine(made)

    def _engine(self, url: sa.URL) -> sa.Engine:
        try:
            if not self.is_sqlite:
                return sa.create_engine(url, pool_pre_ping=True, pool_size=8, max_overflow=32)
        except ModuleNotFoundError:
            raise MissingExtraError.for_extra("postgres", "PostgreSQL") from None
        engine = sa.create_engine(
            url, connect_args={"timeout": _BUSY_S, "check_same_thread": False},
            pool_size=8, max_overflow=32,
        )  # fmt: skip
        sa.event.listen(engine, "connect", _prepare_sqlite)
        return engine

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """A transaction that writes; it ends whole or not at all."""
        with self._answering(), self.engine.connect() as connection:
            if self.is_sqlite:
                # From the start the only one that writes: what it read stays true.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            with _ending(connection):
                yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that reads, of one moment where that is SQLite's."""
        with self._answering(), self.engine.connect() as connection:
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN")
            yield connection

    def migrate(self) -> None:
        """Make the tables, or bring them up to date; of many workers one does it."""
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with self._answering(), self.engine.connect() as connection:
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATING)))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()

    def check(self) -> None:
        """Ask for nothing.

        Raises:
            TransportError: the database does not answer.
        """
        with self.read() as connection:
            connection.execute(sa.select(1))

    def upsert(self, table: sa.Table, values: dict[str, Any], key: list[str]) -> Any:
        """An insert that changes the row of the same *key* where there is one."""
        make = sqlite.insert if self.is_sqlite else postgresql.insert
        found = make(table).values(values)
        rest = {name: found.excluded[name] for name in values if name not in key}
        if not rest:
            return found.on_conflict_do_nothing(index_elements=key)
        return found.on_conflict_do_update(index_elements=key, set_=rest)

    def insert_missing(self, table: sa.Table, values: dict[str, Any], key: list[str]) -> Any:
        """An insert that leaves the row of the same *key* where there is one; its ``rowcount`` says
        whether there was none.
        """
        make = sqlite.insert if self.is_sqlite else postgresql.insert
        made = make(table).values(values).on_conflict_do_nothing(index_elements=key)
        # Or PostgreSQL's driver has forgotten by the time that it is asked.
        return made.execution_options(preserve_rowcount=True)

    def is_inserted(
        self, connection: sa.Connection, table: sa.Table, values: dict[str, Any], key: list[str]
    ) -> bool:
        """Insert a row where there is none of the same *key*; whether there was none.

        The row itself tells: drivers do not agree on how to count rows that were not inserted.
        """
        insert = self.insert_missing(table, values, key).returning(table.c[key[0]])
        return connection.execute(insert).first() is not None

    def close(self) -> None:
        """End all connections."""
        self.engine.dispose()

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError) as error:
            raise TransportError(
                "the database does not answer", where=self.engine.url.get_backend_name(),
                found=str(getattr(error, "orig", error))[:200],
                remedy="see whether it runs and has room, try again",
            ) from error  # fmt: skip


@contextmanager
def _ending(connection: sa.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def _prepare_sqlite(connection: Any, record: Any) -> None:
    # Transactions begin where we say so, not where the driver guesses.
    connection.isolation_level = None
    # FULL: what was announced as done is there when the power comes back, too.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
