"""The tables. Times are seconds since 1970, in UTC."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _id() -> Column[int]:
    return Column("id", Integer, primary_key=True)


def _of(table: str, name: str, *, ondelete: str = "CASCADE") -> Column[int]:
    target = ForeignKey(f"{table}.id", ondelete=ondelete)
    return Column(name, Integer, target, nullable=False, index=True)


repositories = Table(
    "repositories",
    metadata,
    _id(),
    Column("name", String(200), nullable=False, unique=True),
    Column("description", Text, nullable=False, server_default=""),
    Column("created", Double, nullable=False),
    # Counts changes of the graph, so that a worker knows whether the one that it has is the last.
    Column("revision", Integer, nullable=False, server_default="0"),
    # The last change that removed an edge: who knows that one need read only what came since.
    Column("removed", Integer, nullable=False, server_default="0"),
)

# States of models: those of versions, lossy copies of them, bases that a family shares.
nodes = Table(
    "nodes",
    metadata,
    _id(),
    _of("repositories", "repository_id"),
    Column("digest", String(64), nullable=False),
    Column("state", String(64), nullable=False),
    Column("nbytes", BigInteger, nullable=False),
    Column("manifest", LargeBinary, nullable=False),
    # Of a lossy copy: the digest of what it is a copy of, and how far it is from it, as JSON.
    Column("copy_of", String(64)),
    Column("bound", Text),
    Column("created", Double, nullable=False),
    UniqueConstraint("repository_id", "digest"),
    Index("ix_nodes_state", "repository_id", "state"),
)

versions = Table(
    "versions",
    metadata,
    _id(),
    _of("repositories", "repository_id"),
    _of("nodes", "node_id", ondelete="RESTRICT"),
    Column("name", String(128), nullable=False),
    Column("created", Double, nullable=False),
    Column("by", String(200), nullable=False),
    Column("notes", Text, nullable=False),
    Column("metrics", Text, nullable=False),
    Column("parents", Text, nullable=False),
    UniqueConstraint("repository_id", "name"),
)

tags = Table(
    "tags",
    metadata,
    _id(),
    _of("repositories", "repository_id"),
    _of("versions", "version_id"),
    Column("name", String(128), nullable=False),
    Column("moved", Double, nullable=False),
    UniqueConstraint("repository_id", "name"),
)

blobs = Table(
    "blobs",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("nbytes", BigInteger, nullable=False),
    Column("created", Double, nullable=False),
    # Since when no edge needs it: it goes a while after, so that nothing under way loses it.
    Column("condemned", Double),
    # Until when a plan that was given out may still fetch it.
    Column("leased", Double, nullable=False, server_default="0"),
)

edges = Table(
    "edges",
    metadata,
    _id(),
    _of("repositories", "repository_id"),
    # State of the base; "" for a whole model.
    Column("base", String(64), nullable=False),
    _of("nodes", "node_id"),
    Column("sha256", ForeignKey("blobs.sha256", ondelete="RESTRICT"), nullable=False, index=True),
    # Bytes of the blob up to the end of this layer; all of it without layers.
    Column("nbytes", BigInteger, nullable=False),
    Column("layer", Integer, nullable=False, server_default="0"),
    # pushed, made (on demand), baked (ahead of demand), copy, or shared (from a shared base)
    Column("kind", String(16), nullable=False),
    Column("memory", BigInteger, nullable=False),
    Column("created", Double, nullable=False),
    Column("used", Double, nullable=False),
    Column("uses", Integer, nullable=False, server_default="0"),
    # Of the repository, when it was stored.
    Column("revision", Integer, nullable=False, server_default="0"),
    UniqueConstraint("repository_id", "base", "node_id"),
    Index("ix_edges_revision", "repository_id", "revision"),
)

# What an edge that is not made yet would take, as measured on a sample.
estimates = Table(
    "estimates",
    metadata,
    _id(),
    _of("repositories", "repository_id"),
    Column("base", String(64), nullable=False),
    Column("target", String(64), nullable=False),
    Column("nbytes", BigInteger, nullable=False),
    Column("seconds", Double, nullable=False),
    UniqueConstraint("repository_id", "base", "target"),
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("repository", String(200), nullable=False),
    Column("version", String(128), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("state", String(64), nullable=False),
    Column("base", String(64), nullable=False),
    Column("nbytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("received", BigInteger, nullable=False),
    # open, verifying, done or failed
    Column("status", String(16), nullable=False),
    Column("problem", Text),
    Column("details", Text, nullable=False),
    Column("token_id", Integer, nullable=False),
    Column("by", String(200), nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double, nullable=False),
    Index("ix_uploads_version", "repository", "version"),
)

tokens = Table(
    "tokens",
    metadata,
    _id(),
    Column("hash", String(64), nullable=False, unique=True),
    Column("name", String(200), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("scopes", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double),
    Column("used", Double),
    # Or a new token would have the number, and so the uploads, of one that was revoked.
    sqlite_autoincrement=True,
)

devices = Table(
    "devices",
    metadata,
    _id(),
    Column("name", String(200), nullable=False, unique=True),
    Column("token_id", ForeignKey("tokens.id", ondelete="SET NULL")),
    Column("created", Double, nullable=False),
    Column("seen", Double),
)

holdings = Table(
    "holdings",
    metadata,
    _id(),
    _of("devices", "device_id"),
    Column("repository", String(200), nullable=False, index=True),
    Column("digest", String(64), nullable=False),
    Column("path", Text, nullable=False),
)

# Every delivery, for the bytes that were saved.
deliveries = Table(
    "deliveries",
    metadata,
    _id(),
    Column("repository", String(200), nullable=False, index=True),
    Column("at", Double, nullable=False, index=True),
    Column("start", String(64), nullable=False),
    Column("target", String(64), nullable=False),
    Column("nbytes", BigInteger, nullable=False),
    Column("whole_nbytes", BigInteger, nullable=False),
    Column("raw_nbytes", BigInteger, nullable=False),
    Column("by", String(200), nullable=False),
)

# Work that one worker at a time may do: whose it is, and until when without a sign of life.
locks = Table(
    "locks",
    metadata,
    Column("key", String(300), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("until", Double, nullable=False),
)
