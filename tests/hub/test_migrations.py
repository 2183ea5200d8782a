"""The tables that migrations make are those that the code expects, on both databases."""

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from limosa.hub.store.database import Database
from limosa.hub.store.schema import metadata


def differences(database: Database) -> list:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return compare_metadata(context, metadata)


def test_on_sqlite(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/hub.db")
    assert differences(database), "an empty database should differ"
    database.migrate()
    assert differences(database) == []
    database.migrate()  # a second time changes nothing
    with database.read() as connection:
        assert connection.execute(sa.text("PRAGMA journal_mode")).scalar() == "wal"


def test_on_postgresql(postgres_database):
    database = Database(postgres_database)
    database.migrate()
    assert differences(database) == []
    database.close()
