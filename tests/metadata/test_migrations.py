"""Schemas: made, upgraded, refused."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from cacheness import UnifiedCache, factory, migrating
from cacheness.config import Config
from cacheness.coordination.ownership import MARKER
from cacheness.deadlines import Limits
from cacheness.errors import CachenessError, ConfigError, SchemaMismatch, StoreRefused
from cacheness.maintenance import report
from cacheness.metadata import migrations
from cacheness.metadata.postgresql import PostgresqlStore
from cacheness.metadata.sql.schema import SCHEMA_VERSION
from cacheness.metadata.sqlite import SqliteStore
from cacheness.migrating import Migrated
from cacheness.protocols import BlobStore, MetadataStore
from cacheness.records import Where
from cacheness.testing.contracts.metadata import NAMESPACE, SOMEBODY, entry, inline, key
from tests.conftest import SIGNING_KEY

pytestmark = pytest.mark.slow

STORE_ID = "5" * 32
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

    def build(self, version: int) -> None:
        """Make the tables anew as an earlier version of the library made them."""
        from alembic import command
        from alembic.config import Config

        for table in self.shape():
            self.run(f"DROP TABLE {table}")
        if self.is_postgresql:
            self.run("CREATE SCHEMA IF NOT EXISTS cacheness")
        config = Config()
        config.set_main_option("script_location", str(VERSIONS.parent))
        engine = self.engine()
        with engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, f"{version:04}")
            connection.commit()
        engine.dispose()
        self.run(f"INSERT INTO store (id, epoch, min_reader) VALUES ('{STORE_ID}', 'e', {version})")

    def build_1(self, entries: int = 0) -> None:
        """A database of schema 1: half of the entries have blobs, one of which has its tombstone already."""
        self.build(1)
        for number in range(entries):
            blob = "NULL" if number % 2 else f"'{blob_of(number)}'"
            self.run(
                "INSERT INTO entries (namespace, key, object, inline, size, raw_size, digest, codec, created_at,"
                " accessed_at, hits, function, prefix, args, parts, tags, provenance, key_id, mac) VALUES"
                f" ('default', {self.bytes(key(number))}, {blob}, NULL, 1, 1, {self.bytes(bytes(32))}, 'pickle', 1, 1,"
                f" 0, 'f', '', {self.bytes(b'')}, '{{}}', '', '{{}}', '', {self.bytes(b'')})"
            )
        self.run(f"INSERT INTO tombstones (object, at) VALUES ('{blob_of(0)}', 1)")

    def bytes(self, value: bytes) -> str:
        """A literal."""
        return f"'\\x{value.hex()}'" if self.is_postgresql else f"X'{value.hex()}'"

    @property
    def is_postgresql(self) -> bool:
        return isinstance(self.where, str)

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
    url = request.getfixturevalue("bare_url")
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
    assert set(fresh) == {
        *("store", "schema_version", "sessions", "leases", "entries", "uses", "tags", "functions", "totals", "quotas"),
        *("activity", "equivalences", "disputes", "not_stored", "tombstones", "checks", "compute_leases"),
    }
    database.build(1)
    assert database.shape() != fresh
    assert migrations.upgrade(database.where) == (1, SCHEMA_VERSION)
    assert migrations.drop_old_entries(database.where) == 0
    assert database.shape() == fresh


def _words(index: Any) -> tuple[str, ...]:
    options = index.get("dialect_options", {})
    return (index["name"], *index["column_names"], *(f"{name}={value}" for name, value in sorted(options.items())))


def blob_of(number: int) -> str:
    return f"default/00/{key(number).hex()}.{'0' * 16}.{number:016x}"


def test_entries_of_schema_1_are_dropped_and_their_blobs_wait_to_be_deleted(database: Database) -> None:
    database.build_1(entries=10)
    assert migrations.old_entries(database.where) == 10
    assert migrations.upgrade(database.where) == (1, SCHEMA_VERSION)
    assert migrations.old_entries(database.where) == 10
    store = database.open()
    kept = entry(1)
    store.commit([kept], store.open_session(SOMEBODY))  # while the old ones are still being dropped
    progress: list[int] = []
    assert migrations.drop_old_entries(database.where, progress.append) == 10
    assert progress == [10]
    assert migrations.old_entries(database.where) == 0
    assert store.tombstones() == [blob_of(number) for number in range(0, 10, 2)]
    assert store.scan(Where(NAMESPACE)) == [kept]
    assert store.identity().store_id == STORE_ID
    assert migrations.upgrade(database.where) == (SCHEMA_VERSION, SCHEMA_VERSION)
    store.close()


#: Drops old entries two at a time, and is killed: before the third slice, or within it.
KILLED = """
import os, signal, sys
from pathlib import Path
from cacheness.coordination.ownership import MARKER
from cacheness.metadata import migrations
where = sys.argv[1] if "://" in sys.argv[1] else Path(sys.argv[1])
migrations.SLICE, drop = 2, migrations._drop_slice
slices = []
def drop_slice(connection):
    slices.append(drop(connection))
    if len(slices) == 3 and sys.argv[2] == "within":
        os.kill(os.getpid(), signal.SIGKILL)
    return slices[-1]
