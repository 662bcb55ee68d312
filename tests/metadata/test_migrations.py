"""Schemas: made, upgraded, refused."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from cacheness.deadlines import Limits
from cacheness.errors import CachenessError, ConfigError, SchemaMismatch, StoreRefused
from cacheness.metadata import migrations
from cacheness.metadata.postgresql import PostgresqlStore
from cacheness.metadata.sqlite import SqliteStore
from cacheness.metadata.tables import SCHEMA_VERSION
from cacheness.protocols import MetadataStore
from cacheness.testing.contracts.metadata import NAMESPACE, SOMEBODY, inline, key

VERSIONS = Path(migrations.__file__).parent / "versions"
NEXT = SCHEMA_VERSION + 1


class Database:
    """One kind of database: how to open it, upgrade it, and speak SQL to it past the store."""

    def __init__(self, where: Any, url: str, store: type[Any], connect: Callable[[], Any]) -> None:
        self.where = where
        self._url = url
        self._store = store
        self._connect = connect

    def open(self) -> MetadataStore:
        store: MetadataStore = self._store(self.where, limits=Limits(busy=10.0))
        return store

    def run(self, sql: str) -> list[Any]:
        with self._connect() as connection:
            cursor = connection.execute(sql)
            rows = cursor.fetchall() if cursor.description else []
            connection.commit()
        connection.close()
        return list(rows)

    def engine(self) -> sa.Engine:
        return sa.create_engine(self._url, creator=self._connect)

    def shape(self) -> dict[str, Any]:
        """Every table: columns, keys and indexes, as the database itself tells them."""
        engine = self.engine()
        tables = sa.MetaData()
        tables.reflect(engine)
        told = sa.inspect(engine)
        shape = {
            name: {
                "columns": {c.name: (str(c.type), c.nullable, getattr(c.type, "collation", None)) for c in table.c},
                "key": told.get_pk_constraint(name)["constrained_columns"],
                "unique": sorted(tuple(u["column_names"]) for u in told.get_unique_constraints(name)),
                "indexes": sorted(map(_words, told.get_indexes(name))),
            }
            for name, table in tables.tables.items()
        }
        engine.dispose()
        return shape


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.external)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    if request.param == "sqlite":
        import sqlite3

        path = tmp_path / "metadata.sqlite"
        return Database(path, "sqlite://", SqliteStore, lambda: sqlite3.connect(path, timeout=10))
    url = request.getfixturevalue("postgres_url")
    options = "-c search_path=cacheness"
    return Database(url, "postgresql+psycopg://", PostgresqlStore, lambda: psycopg.connect(url, options=options))


@pytest.fixture
def newer(tmp_path: Path) -> Callable[..., Path]:
    """Write a migration of a later version of the library: its folder."""

    def write(body: str, number: int = NEXT) -> Path:
        folder = tmp_path / "newer"
        folder.mkdir(exist_ok=True)
        (folder / f"{number:04}_newer.py").write_text(
            "import os, time\nimport sqlalchemy as sa\nfrom alembic import op\n"
            f"revision = '{number:04}'\ndown_revision = '{number - 1:04}'\n"
            f"def upgrade():\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"
        )
        return folder

    return write


ADD_COLUMN = "op.add_column('entries', sa.Column('colour', sa.Text))"
BREAK = ADD_COLUMN + f"\nop.execute('UPDATE store SET min_reader = {NEXT}')"


def test_a_migrated_database_and_a_fresh_one_have_the_same_schema(database: Database) -> None:
    database.open().close()
    fresh = database.shape()
    assert {"store", "sessions", "leases", "entries", "tombstones", "checks", "flights", "schema_version"} == set(fresh)
    for table in fresh:
        if table != "schema_version":
            database.run(f"DROP TABLE {table}")
    database.run("DELETE FROM schema_version")
    _migrate_from_nothing(database)
    assert database.shape() == fresh


def _words(index: Any) -> tuple[str, ...]:
    options = index.get("dialect_options", {})
    return (index["name"], *index["column_names"], *(f"{name}={value}" for name, value in sorted(options.items())))


def _migrate_from_nothing(database: Database) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(VERSIONS.parent))
    engine = database.engine()
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()
    engine.dispose()


def test_the_last_migration_makes_the_schema_that_the_library_writes() -> None:
    assert max(path.name[:4] for path in VERSIONS.glob("0*.py")) == f"{SCHEMA_VERSION:04}"


def test_upgrading_an_empty_database_creates_the_schema(database: Database) -> None:
    assert migrations.upgrade(database.where) == (0, SCHEMA_VERSION)
    assert migrations.upgrade(database.where) == (SCHEMA_VERSION, SCHEMA_VERSION)
    database.open().close()


def test_an_upgrade_keeps_every_entry(database: Database, newer: Callable[..., Path]) -> None:
    store = database.open()
    store.commit([inline(1)], store.open_session(SOMEBODY))
    assert migrations.upgrade(database.where, more=[newer(ADD_COLUMN)]) == (SCHEMA_VERSION, NEXT)
    assert "colour" in database.shape()["entries"]["columns"]
    assert store.find(NAMESPACE, key(1)) == inline(1)
    store.close()


def test_an_additive_newer_schema_is_used_by_an_older_library(database: Database, newer: Callable[..., Path]) -> None:
    database.open().close()
    migrations.upgrade(database.where, more=[newer(ADD_COLUMN)])
    store = database.open()
    store.commit([inline(1)], store.open_session(SOMEBODY))
    assert store.find(NAMESPACE, key(1)) == inline(1)
    store.close()
    assert migrations.upgrade(database.where) == (NEXT, NEXT)


def test_a_schema_newer_than_the_library_is_refused_and_left_alone(
    database: Database, newer: Callable[..., Path]
) -> None:
    database.open().close()
    migrations.upgrade(database.where, more=[newer(BREAK)])
    before = database.shape()
    for use in (database.open, lambda: migrations.upgrade(database.where)):
        with pytest.raises(SchemaMismatch, match="Upgrade cacheness"):
            use()
    assert database.shape() == before


def test_an_older_schema_is_refused_until_it_is_migrated(database: Database) -> None:
    database.open().close()
    database.run(f"UPDATE schema_version SET version_num = '{SCHEMA_VERSION - 1:04}'")
    with pytest.raises(SchemaMismatch, match="cacheness migrate"):
        database.open()


def test_a_migration_that_fails_changes_nothing(database: Database, newer: Callable[..., Path]) -> None:
    database.open().close()
    before = database.shape()
    folder = newer(f"{ADD_COLUMN}\nop.execute('SELECT 1 / 0 FROM no_such_table')")
    with pytest.raises(CachenessError, match="no_such_table"):
        migrations.upgrade(database.where, more=[folder])
    assert database.shape() == before
    newer(ADD_COLUMN)
    assert migrations.upgrade(database.where, more=[folder]) == (SCHEMA_VERSION, NEXT)


def test_a_migrator_killed_half_way_changes_nothing_and_may_run_again(
    database: Database, newer: Callable[..., Path]
) -> None:
    database.open().close()
    before = database.shape()
    folder = newer(f"{ADD_COLUMN}\nos.kill(os.getpid(), {int(signal.SIGKILL)})")
    program = (
        "import sys; from pathlib import Path; from cacheness.metadata import migrations;"
        "where = sys.argv[1]; migrations.upgrade(where if '://' in where else Path(where), more=[Path(sys.argv[2])])"
    )
    done = subprocess.run([sys.executable, "-c", program, str(database.where), str(folder)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    newer(ADD_COLUMN)
    assert database.shape() == before
    assert migrations.upgrade(database.where, more=[folder]) == (SCHEMA_VERSION, NEXT)


def test_of_two_migrators_at_once_one_migrates_and_both_succeed(database: Database, newer: Callable[..., Path]) -> None:
    database.open().close()
    folder = newer(f"time.sleep(0.5)\n{ADD_COLUMN}")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        results = pool.starmap(_upgrade, [(database.where, folder)] * 2)
    assert sorted(results) == [(SCHEMA_VERSION, NEXT), (NEXT, NEXT)]


def _upgrade(where: Any, folder: Path) -> tuple[int, int]:
    return migrations.upgrade(where, more=[folder])


def test_many_processes_may_open_an_empty_database_at_once(database: Database) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        identities = pool.map(_identity, [database.where] * 6, chunksize=1)
    assert len(set(identities)) == 1


def _identity(where: Any) -> str:
    store = (PostgresqlStore if isinstance(where, str) else SqliteStore)(where, limits=Limits())
    try:
        return store.identity().store_id
    finally:
        store.close()


def test_opening_an_existing_database_imports_no_alembic(database: Database) -> None:
    store = database.open()
    store.close()
    program = (
        "import sys; from pathlib import Path; from cacheness.deadlines import Limits;"
        f"from {type(store).__module__} import {type(store).__name__} as Store;"
        "where = sys.argv[1]; Store(where if '://' in where else Path(where), limits=Limits()).find('n', b'k' * 32);"
        "print([name for name in sys.modules if name.split('.')[0] in ('alembic', 'mako')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(database.where)], check=True, timeout=60, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"


def test_a_sqlite_file_of_somebody_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "metadata.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE entries (mine TEXT)")
    connection.close()
    with pytest.raises(ConfigError, match="something else"):
        SqliteStore(path, limits=Limits())
    path.write_text("no database at all, but long enough to have a header of one hundred bytes" * 3)
    with pytest.raises(StoreRefused, match="not a SQLite database"):
        SqliteStore(path, limits=Limits())
    assert os.path.getsize(path) > 100
