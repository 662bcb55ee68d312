"""Bring a database of an older version of cacheness up to this one. Imports Alembic only to do so.

A migration is numbered like the schema that it makes. One that adds only what an older library
can do without leaves `store.min_reader` alone, so that a fleet can be upgraded machine by machine;
any other raises it, and older libraries then refuse to open the database.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from cacheness import forks
from cacheness.deadlines import Limits
from cacheness.metadata.sql import refuse_newer
from cacheness.metadata.tables import POSTGRESQL_SCHEMA, SCHEMA_VERSION, schema_version, store

#: How long a migration may wait for others to let go of a table, who wait behind it meanwhile.
_LOCK_TIMEOUT = "10s"
#: How long one statement of a migration may take.
_STATEMENT_SECONDS = 3600.0


def upgrade(where: str | Path, *, more: Sequence[Path] = ()) -> tuple[int, int]:
    """Bring the schema of a SQLite file (a path) or a PostgreSQL database (a URL) up to date.

    Returns the version before and the version after; an empty database has version 0. Happens
    whole or not at all, and once when several start it together. `more` names folders with
    further migrations.
    """
    is_url = isinstance(where, str) and "://" in where
    return _upgrade_postgresql(str(where), more) if is_url else _upgrade_sqlite(Path(where), more)


def _upgrade_sqlite(path: Path, more: Sequence[Path]) -> tuple[int, int]:
    from cacheness.metadata.sqlite import SqliteStore
    from cacheness.metadata.sqlite_file import SqliteFile

    file = SqliteFile(path, Limits().busy)
    try:
        if file.is_empty():
            SqliteStore(path, limits=Limits()).close()
            return 0, SCHEMA_VERSION
        return file.patiently(partial(_upgrade_file, path, more))
    finally:
        file.close()


def _upgrade_file(path: Path, more: Sequence[Path]) -> tuple[int, int]:
    from cacheness.metadata.sqlite_file import refuse_after_unclean_fork

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(path, isolation_level=None, timeout=0)

    with forks.no_fork():
        refuse_after_unclean_fork(path)
        try:
            with _connected("sqlite://", connect) as connection:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                return _migrate(connection, more, f"the metadata database {path}")
        except sa.exc.DBAPIError as error:
            raise _cause(error) from None


def _upgrade_postgresql(url: str, more: Sequence[Path]) -> tuple[int, int]:
    from cacheness.metadata import postgresql_pool as pool
    from cacheness.metadata.postgresql import SCHEMA_LOCK, PostgresqlStore

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
            if connection.exec_driver_sql("SELECT to_regclass('store')").scalar() is not None:
                return _migrate(connection, more, pool.name_of(url))
    except sa.exc.DBAPIError as error:
        pool.refuse(_cause(error), pool.name_of(url))
    PostgresqlStore(url, limits=Limits()).close()
    return 0, SCHEMA_VERSION


@contextmanager
def _connected(dialect: str, connect: Callable[[], Any]) -> Iterator[sa.Connection]:
    """One transaction, in which a migration happens whole or not at all."""
    engine = sa.create_engine(dialect, creator=connect, poolclass=NullPool)
    with engine.connect() as connection:
        yield connection
        connection.commit()


def _migrate(connection: sa.Connection, more: Sequence[Path], name: str) -> tuple[int, int]:
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


def _cause(error: sa.exc.DBAPIError) -> Exception:
    return error.orig if isinstance(error.orig, Exception) else error
