"""Every table and index of the metadata database, once, for all databases.

On PostgreSQL the tables stand in a schema of their own, so that they never meet a table
called `sessions` or `entries` of somebody else's application.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

tables = sa.MetaData()

# Sorted by code points everywhere, as blob stores sort their listings; PostgreSQL would ask the locale.
_NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

# Narrow rows, which are found by their primary key: SQLite then keeps one tree instead of two.
_NARROW: Final[dict[str, Any]] = {"sqlite_with_rowid": False}

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

#: The committed results. What is in a row is signed, but for the bytes of `inline`, whose digest is.
entries = sa.Table(
    "entries",
    tables,
    sa.Column("namespace", sa.Text, primary_key=True),
    sa.Column("key", sa.LargeBinary, primary_key=True),
    # Not UNIQUE: a name is used once by construction, and an index would cost every put.
    sa.Column("blob", _NAME),
    sa.Column("inline", sa.LargeBinary),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("raw_size", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.LargeBinary, nullable=False),
    sa.Column("codec", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger),
    sa.Column("compute_seconds", sa.Double),
    sa.Column("function", sa.Text, nullable=False),
    sa.Column("prefix", sa.Text, nullable=False),
    sa.Column("args", sa.LargeBinary, nullable=False),
    sa.Column("components", sa.Text, nullable=False),
    sa.Column("value", sa.LargeBinary),
    sa.Column("fn", sa.LargeBinary),
    sa.Column("alias", sa.LargeBinary),
    sa.Column("link", sa.LargeBinary),
    sa.Column("outputs", sa.Text),
    sa.Column("tags", sa.Text, nullable=False),
    sa.Column("provenance", sa.Text, nullable=False),
    sa.Column("key_id", sa.Text, nullable=False),
    sa.Column("mac", sa.LargeBinary, nullable=False),
    # The blob that the newest commit replaced, and the size of that entry. The upsert writes them, so that
    # one statement can both replace a row and leave a tombstone for exactly what it replaced.
    sa.Column("replaced", sa.Text),
    sa.Column("replaced_size", sa.BigInteger),
    sa.Index("entries_by_function", "namespace", "function", "created_at"),
    sa.Index("entries_by_age", "namespace", "created_at"),
)


def _where_set(name: str, *columns: str) -> sa.Index:
    """An index on the rows in which the last of these columns is set: the others cost a put nothing."""
    is_set = sa.text(f"{columns[-1]} IS NOT NULL")
    return sa.Index(name, *(entries.c[column] for column in columns), sqlite_where=is_set)


#: postgresql.py says the same conditions for its database: to name an option of PostgreSQL's here
#: would load SQLAlchemy's dialects for it, and a fresh process on SQLite has no time for them.
PARTIAL_INDEXES: Final = (
    _where_set("entries_by_expiry", "namespace", "expires_at"),
    _where_set("entries_by_fn", "namespace", "fn"),
    _where_set("entries_by_value", "namespace", "value"),
    _where_set("entries_by_alias", "namespace", "alias"),
)

#: When an entry was used last, and how often. A hint: its entry may be another by now, or gone.
uses = sa.Table(
    "uses",
    tables,
    sa.Column("namespace", sa.Text, primary_key=True),
    sa.Column("key", sa.LargeBinary, primary_key=True),
    sa.Column("accessed_at", sa.BigInteger, nullable=False),
    sa.Column("hits", sa.BigInteger, nullable=False),
    **_NARROW,
)

#: Which entries have a tag, or a prefix (kind `prefix`). A hint: the row of the entry says what it really has.
tags = sa.Table(
    "tags",
    tables,
    sa.Column("namespace", sa.Text, primary_key=True),
    sa.Column("key", sa.LargeBinary, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("tag", sa.Text, primary_key=True),
    sa.Index("tags_by_name", "namespace", "kind", "tag", "key"),
    **_NARROW,
)

#: What code made results: a row for each fingerprint. Unproven text until its digest is the `fn` of an entry.
functions = sa.Table(
    "functions",
    tables,
    sa.Column("namespace", sa.Text, primary_key=True),
    sa.Column("digest", sa.LargeBinary, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("module", sa.Text, nullable=False),
    sa.Column("components", sa.Text, nullable=False),
    sa.Column("first_seen", sa.BigInteger, nullable=False),
    sa.Column("last_seen", sa.BigInteger, nullable=False),
    sa.Index("functions_by_age", "namespace", "last_seen"),
)

#: What a namespace holds, in slots that are added up, so that writers do not wait for each other.
totals = sa.Table(
    "totals",
    tables,
    sa.Column("namespace", sa.Text, primary_key=True),
    sa.Column("slot", sa.Integer, primary_key=True),
    sa.Column("entries", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
)

quotas = sa.Table(
    "quotas",
    tables,
    sa.Column("namespace", sa.Text, primary_key=True),
    sa.Column("max_bytes", sa.BigInteger),
    sa.Column("max_entries", sa.BigInteger),
    sa.Column("policy", sa.Text, nullable=False),
    sa.Column("maintained_at", sa.BigInteger),
)

#: What calls came to, by process (`who`) while a span lasts and for all of them afterwards.
activity = sa.Table(
    "activity",
    tables,
    sa.Column("namespace", sa.Text, primary_key=True),
    sa.Column("span", sa.Text, primary_key=True),
    sa.Column("hour", sa.BigInteger, primary_key=True),
    sa.Column("function", sa.Text, primary_key=True),
    sa.Column("outcome", sa.Text, primary_key=True),
    sa.Column("reason", sa.Text, primary_key=True),
    sa.Column("who", sa.Text, primary_key=True),
    sa.Column("calls", sa.BigInteger, nullable=False),
    sa.Column("seconds_spent", sa.Double, nullable=False),
    sa.Column("seconds_saved", sa.Double, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    **_NARROW,
)

#: The rows of processes, which reports add up each time, among all those of the past.
ACTIVITY_APART: Final = sa.Index(
    "activity_apart", activity.c.namespace, activity.c.hour, sqlite_where=sa.text("who != ''")
)

#: Fingerprints whose results were found to be the same, signed.
equivalences = sa.Table(
    "equivalences",
    tables,
    sa.Column("namespace", sa.Text, primary_key=True),
    sa.Column("new", sa.LargeBinary, primary_key=True),
    sa.Column("old", sa.LargeBinary, primary_key=True),
    sa.Column("store", sa.Text, nullable=False),
    sa.Column("parameters", sa.Text, nullable=False),
    sa.Column("evidence", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("until", sa.BigInteger, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("key_id", sa.Text, nullable=False),
    sa.Column("mac", sa.LargeBinary, nullable=False),
)

#: Results that came out differently when they were computed again.
disputes = sa.Table(
    "disputes",
    tables,
    sa.Column("namespace", sa.Text, primary_key=True),
    sa.Column("key", sa.LargeBinary, primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("stored", sa.LargeBinary),
    sa.Column("computed", sa.LargeBinary),
    sa.Column("function", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("settled", sa.BigInteger),
)

#: Why a result was not stored.
not_stored = sa.Table(
    "not_stored",
    tables,
    sa.Column("namespace", sa.Text, primary_key=True),
    sa.Column("key", sa.LargeBinary, primary_key=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
)

tombstones = sa.Table(
    "tombstones",
    tables,
    sa.Column("blob", _NAME, primary_key=True),
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

#: Who computes a key now.
compute_leases = sa.Table(
    "compute_leases",
    tables,
    sa.Column("namespace", sa.Text, primary_key=True),
    sa.Column("key", sa.LargeBinary, primary_key=True),
    sa.Column("token", sa.Text, nullable=False),
    sa.Column("until", sa.BigInteger, nullable=False),
)
