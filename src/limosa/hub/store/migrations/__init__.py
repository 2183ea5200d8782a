"""Changes of the tables, for alembic."""
