"""Migrate a database of an older version of cacheness to this one. Imports Alembic only then.

A migration has the number of the schema that it creates. If older libraries can still use the
database after it, it leaves `store.min_reader` unchanged, so that a fleet can be upgraded one
machine at a time; otherwise it raises that number, and older libraries then refuse to open the
database.

Schema 2 does not read the entries of schema 1. The migration renames their table, which takes no
time however many there are, and `drop_old_entries` turns their blobs into tombstones, slice by
slice, while other processes already use the new tables.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from cacheness import forks
from cacheness.deadlines import Limits
from cacheness.metadata.sql.schema import POSTGRESQL_SCHEMA, SCHEMA_VERSION
from cacheness.metadata.sql.store import refuse_newer
from cacheness.metadata.sql.tables import schema_version, store

T = TypeVar("T")

#: How long a migration may wait for a table's lock; other statements wait behind it.
_LOCK_TIMEOUT = "10s"
#: How long one statement of a migration may take.
_STATEMENT_SECONDS = 3600.0
#: Old entries that one transaction drops.
SLICE: Final = 10_000
#: The table of schema 1's entries until they are dropped.
_OLD: Final = sa.table("entries_of_schema_1", *map(sa.column, ("namespace", "key", "object")))


def upgrade(where: str | Path, *, more: Sequence[Path] = ()) -> tuple[int, int]:
    """Bring the schema of a SQLite file (a path) or a PostgreSQL database (a URL) up to date.

    Returns the version before and the version after; an empty database has version 0. The migration
    is one transaction, and runs once when several processes start it at the same time. `more` names
    folders with further migrations. Entries that the new schema does not read are left for
    `drop_old_entries`.
    """
    versions = _transact(where, partial(_migrate, more=more, name=_name_of(where)))
    if versions is None:
        _create(where)
        return 0, SCHEMA_VERSION
    return versions


def versions(where: str | Path) -> tuple[int, int]:
    """Return the version of a database's schema, 0 where it is empty, and the one that an upgrade would bring it to."""
    before = _transact(where, partial(_version, name=_name_of(where)))
    return before or 0, max(before or 0, SCHEMA_VERSION)


def old_entries(where: str | Path) -> int:
    """Return how many entries of an earlier schema an upgrade would drop, or has not dropped yet."""
    return _transact(where, _count_old) or 0


def drop_old_entries(where: str | Path, progress: Callable[[int], None] | None = None) -> int:
    """Drop the entries that `upgrade` set aside, each blob into a tombstone; return their number.

    Each slice is a transaction, so an interrupted run continues where it stopped. `progress` is
    called after each with the number so far.
    """
    dropped = 0
    while (some := _transact(where, _drop_slice)) is not None:
        dropped += some
        if progress is not None:
            progress(dropped)
    return dropped


# steps of one transaction