migrations._drop_slice = drop_slice
migrations.upgrade(where)
def kill(dropped):
    if dropped == 4 and sys.argv[2] == "between":
        os.kill(os.getpid(), signal.SIGKILL)
migrations.drop_old_entries(where, kill)
"""


@pytest.mark.parametrize("when", ["between", "within"])
def test_a_run_that_was_killed_goes_on_where_it_stopped(
    database: Database, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.build_1(entries=9)
    command = [sys.executable, "-c", KILLED, str(database.where), when]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    store = database.open()
    assert migrations.old_entries(database.where) == 5
    assert store.tombstones() == [blob_of(0), blob_of(2)]
    monkeypatch.setattr(migrations, "SLICE", 3)
    assert migrations.drop_old_entries(database.where) == 5
    assert migrations.old_entries(database.where) == 0
    assert store.tombstones() == [blob_of(number) for number in range(0, 9, 2)]
    store.close()


def test_two_who_drop_old_entries_at_once_drop_each_of_them_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.build_1(entries=12)
    monkeypatch.setattr(migrations, "SLICE", 1)
    migrations.upgrade(database.where)
    with ThreadPoolExecutor(2) as pool:
        dropped = pool.map(lambda _: migrations.drop_old_entries(database.where), range(2))
    assert sum(dropped) == 12
    store = database.open()
    assert len(store.tombstones()) == 6
    store.close()


# the whole of it: tables, entries, and blobs that belong to nobody any more


@pytest.fixture
def config(database: Database, tmp_path: Path) -> Config:
    """A cache of schema 1 with six entries, three of which have blobs, and a marker that names it."""
    store = database.open()
    system = store.identity().system
    store.close()
    database.build_1(entries=6)
    if database.is_postgresql:
        blobs = f"file://{tmp_path}/blobs"
        config = Config(metadata_backend=database.where, blob_store=blobs, shared_path=True, signing_key=SIGNING_KEY)
    else:
        config = Config(cache_dir=str(tmp_path), signing_key=SIGNING_KEY)
    store_of(config).write(MARKER, [json.dumps({"store_id": STORE_ID, "system": system, "epoch": "e"}).encode()])
    for number in range(0, 6, 2):
        store_of(config).write(blob_of(number), [b"a result of schema 1"])
    return config


def store_of(config: Config) -> BlobStore:
    return factory.open_blobs(config)


def blobs_in(config: Config) -> list[str]:
    return [info.name for info in store_of(config).scan() if info.name != MARKER]


def test_a_migration_deletes_the_blobs_of_what_it_drops(config: Config) -> None:
    assert migrating.entries_to_drop(config) == 6
    seen: list[tuple[int, int]] = []
    assert migrating.migrate(config, lambda *done: seen.append(done)) == Migrated(1, SCHEMA_VERSION, 6, 3, 0, None)
    assert seen == [(6, 0), (6, 3)]
    assert blobs_in(config) == []
    assert migrating.entries_to_drop(config) == 0
    assert migrating.migrate(config) == Migrated(SCHEMA_VERSION, SCHEMA_VERSION, 0, 0, 0, None)
    with UnifiedCache(config) as cache:
        cache.put("new", x=1)
        assert cache.get(x=1) == "new"
        assert len(cache.verify_integrity()) == 0


def test_a_migration_deletes_nothing_of_another_database_and_says_what_is_left(config: Config) -> None:
    store_of(config).write(MARKER, [json.dumps({"store_id": "6" * 32, "system": "x", "epoch": "f"}).encode()])
    done = migrating.migrate(config)
    assert (done.entries, done.deleted, done.left) == (6, 0, 3)
    assert done.why is not None
    assert "another" in done.why
    assert len(blobs_in(config)) == 3
    with UnifiedCache(config) as cache:
        cache.adopt()
    assert migrating.migrate(config) == Migrated(SCHEMA_VERSION, SCHEMA_VERSION, 0, 3, 0, None)
    assert blobs_in(config) == []


def test_blobs_wait_where_no_marker_says_whose_they_are(config: Config) -> None:
    store_of(config).delete(MARKER)
    done = migrating.migrate(config)
    assert (done.entries, done.deleted, done.left) == (6, 0, 3)
    assert MARKER in str(done.why)
    assert store_of(config).stat(MARKER) is None
    assert len(blobs_in(config)) == 3


def test_a_repair_is_not_stopped_by_the_blobs_that_a_migration_left(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "BLOBS_AT_MOST", (0, 0.0))
    migrations.upgrade(migrating._database(config))
    migrations.drop_old_entries(migrating._database(config))
    with UnifiedCache(config) as cache:
        found = cache.verify_integrity(repair=True)
        assert found.counts() == {"tombstone": 3}
        assert all(issue.repaired for issue in found)
    assert blobs_in(config) == []


def test_the_command_says_what_it_drops_and_asks_a_person(config: Config) -> None:
    command = [sys.executable, "-W", "error", "-m", "cacheness", "migrate"]
    if config.metadata_backend == "sqlite":
        command += ["-d", config.cache_dir]
    environment = {
        **os.environ, "CACHENESS_METADATA_BACKEND": config.metadata_backend, "CACHENESS_SHARED_PATH": "1",
        "CACHENESS_BLOB_STORE": f"file://{config.cache_dir}/blobs" if config.blob_store is None else config.blob_store,
    }  # fmt: skip

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *options], capture_output=True, text=True, input="y\n", timeout=60, check=False, env=environment
        )

    for _ in range(2):  # it changes nothing
        would = run("--dry-run")
        assert would.returncode == 0, would.stderr
        assert f"the schema would be upgraded from version 1 to {SCHEMA_VERSION}" in would.stdout
        assert "6 entries would be dropped" in would.stdout
    asked = run()
    assert asked.returncode == 2
    assert "6 entries of an older version" in asked.stdout
    assert "--yes" in asked.stderr
    assert migrating.entries_to_drop(config) == 6
    done = run("--yes")
    assert done.returncode == 0, done.stderr
    assert f"upgraded from version 1 to {SCHEMA_VERSION}" in done.stdout
    assert "6 entries dropped, 3 blobs deleted, 0 left" in done.stdout
    assert f"at version {SCHEMA_VERSION} already" in run().stdout
    assert f"at version {SCHEMA_VERSION} already" in run("--dry-run").stdout


#: As the first version wrote it: an overwritten and a deleted blob, a live one, and one that is gone already.
OLD_JOURNAL = """
{"cacheness": 1, "min_reader": 1, "store": "STORE", "epoch": "e"}
{"put": {"namespace": "default", "key": "00", "object": "default/00/a"}}
{"put": {"namespace": "default", "key": "00", "object": "default/00/b"}, "more": true}
{"bury": ["default/00/a"]}
{"put": {"namespace": "other", "key": "00", "object": null}}
{"put": {"namespace": "default", "key": "01", "object": "default/01/c"}}
{"delete": [["default", "01"]], "bury": ["default/01/c"]}
{"epoch": "newest,e"}
{"bury": ["default/00/gone"]}
{"unbury": ["default/00/gone"]}
"""


def test_a_journal_of_version_1_is_migrated(tmp_path: Path) -> None:
    config = Config(cache_dir=str(tmp_path), metadata_backend="json", signing_key=SIGNING_KEY)
    path = tmp_path / factory.JOURNAL_FILE
    path.write_text(OLD_JOURNAL.lstrip().replace("STORE", STORE_ID))
    store_of(config).write(MARKER, [json.dumps({"store_id": STORE_ID, "system": "x", "epoch": "e"}).encode()])
    names = ["default/00/a", "default/00/b", "default/01/c"]
    for name in names:
        store_of(config).write(name, [b"1"])
    before = path.read_bytes()
    with pytest.raises(SchemaMismatch, match="cacheness migrate"):
        UnifiedCache(config)
    assert migrating.entries_to_drop(config) == 2
    assert path.read_bytes() == before
    assert migrating.migrate(config) == Migrated(1, 2, 2, 3, 0, None)
    assert blobs_in(config) == []
    assert migrating.entries_to_drop(config) == 0
    assert migrating.migrate(config) == Migrated(2, 2, 0, 0, 0, None)
    with UnifiedCache(config) as cache:
        assert cache._store.metadata.identity().epoch == "newest,e"
        cache.put(1, x=1)


def test_a_process_beside_which_the_tables_change_names_the_migration_and_meets_no_outage(
    database: Database, newer: Callable[..., Path]
) -> None:
    store = database.open()
    session = store.open_session(SOMEBODY)
    store.commit([inline(1)], session)
    rename = (
        f"op.alter_column('entries', 'blob', new_column_name='b')\nop.execute('UPDATE store SET min_reader = {NEXT}')"
    )
    migrations.upgrade(database.where, more=[newer(rename)])
    for use in (
        lambda: store.find(NAMESPACE, key(1)), lambda: store.commit([inline(2)], session),
        lambda: store.scan(Where(NAMESPACE)), lambda: store.delete(Where(NAMESPACE)),
    ):  # fmt: skip
        for _ in range(4):  # more often than a circuit lets pass
            with pytest.raises(SchemaMismatch, match="was migrated by a newer version"):
                use()
    assert store.renew_session(session)
    store.close()


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
    database.build_1(entries=1)
    before = database.shape()
    with pytest.raises(SchemaMismatch, match="cacheness migrate"):
        database.open()
    assert database.shape() == before


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
    with pytest.raises(ConfigError, match="another program"):
        SqliteStore(path, limits=Limits())
    path.write_text("no database at all, but long enough to have a header of one hundred bytes" * 3)
    with pytest.raises(StoreRefused, match="not a SQLite database"):
        SqliteStore(path, limits=Limits())
    assert os.path.getsize(path) > 100
