"""Many small results at once, and threads side by side, against one bare statement for all of them."""

from __future__ import annotations

import itertools
import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg

from benchmarks.bench import SIGNING_KEY, Bench, Row, compare, main
from benchmarks.put_small import upsert
from cacheness import UnifiedCache
from cacheness.factory import SQLITE_FILE

RESULTS = 1000
VALUE = os.urandom(200)
THREADS = 8
PUTS = 25  #: of each thread


def measure(bench: Bench) -> Iterator[Row]:
    """The rows of this benchmark."""
    yield from sqlite(bench)
    yield from postgresql(bench)


def sqlite(bench: Bench) -> Iterator[Row]:
    cache = bench.enter(UnifiedCache(cache_dir=str(bench.folder / "ours")))
    keys = [entry.cache_key for entry in cache.put_many([(VALUE, {"n": n}) for n in range(RESULTS)])]
    bare = bench.enter(sqlite3.connect(bench.folder / "ours" / SQLITE_FILE, isolation_level=None))
    select = f"SELECT * FROM entries WHERE namespace = 'default' AND key IN ({', '.join('?' * RESULTS)})"
    digests = [bytes.fromhex(key) for key in keys]
    times = bench.race(
        {
            "many": lambda: cache.get_many(keys),
            "one by one": lambda: [cache.get(key) for key in keys],
            "bare": lambda: bare.execute(select, digests).fetchall(),
        }
    )
    what = f"get_many of {RESULTS:,} values of 200 bytes, SQLite"
    yield compare(what, times["many"], "one SELECT", times["bare"], at_most=3)
    yield compare(what, times["many"], "one get after the other", times["one by one"], at_most=1)
    bare.row_factory = sqlite3.Row
    row = dict(bare.execute("SELECT * FROM entries LIMIT 1").fetchone())
    schemas = [text for (text,) in bare.execute("SELECT sql FROM sqlite_master WHERE tbl_name = 'entries'") if text]
    plain = bench.enter(sqlite3.connect(bench.folder / "plain.sqlite", isolation_level=None))
    for command in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", *schemas):
        plain.execute(command)
    statement, rows = upsert(list(row), "?", "entries"), random_rows(row)

    def executemany() -> None:
        plain.execute("BEGIN IMMEDIATE")
        plain.executemany(statement, rows(RESULTS))
        plain.execute("COMMIT")

    times = bench.race({"ours": putting(cache), "bare": executemany}, once=True)
    yield compare(
        f"put_many of {RESULTS:,} values of 200 bytes, SQLite, synced",
        times["ours"],
        "one executemany",
        times["bare"],
        at_most=4,
    )
    yield from side_by_side(bench, "SQLite", cache, at_least=3)


def postgresql(bench: Bench) -> Iterator[Row]:
    shared = {"metadata_backend": bench.postgresql, "blob_store": "memory://", "signing_key": SIGNING_KEY}
    cache = bench.enter(UnifiedCache(**shared))
    keys = [entry.cache_key for entry in cache.put_many([(VALUE, {"n": n}) for n in range(RESULTS)])]
    connection = bench.enter(psycopg.connect(bench.postgresql, autocommit=True))
    select = "SELECT * FROM cacheness.entries WHERE namespace = 'default' AND key = ANY(%s)"
    digests = [bytes.fromhex(key) for key in keys]
    times = bench.race(
        {
            "many": lambda: cache.get_many(keys),
            "one by one": lambda: [cache.get(key) for key in keys],
            "bare": lambda: connection.execute(select, (digests,), binary=True).fetchall(),
        }
    )
    what = f"get_many of {RESULTS:,} values of 200 bytes, PostgreSQL"
    yield compare(what, times["many"], "one SELECT", times["bare"], at_most=3)
    yield compare(what, times["many"], "one get after the other", times["one by one"], at_most=1)
    connection.execute("CREATE TABLE plain (LIKE cacheness.entries INCLUDING ALL)")
    found = connection.execute("SELECT * FROM cacheness.entries LIMIT 1", binary=True)
    columns = [column.name for column in found.description or ()]
    rows = random_rows(dict(zip(columns, found.fetchone() or (), strict=True)))

    def copy() -> None:
        with connection.cursor() as cursor, cursor.copy(f"COPY plain ({', '.join(columns)}) FROM STDIN") as target:
            for row in rows(RESULTS):
                target.write_row(row)

    times = bench.race({"ours": putting(cache), "bare": copy}, once=True)
    yield compare(
        f"put_many of {RESULTS:,} values of 200 bytes, PostgreSQL", times["ours"], "COPY", times["bare"], at_most=6
    )
    yield from side_by_side(bench, "PostgreSQL", cache, at_least=4)


def putting(cache: UnifiedCache) -> Callable[[], object]:
    """A put_many of results that are new each time."""
    batches = itertools.count()

    def put() -> None:
        batch = next(batches)
        cache.put_many([(VALUE, {"n": n, "batch": batch}) for n in range(RESULTS)])

    return put


def random_rows(row: dict[str, Any]) -> Callable[[int], list[tuple[object, ...]]]:
    """Rows like this one, each with a random key."""
    return lambda size: [tuple((row | {"key": os.urandom(32)}).values()) for _ in range(size)]


def side_by_side(bench: Bench, name: str, cache: UnifiedCache, *, at_least: float) -> Iterator[Row]:
    """Threads of one process that put, each of them synced, against as many puts one after the other."""
    numbers = itertools.count()

    def put(_: object) -> None:
        for _ in range(PUTS):
            cache.put(VALUE, thread=next(numbers))

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(put, range(THREADS)))  # connects
        contenders: dict[str, Callable[[], object]] = {
            f"{threads}": lambda threads=threads: list(pool.map(put, range(threads))) for threads in (1, THREADS)
        }
        times = bench.race(contenders, once=True)
    one, all_of_them = times["1"], times[f"{THREADS}"]
    rate = PUTS / one.median, PUTS * THREADS / all_of_them.median
    yield Row(f"puts a second, {name}, one thread", rate[0], unit="puts/s")
    yield Row(f"puts a second, {name}, {THREADS} threads", rate[1], unit="puts/s")
    faster = rate[1] / rate[0]
    yield Row(f"{THREADS} threads that put against one, {name}", faster, unit="x", at_least=at_least)


if __name__ == "__main__":
    main(measure, __doc__)