def _migrate(connection: sa.Connection, *, more: Sequence[Path], name: str) -> tuple[int, int]:
    from alembic import command
    from alembic.config import Config

    versions = sa.select(sa.select(schema_version.c.version_num).scalar_subquery(), store.c.min_reader)
    before, min_reader = connection.execute(versions).one()
    refuse_newer(before, min_reader, name)
    if int(before) >= SCHEMA_VERSION and not more:
        return int(before), int(before)
    config = Config()
    here = Path(__file__).parent
    locations = os.pathsep.join(str(path) for path in (here / "versions", *more))
    for option, value in (("script_location", str(here)), ("version_locations", locations), ("path_separator", "os")):
        config.set_main_option(option, value.replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    after, _ = connection.execute(versions).one()
    return int(before), int(after)


def _version(connection: sa.Connection, *, name: str) -> int:
    version, min_reader = connection.execute(
        sa.select(sa.select(schema_version.c.version_num).scalar_subquery(), store.c.min_reader)
    ).one()
    refuse_newer(version, min_reader, name)
    return int(version)


def _count_old(connection: sa.Connection) -> int:
    version = int(connection.execute(sa.select(schema_version.c.version_num)).scalar_one())
    table = _OLD if _is_there(connection) else sa.table("entries") if version == 1 else None
    return 0 if table is None else connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def _drop_slice(connection: sa.Connection) -> int | None:
    """Drop the next entries; return None when none are left."""
    if not _is_there(connection):
        return None
    key = (_OLD.c.namespace, _OLD.c.key)
    doomed = sa.select(*key, _OLD.c.object).order_by(*key).limit(SLICE)
    named = doomed.subquery("doomed")
    names = sa.select(named.c.object, _clock(connection)).where(named.c.object.is_not(None))
    keys = sa.select(named.c.namespace, named.c.key)
    blobs = sa.table("tombstones", sa.column("blob"), sa.column("at"))
    # A blob may already have a tombstone: its row was dangling, and the result of its deletion unknown.
    already = sa.exists().where(blobs.c.blob == named.c.object)
    connection.execute(sa.insert(blobs).from_select(["blob", "at"], names.where(~already)))
    dropped = connection.execute(sa.delete(_OLD).where(sa.tuple_(*key).in_(keys))).rowcount
    if not dropped:
        connection.exec_driver_sql(f"DROP TABLE {_OLD.name}")
        return None
    return dropped


def _is_there(connection: sa.Connection) -> bool:
    return sa.inspect(connection).has_table(_OLD.name)


def _clock(connection: sa.Connection) -> sa.ColumnElement[int]:
    """Return the database's clock."""
    if connection.dialect.name == "sqlite":
        from cacheness.metadata.sql import sqlite_building as module
    else:
        from cacheness.metadata.sql import postgresql_building as module  # type: ignore[no-redef]
    return module.CLOCK


# transactions


def _transact(where: str | Path, work: Callable[[sa.Connection], T]) -> T | None:
    """Run `work` in one transaction, under the migrations' lock; return None for a database without tables."""
    if _is_url(where):
        return _transact_postgresql(str(where), work)
    return _transact_sqlite(Path(where), work)


def _transact_sqlite(path: Path, work: Callable[[sa.Connection], T]) -> T | None:
    from cacheness.metadata.sql.sqlite_transactions import SqliteFile

    file = SqliteFile(path, Limits().busy)
    try:
        return None if file.is_empty() else file.patiently(partial(_transact_file, path, work))
    finally:
        file.close()


def _transact_file(path: Path, work: Callable[[sa.Connection], T]) -> T:
    from cacheness.metadata.sql.sqlite_transactions import refuse_after_unclean_fork

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(path, isolation_level=None, timeout=0)

    with forks.no_fork():
        refuse_after_unclean_fork(path)
        try:
            with _connected("sqlite://", connect) as connection:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                return work(connection)
        except sa.exc.DBAPIError as error:
            raise _cause(error) from None


def _transact_postgresql(url: str, work: Callable[[sa.Connection], T]) -> T | None:
    from cacheness.metadata.postgresql import SCHEMA_LOCK
    from cacheness.metadata.sql import postgresql_pool as pool

    def connect() -> Any:
        raw = pool.connect(url, Limits(), prepare_threshold=None)
        raw.seconds = _STATEMENT_SECONDS
        raw.autocommit = False
        return raw

    try:
        with _connected("postgresql+psycopg://", connect) as connection:
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({SCHEMA_LOCK})")
            connection.exec_driver_sql(f"SET LOCAL search_path TO {POSTGRESQL_SCHEMA}")
            there = connection.exec_driver_sql("SELECT to_regclass('store')").scalar() is not None
            return work(connection) if there else None
    except sa.exc.DBAPIError as error:
        pool.refuse(_cause(error), pool.name_of(url))


@contextmanager
def _connected(dialect: str, connect: Callable[[], Any]) -> Iterator[sa.Connection]:
    """Open one transaction, which is committed or rolled back as a whole."""
    engine = sa.create_engine(dialect, creator=connect, poolclass=NullPool)
    with engine.connect() as connection:
        yield connection
        connection.commit()


def _create(where: str | Path) -> None:
    if _is_url(where):
        from cacheness.metadata.postgresql import PostgresqlStore

        PostgresqlStore(str(where), limits=Limits()).close()
    else:
        from cacheness.metadata.sqlite import SqliteStore

        SqliteStore(Path(where), limits=Limits()).close()


def _is_url(where: str | Path) -> bool:
    return isinstance(where, str) and "://" in where


def _name_of(where: str | Path) -> str:
    if not _is_url(where):
        return f"the metadata database {where}"
    from cacheness.metadata.sql.postgresql_pool import name_of

    return name_of(str(where))


def _cause(error: sa.exc.DBAPIError) -> Exception:
    return error.orig if isinstance(error.orig, Exception) else error
