"""Define every table and index of the metadata database, once, for all databases.

On PostgreSQL the tables are in a separate schema, so that they never collide with another
application's `sessions` or `entries`.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

tables = sa.MetaData()

# Sorted by code points everywhere, as blob stores sort their listings; PostgreSQL would use the locale.
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

#: Belongs to Alembic, which defines its columns; a new database gets it without importing Alembic.
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

#: Separate from `sessions`, because a heartbeat must not wait for the commits that lock a session's row.
leases = sa.Table(
    "leases",
    tables,
    sa.Column("session", sa.Text, primary_key=True),
    sa.Column("until", sa.BigInteger, nullable=False),
)

#: The committed results. A row is signed except for the bytes of `inline`, whose digest is signed.
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
    # The blob that the newest commit replaced, and the size of that entry. The upsert writes them,
    # so that one statement can both replace a row and write a tombstone for exactly that blob.
    sa.Column("replaced", sa.Text),
    sa.Column("replaced_size", sa.BigInteger),
    sa.Index("entries_by_function", "namespace", "function", "created_at"),
    sa.Index("entries_by_age", "namespace", "created_at"),
)


def _where_set(name: str, *columns: str) -> sa.Index:
    """An index on the rows in which the last of these columns is set: puts of other rows cost nothing."""
    is_set = sa.text(f"{columns[-1]} IS NOT NULL")
    return sa.Index(name, *(entries.c[column] for column in columns), sqlite_where=is_set)


#: postgresql.py repeats these conditions for its database: an option of PostgreSQL here would load
#: SQLAlchemy's dialect, which takes too long for a new process on SQLite.
PARTIAL_INDEXES: Final = (
    _where_set("entries_by_expiry", "namespace", "expires_at"),
    _where_set("entries_by_fn", "namespace", "fn"),
    _where_set("entries_by_value", "namespace", "value"),
    _where_set("entries_by_alias", "namespace", "alias"),
)

#: When an entry was last used, and how often. A hint: its entry may be replaced or deleted.
uses = sa.Table(
    "uses",
    tables,
    sa.Column("namespace", sa.Text, primary_key=True),
    sa.Column("key", sa.LargeBinary, primary_key=True),
    sa.Column("accessed_at", sa.BigInteger, nullable=False),
    sa.Column("hits", sa.BigInteger, nullable=False),
    **_NARROW,
)

#: Which entries have a tag, or a prefix (kind `prefix`). A hint: the row of the entry decides.
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

#: The code that made results: a row per fingerprint. Unproven text unless its digest is the `fn` of an entry.
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

#: The totals of a namespace, in slots that are summed, so that writers do not wait for each other.
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

#: Calls by process (`who`) until a span ends, and for all processes afterwards.
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

#: The rows of processes, which reports sum each time, among all rows of the past.
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

#: Results that differed when they were computed again.
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

#: When the entries whose keys begin with one byte were last read in full.
checks = sa.Table(
    "checks",
    tables,
    sa.Column("namespace", sa.Text, primary_key=True),
    sa.Column("shard", sa.Integer, primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False),
)

#: Which process computes a key now.
compute_leases = sa.Table(
    "compute_leases",
    tables,
    sa.Column("namespace", sa.Text, primary_key=True),
    sa.Column("key", sa.LargeBinary, primary_key=True),
    sa.Column("token", sa.Text, nullable=False),
    sa.Column("until", sa.BigInteger, nullable=False),
)
