"""A hit of 1 KiB: SQLite against diskcache, joblib.Memory and the bare driver; PostgreSQL against psycopg."""

from __future__ import annotations

import functools
import itertools
import os
import random
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import diskcache
import joblib
import psycopg

from benchmarks.bench import SIGNING_KEY, Bench, Row, compare, main
from benchmarks.stages import stages
from cacheness import UnifiedCache
from cacheness.factory import SQLITE_FILE
from cacheness.results.kept import ROWS_AT_MOST

VALUE = os.urandom(1024)


def measure(bench: Bench) -> Iterator[Row]:
    """The rows of this benchmark."""
    yield from sqlite(bench)
    yield from sqlite_anywhere(bench)
    yield from postgresql(bench)


def sqlite(bench: Bench) -> Iterator[Row]:
    cache = bench.enter(UnifiedCache(cache_dir=str(bench.folder / "ours")))
    key = cache.put(VALUE, x=1, y="a").cache_key
    peer = bench.enter(diskcache.Cache(str(bench.folder / "diskcache")))
    peer[key] = VALUE
    remembered = joblib.Memory(bench.folder / "joblib", verbose=0).cache(returning)
    remembered(1, "a")
    floor = functools.lru_cache(returning)
    connection = bench.enter(sqlite3.connect(bench.folder / "ours" / SQLITE_FILE, isolation_level=None))
    select = "SELECT * FROM entries WHERE namespace = 'default' AND key = ?"
    times = bench.race(
        {
            "ours": lambda: cache.get(key),
            "ours, by arguments": lambda: cache.get(x=1, y="a"),
            "diskcache": lambda: peer[key],
            "joblib": lambda: remembered(1, "a"),
            "lru_cache": lambda: floor(1, "a"),
            "sqlite3": lambda: connection.execute(select, (bytes.fromhex(key),)).fetchone(),
        }
    )
    what = "get 1 KiB by key, SQLite, the same key again"
    yield compare(what, times["ours"], "diskcache", times["diskcache"], at_most=2)
    yield compare(what, times["ours"], "joblib.Memory", times["joblib"], at_least=3)
    yield compare(what, times["ours"], "bare sqlite3", times["sqlite3"])
    yield compare(what, times["ours"], "functools.lru_cache, which keeps nothing", times["lru_cache"])
    yield compare(
        "get 1 KiB by arguments, SQLite, the same again", times["ours, by arguments"], "joblib.Memory", times["joblib"]
    )


def sqlite_anywhere(bench: Bench) -> Iterator[Row]:
    """Keys in a random order, more of them than a process keeps."""
    cache = bench.enter(UnifiedCache(cache_dir=str(bench.folder / "ours, many")))
    peer = bench.enter(diskcache.Cache(str(bench.folder / "diskcache, many")))
    keys = [entry.cache_key for entry in cache.put_many([(VALUE, {"n": n}) for n in range(2 * ROWS_AT_MOST)])]
    with peer.transact():
        for key in keys:
            peer[key] = VALUE
    random.Random(1).shuffle(keys)
    connection = bench.enter(sqlite3.connect(bench.folder / "ours, many" / SQLITE_FILE, isolation_level=None))
    select = "SELECT * FROM entries WHERE namespace = 'default' AND key = ?"
    ours, theirs, bare = itertools.cycle(keys), itertools.cycle(keys), itertools.cycle(keys)
    times = bench.race(
        {
            "ours": lambda: cache.get(next(ours)),
            "diskcache": lambda: peer[next(theirs)],
            "sqlite3": lambda: connection.execute(select, (bytes.fromhex(next(bare)),)).fetchone(),
        }
    )
    what = f"get 1 KiB by key, SQLite, any of {len(keys):,}"
    yield compare(what, times["ours"], "diskcache", times["diskcache"], at_most=2)
    yield compare(what, times["ours"], "bare sqlite3", times["sqlite3"])


@contextmanager
def sent_by(cache: UnifiedCache, path: Path) -> Iterator[list[str]]:
    """The kinds of messages that go to the server during the block; each Sync requires an answer."""
    connection = cache._store.metadata._pool._idle[-1].pgconn
    messages: list[str] = []
    with path.open("w+") as trace:
        connection.trace(trace.fileno())
        yield messages
        connection.untrace()
        trace.seek(0)
        messages += [line.split("\t")[3].strip() for line in trace if "\tF\t" in line]


def returning(x: int, y: str) -> bytes:
    return VALUE


def postgresql(bench: Bench) -> Iterator[Row]:
    bench.on_one_core()
    shared = {"metadata_backend": bench.postgresql, "blob_store": "memory://", "signing_key": SIGNING_KEY}
    cache = bench.enter(UnifiedCache(**shared))
    key = cache.put(VALUE, x=1, y="a").cache_key
    connection = bench.enter(psycopg.connect(bench.postgresql, autocommit=True))
    select = "SELECT * FROM cacheness.entries WHERE namespace = %s AND key = %s"
    times = bench.race(
        {
            "ours": lambda: cache.get(key),
            "key": lambda: cache.key(x=1, y="a"),
            "psycopg": lambda: connection.execute(select, ("default", bytes.fromhex(key)), binary=True).fetchone(),
        },
        rounds=9,
    )
    what = "get 1 KiB by key, PostgreSQL"
    yield compare(what, times["ours"], "bare psycopg", times["psycopg"], at_most=1.3)
    yield from stages(bench, what, cache, key)
    # Timed by itself: the difference of two round trips would be lost in their noise.
    what = "get 1 KiB by arguments, PostgreSQL, on top of that"
    yield Row(what, times["key"].median * 1e6, at_most=60, unit="us", spread=times["key"].spread / times["key"].median)
    with sent_by(cache, bench.folder / "trace") as messages:
        cache.get(key)
    yield Row("get 1 KiB by key, PostgreSQL: round trips", messages.count("Sync"), at_most=1, unit="")


if __name__ == "__main__":
    main(measure, __doc__)
