"""Storing 1 KiB under a new key: PostgreSQL against a bare INSERT; SQLite against its peers."""

from __future__ import annotations

import itertools
import os
import sqlite3
from collections.abc import Callable, Iterator

import diskcache
import joblib
import psycopg

from benchmarks.bench import SIGNING_KEY, Bench, Row, compare, main
from cacheness import UnifiedCache
from cacheness.factory import SQLITE_FILE

VALUE = os.urandom(1024)


def measure(bench: Bench) -> Iterator[Row]:
    """The rows of this benchmark."""
    yield from sqlite(bench)
    yield from postgresql(bench)


def upsert(columns: list[str], placeholder: str, table: str) -> str:
    """The statement that puts one row, in its plainest form."""
    changes = ", ".join(f"{column} = excluded.{column}" for column in columns if column not in {"namespace", "key"})
    marks = ", ".join([placeholder] * len(columns))
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"
        f" ON CONFLICT (namespace, key) DO UPDATE SET {changes}"
    )


def new_rows(row: dict[str, object]) -> Callable[[], tuple[object, ...]]:
    """Rows like this one, each with another key."""
    numbers = itertools.count(1)
    return lambda: tuple((row | {"key": next(numbers).to_bytes(32)}).values())


def postgresql(bench: Bench) -> Iterator[Row]:
    bench.on_one_core()
    shared = {"metadata_backend": bench.postgresql, "blob_store": "memory://", "signing_key": SIGNING_KEY}
    cache = bench.enter(UnifiedCache(**shared))
    cache.put(VALUE, x=-1)
    connection = bench.enter(psycopg.connect(bench.postgresql, autocommit=True))
    connection.execute("CREATE TABLE plain (LIKE cacheness.entries INCLUDING ALL)")
    found = connection.execute("SELECT * FROM cacheness.entries", binary=True)
    names = [column.name for column in found.description or ()]
    row = dict(zip(names, found.fetchone() or (), strict=True))
    statement, rows, numbers = upsert(names, "%s", "plain"), new_rows(row), itertools.count()
    times = bench.race(
        {
            "ours": lambda: cache.put(VALUE, x=next(numbers)),
            "psycopg": lambda: connection.execute(statement, rows()),
        },
        rounds=9,
    )
    yield compare("put 1 KiB, PostgreSQL", times["ours"], "bare psycopg", times["psycopg"], at_most=2)


def sqlite(bench: Bench) -> Iterator[Row]:
    cache = bench.enter(UnifiedCache(cache_dir=str(bench.folder / "ours")))
    cache.put(VALUE, x=-1)
    source = bench.enter(sqlite3.connect(bench.folder / "ours" / SQLITE_FILE))
    source.row_factory = sqlite3.Row
    row = dict(source.execute("SELECT * FROM entries").fetchone())
    schema = source.execute("SELECT sql FROM sqlite_master WHERE name = 'entries'").fetchone()[0]
    plain = bench.enter(sqlite3.connect(bench.folder / "plain.sqlite", isolation_level=None))
    for command in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", schema):
        plain.execute(command)
    peer = bench.enter(diskcache.Cache(str(bench.folder / "diskcache")))
    remembered = joblib.Memory(bench.folder / "joblib", verbose=0).cache(returning)
    statement, rows, numbers = upsert(list(row), "?", "entries"), new_rows(row), itertools.count()
    times = bench.race(
        {
            "ours": lambda: cache.put(VALUE, x=next(numbers)),
            "sqlite3": lambda: plain.execute(statement, rows()),
            "diskcache": lambda: peer.set(next(numbers), VALUE),
            "joblib": lambda: remembered(next(numbers)),
        }
    )
    yield compare("put 1 KiB, SQLite, synced", times["ours"], "bare sqlite3, synced", times["sqlite3"])
    yield compare("put 1 KiB, SQLite, synced", times["ours"], "diskcache, not synced", times["diskcache"])
    yield compare("put 1 KiB, SQLite, synced", times["ours"], "joblib.Memory, not synced", times["joblib"])


def returning(x: int) -> bytes:
    return VALUE


if __name__ == "__main__":
    main(measure, __doc__)
