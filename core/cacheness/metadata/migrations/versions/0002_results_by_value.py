"""Signed columns for what a result knows of itself, uses and tags in tables of their own, and tables to come.

Entries of schema 1 are not read any more: their signatures cover other fields. Their table is put
aside, in no time, and `migrations.drop_old_entries` empties it beside those who already write.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """From schema 1 to schema 2."""
    _put_entries_aside()
    op.alter_column("tombstones", "object", new_column_name="blob")
    op.rename_table("flights", "compute_leases")
    _create_entries()
    _create_hints()
    _create_figures()
    _create_judgements()
    op.execute("UPDATE store SET min_reader = 2")


def _put_entries_aside() -> None:
    op.drop_index("entries_by_use", "entries")
    op.drop_index("entries_by_expiry", "entries")
    op.rename_table("entries", "entries_of_schema_1")
    if op.get_bind().dialect.name == "postgresql":
        # Names of indexes are those of a whole schema, and the new tables want them.
        op.execute("ALTER INDEX entries_pkey RENAME TO entries_of_schema_1_pkey")
        op.execute("ALTER INDEX entries_object_key RENAME TO entries_of_schema_1_object_key")
        op.execute("ALTER INDEX flights_pkey RENAME TO compute_leases_pkey")


def _create_entries() -> None:
    op.create_table(
        "entries",
        sa.Column("namespace", sa.Text, primary_key=True),
        sa.Column("key", sa.LargeBinary, primary_key=True),
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
        sa.Column("replaced", sa.Text),
        sa.Column("replaced_size", sa.BigInteger),
    )
    op.create_index("entries_by_function", "entries", ["namespace", "function", "created_at"])
    op.create_index("entries_by_age", "entries", ["namespace", "created_at"])
    for name, column in (("expiry", "expires_at"), ("fn", "fn"), ("value", "value"), ("alias", "alias")):
        is_set = sa.text(f"{column} IS NOT NULL")
        op.create_index(
            f"entries_by_{name}", "entries", ["namespace", column], sqlite_where=is_set, postgresql_where=is_set
        )


def _create_hints() -> None:
    op.create_table(
        "uses",
        sa.Column("namespace", sa.Text, primary_key=True),
        sa.Column("key", sa.LargeBinary, primary_key=True),
        sa.Column("accessed_at", sa.BigInteger, nullable=False),
        sa.Column("hits", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE uses SET (fillfactor = 80)")
    op.create_table(
        "tags",
        sa.Column("namespace", sa.Text, primary_key=True),
        sa.Column("key", sa.LargeBinary, primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("tag", sa.Text, primary_key=True),
        sqlite_with_rowid=False,
    )
    op.create_index("tags_by_name", "tags", ["namespace", "kind", "tag", "key"])
    op.create_table(
        "functions",
        sa.Column("namespace", sa.Text, primary_key=True),
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("module", sa.Text, nullable=False),
        sa.Column("components", sa.Text, nullable=False),
        sa.Column("first_seen", sa.BigInteger, nullable=False),
        sa.Column("last_seen", sa.BigInteger, nullable=False),
    )
    op.create_index("functions_by_age", "functions", ["namespace", "last_seen"])


def _create_figures() -> None:
    op.create_table(
        "totals",
        sa.Column("namespace", sa.Text, primary_key=True),
        sa.Column("slot", sa.Integer, primary_key=True),
        sa.Column("entries", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "quotas",
        sa.Column("namespace", sa.Text, primary_key=True),
        sa.Column("max_bytes", sa.BigInteger),
        sa.Column("max_entries", sa.BigInteger),
        sa.Column("policy", sa.Text, nullable=False),
        sa.Column("maintained_at", sa.BigInteger),
    )
    op.create_table(
        "activity",
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
        sqlite_with_rowid=False,
    )
    is_apart = sa.text("who != ''")
    op.create_index(
        "activity_apart", "activity", ["namespace", "hour"], sqlite_where=is_apart, postgresql_where=is_apart
    )


def _create_judgements() -> None:
    op.create_table(
        "equivalences",
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
    op.create_table(
        "disputes",
        sa.Column("namespace", sa.Text, primary_key=True),
        sa.Column("key", sa.LargeBinary, primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("stored", sa.LargeBinary),
        sa.Column("computed", sa.LargeBinary),
        sa.Column("function", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("settled", sa.BigInteger),
    )
    op.create_table(
        "not_stored",
        sa.Column("namespace", sa.Text, primary_key=True),
        sa.Column("key", sa.LargeBinary, primary_key=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
    )
