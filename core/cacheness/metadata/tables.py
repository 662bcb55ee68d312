"""Every table and index of the metadata database, once, for all databases.

On PostgreSQL the tables stand in a schema of their own, so that they never meet a table
called `sessions` or `entries` of somebody else's application.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

#: What this library writes. Migrations are numbered up to it.
SCHEMA_VERSION: Final = 1
#: The oldest library that can use a database of this schema: SCHEMA_VERSION as it knew it.
MINIMUM_READER: Final = 1

#: Where the tables stand on PostgreSQL.
POSTGRESQL_SCHEMA: Final = "cacheness"

tables = sa.MetaData()

# Sorted by code points everywhere, as blob stores sort their listings; PostgreSQL would ask the locale.
_NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

store = sa.Table(
    "store",
    tables,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("epoch", sa.Text, nullable=False),
    sa.Column("min_reader", sa.Integer, nullable=False),
)

#: Belongs to Alembic, which dictates its shape; a fresh database gets it without importing Alembic.
schema_version = sa.Table(
    "schema_version",
    tables,
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="schema_version_pkc"),
)

sessions = sa.Table(
    "sessions",
    tables,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("boot_id", sa.Text, nullable=False),
    sa.Column("pid_ns", sa.Text, nullable=False),
    sa.Column("pid", sa.BigInteger, nullable=False),
    sa.Column("pid_start", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("fenced_at", sa.BigInteger),
)

#: Apart from `sessions`, because a heartbeat must not wait for the commits that lock a session's row.
leases = sa.Table(
    "leases",
    tables,
    sa.Column("session", sa.Text, primary_key=True),
    sa.Column("until", sa.BigInteger, nullable=False),
)

entries = sa.Table(
    "entries",
    tables,
    sa.Column("namespace", sa.Text, primary_key=True),
    sa.Column("key", sa.LargeBinary, primary_key=True),
    sa.Column("object", _NAME, unique=True),
    sa.Column("inline", sa.LargeBinary),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("raw_size", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.LargeBinary, nullable=False),
    sa.Column("codec", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger),
    sa.Column("accessed_at", sa.BigInteger, nullable=False),
    sa.Column("hits", sa.BigInteger, nullable=False),
    sa.Column("compute_seconds", sa.Double),
    sa.Column("function", sa.Text, nullable=False),
    sa.Column("prefix", sa.Text, nullable=False),
    sa.Column("args", sa.LargeBinary, nullable=False),
    sa.Column("parts", sa.Text, nullable=False),
    sa.Column("tags", sa.Text, nullable=False),
    sa.Column("provenance", sa.Text, nullable=False),
    sa.Column("key_id", sa.Text, nullable=False),
    sa.Column("mac", sa.LargeBinary, nullable=False),
    # The object that the newest commit replaced. The upsert writes it, so that one statement can
    # both replace a row and leave a tombstone for exactly what it replaced.
    sa.Column("replaced", sa.Text),
    sa.Index("entries_by_use", "namespace", "accessed_at"),
)

EXPIRING: Final = sa.text("expires_at IS NOT NULL")
#: postgresql.py says the same condition for its database: to name an option of PostgreSQL's here
#: would load SQLAlchemy's dialects for it, and a fresh process on SQLite has no time for them.
entries_by_expiry = sa.Index("entries_by_expiry", entries.c.namespace, entries.c.expires_at, sqlite_where=EXPIRING)

tombstones = sa.Table(
    "tombstones",
    tables,
    sa.Column("object", _NAME, primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False),
)

#: When the entries whose keys begin with one byte were last read whole.
checks = sa.Table(
    "checks",
    tables,
    sa.Column("namespace", sa.Text, primary_key=True),
    sa.Column("shard", sa.Integer, primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False),
)

flights = sa.Table(
    "flights",
    tables,
    sa.Column("namespace", sa.Text, primary_key=True),
    sa.Column("key", sa.LargeBinary, primary_key=True),
    sa.Column("token", sa.Text, nullable=False),
    sa.Column("until", sa.BigInteger, nullable=False),
)
