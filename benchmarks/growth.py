"""What one call costs, and the slowest of many, as the cache grows to millions of entries.

Ten thousand and a hundred thousand entries; GROWTH=1000000 (`make bench-growth`) or more adds
larger sizes. Entries are written in batches; keys are digests, as everywhere.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import multiprocessing
import os
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import obstore
import psycopg

from benchmarks.bench import SIGNING_KEY, Bench, Row, compare, main
from benchmarks.large_s3 import bare
from cacheness import UnifiedCache
from cacheness.metadata import postgresql
from cacheness.metadata.sql.statements import Statement
from cacheness.records import Entry
from cacheness.results.store import Draft
from cacheness.testing.proxy import Proxy

SMALLEST = 10_000
BATCH = 5000
FAMILY = 100  #: entries of one function, tag and prefix at the smallest size: one in so many at each
CALLS = 20_000
AWAY = 0.02  #: seconds to the store that is far away
BLOB = 48 << 10
BLOBS_GONE = 10_000
BLOBS_MOVED = 2000
LOGGED = 2000
THREADS = 32
PUTS_A_THREAD = 40
LONGEST_WAIT = 0.05  #: seconds, beyond the median


def measure(bench: Bench) -> Iterator[Row]:
    """The rows of this benchmark."""
    largest = int(os.environ.get("GROWTH", str(SMALLEST if bench.quick else 10 * SMALLEST)))
    sizes = [size for size in (SMALLEST * 10**n for n in range(7)) if size <= largest]
    embedded = {"cache_dir": str(bench.folder / "ours")}
    shared = {"metadata_backend": bench.postgresql, "signing_key": SIGNING_KEY}
    for name, parameters in (("SQLite", embedded), ("PostgreSQL", shared)):
        with UnifiedCache(**parameters, blob_store="memory://") as cache:
            yield from Growing(bench, name, cache).rows(sizes)
    yield from blobs_far_away(bench)


@dataclass
class Growing:
    """A cache that is filled step by step, and what single calls cost at each step."""

    bench: Bench
    name: str
    cache: UnifiedCache
    numbers: Iterator[int] = field(default_factory=itertools.count)
    models: dict[bool, Entry] = field(default_factory=dict)
    first: dict[str, float] = field(default_factory=dict)  #: seconds at the smallest size
    written: int = 0
    kept: list[bytes] = field(default_factory=list)  #: a fair sample of the keys that were written

    def rows(self, sizes: list[int]) -> Iterator[Row]:
        """What grows, for each size, and what the rules promise about it."""
        for size in sizes:
            self.fill(size)
            yield from self.surveys(size)
            yield from self.misses(size)
            yield from self.first_put(size)
            yield from self.single_calls(size)  # the last, because it evicts
        if self.name == "PostgreSQL":
            yield self.log_of_a_hit()
            yield from self.log_of_a_put()
            yield self.cost_of_totals()
        yield from self.eviction(sizes[-1])

    def fill(self, size: int) -> None:
        """Put until there are so many entries, one in a hundred of them with a tag, a prefix and a function."""
        missing = size - self.cache.stats()["entries"]
        for start in range(0, missing, BATCH):
            numbers = itertools.islice(self.numbers, min(BATCH, missing - start))
            self.cache._store.publish([self.draft(is_marked=n % FAMILY == 0) for n in numbers])

    def draft(self, *, is_marked: bool) -> Draft:
        """A small result as it was put before, under a random key: making keys is not what is measured."""
        if is_marked not in self.models:
            marks: dict[str, Any] = {"tags": ("marked",), "prefix": "marked", "function": marked} if is_marked else {}
            self.models[is_marked] = self.cache.put(0, args={"n": 0}, **marks)
        model = self.models[is_marked]
        return Draft(replace(model, key=self.fresh_key(), inline=None), [model.inline or b""], None)

    def fresh_key(self) -> bytes:
        """Return a random key, and keep it as one of a sample in which each key has the same chance."""
        key = os.urandom(32)
        self.written += 1
        place = len(self.kept) if len(self.kept) < CALLS else random.randrange(self.written)
        if place < CALLS:
            self.kept[place : place + 1] = [key]
        return key

    def single_calls(self, size: int) -> Iterator[Row]:
        """Puts beyond the quota and gets, one after the other: the median and the slowest."""
        with UnifiedCache(self.cache.config.but(max_entries=size)) as full:
            # Random keys that are there, and before the puts evict them: a miss takes a third of the time.
            there = list(full.present([key.hex() for key in self.kept]))
            keys = random.sample(there, min(CALLS // 2, len(there)))
            gets = [seconds(lambda key=key: full.get(key)) for key in keys]
            puts = [seconds(lambda n=n: full.put(n, fresh=(size, n))) for n in range(CALLS // 2)]
        with UnifiedCache(self.cache.config.but(max_entries=1 << 40)) as wide:
            wide.put(0, wide=True)  # a quota belongs to the namespace until somebody who puts gives another
        for what, found in (("put beyond the quota", puts), ("get", gets)):
            median = statistics.median(found)
            yield self.point(what, size, median)
            yield self.against_first(what, size, median, at_most=1.5)
            yield Row(
                f"{self.name}, {size:,} entries: slowest {what} of {len(found):,}, beyond the median",
                max(found) - median,
                at_most=LONGEST_WAIT,
            )

    def misses(self, size: int) -> Iterator[Row]:
        """Misses of a decorated function while the program logs at INFO."""
        function = self.cache.cached(lambda x: x, version="1")
        log = logging.getLogger("cacheness")
        log.addHandler(logging.NullHandler())
        log.setLevel(logging.INFO)
        try:
            median = statistics.median(seconds(lambda n=n: function((size, n))) for n in range(200))
        finally:
            log.setLevel(logging.NOTSET)
        yield self.point("miss at INFO", size, median)
        yield self.against_first("miss at INFO", size, median, at_most=1.5)

    def first_put(self, size: int) -> Iterator[Row]:
        """The first put of a process that has a quota, against its second."""
        first, second = [], []
        for n in range(9):
            # Another time-out is another configuration, so that nothing is shared with caches that are open.
            with UnifiedCache(self.cache.config.but(max_entries=10 * size, blob_timeout=10 + n / 1000)) as cache:
                cache.get(nothing=True)
                first.append(seconds(lambda n=n: cache.put(0, first=(size, n))))
                second.append(seconds(lambda n=n: cache.put(0, second=(size, n))))
        ours, theirs = statistics.median(first), statistics.median(second)
        yield Row(f"{self.name}, {size:,} entries: first put of a process", ours, "the second", theirs, at_most=2)

    def surveys(self, size: int) -> Iterator[Row]:
        """Totals, and lists of one in a hundred by each condition."""
        taken = statistics.median(seconds(self.cache.stats) for _ in range(20))
        yield Row(f"{self.name}, {size:,} entries: stats()", taken, at_most=0.01)
        conditions: dict[str, dict[str, Any]] = {
            "tag": {"tag": "marked"},
            "prefix": {"prefix": "marked"},
            "function": {"function": marked},
        }
        for what, condition in conditions.items():
            took = statistics.median(seconds(lambda c=condition: list(self.cache.iter_entries(**c))) for _ in range(3))
            found = sum(1 for _ in self.cache.iter_entries(**condition))
            assert found >= size // FAMILY // 2, (what, found)
            yield self.point(f"list by {what}, an entry", size, took / found)
            yield self.against_first(f"list by {what}, an entry", size, took / found, at_most=2)
        with self.cache.write_batch():
            for n in range(FAMILY):
                self.cache.put(n, args={"gone": n}, tags=("gone",))
        took = seconds(lambda: self.cache.delete_matching(tag="gone"))
        yield self.against_first(f"delete {FAMILY} by tag", size, took, at_most=2)

    def log_of_a_hit(self) -> Row:
        """Bytes of write-ahead log for a key that is hit ten times."""
        keys = [entry.cache_key for entry in itertools.islice(self.cache.iter_entries(), 2000)]
        with psycopg.connect(self.bench.postgresql, autocommit=True) as connection:
            connection.execute("CHECKPOINT")
            before = connection.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
            for _ in range(10):
                self.cache.get_many(keys)
            self.cache._store.uses.flush()
            (written,) = connection.execute("SELECT pg_current_wal_insert_lsn() - %s::pg_lsn", before).fetchone() or (
                0,
            )
        return Row("PostgreSQL: log a key that is hit ten times", float(written) / len(keys), unit="B")

    def log_of_a_put(self) -> Iterator[Row]:
        """Bytes of write-ahead log for a put of a small result, and of the database for each of them."""
        with psycopg.connect(self.bench.postgresql, autocommit=True) as connection:
            connection.execute("CHECKPOINT")
            for n in range(LOGGED):  # the first change of a page after a checkpoint logs the whole page
                self.cache.put(n, args={"before": n})
            before = connection.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
            for n in range(LOGGED):
                self.cache.put(n, args={"logged": n})
            written = connection.execute("SELECT pg_current_wal_insert_lsn() - %s::pg_lsn", before).fetchone()
            size = connection.execute(
                "SELECT sum(pg_total_relation_size(oid)) FROM pg_class"
                " WHERE relnamespace = 'cacheness'::regnamespace AND relname IN ('entries', 'uses', 'tags')"
            ).fetchone()
        entries = self.cache.stats()["entries"]
        yield Row("PostgreSQL: log a put of a small result", float((written or (0,))[0]) / LOGGED, unit="B")
        yield Row("PostgreSQL: disk a small result", float((size or (0,))[0]) / entries, unit="B")

    def cost_of_totals(self) -> Row:
        """Puts of 32 threads where a sync takes 5 ms, with the totals that are kept and without."""
        database = urlsplit(self.bench.postgresql).path.lstrip("/")
        with psycopg.connect(self.bench.postgresql, autocommit=True) as connection:
            for setting in ("commit_delay = 5000", "commit_siblings = 0"):
                connection.execute(f'ALTER DATABASE "{database}" SET {setting}')
            try:
                ours = self.puts_side_by_side(lambda statement: statement)
                theirs = self.puts_side_by_side(without_totals)
            finally:
                connection.execute(f'ALTER DATABASE "{database}" RESET ALL')
        what = f"PostgreSQL, a sync of 5 ms: {THREADS * PUTS_A_THREAD:,} puts of {THREADS} threads"
        return Row(what, ours, "without totals", theirs, at_least=0.9)

    def puts_side_by_side(self, changed: Callable[[Statement], Statement]) -> float:
        """How long it takes, with the statement of a put changed like this."""
        name = f"threads-{next(self.numbers)}"
        with UnifiedCache(self.cache.config.but(namespace=name, blob_timeout=11)) as cache:
            published = {which: changed(statement) for which, statement in postgresql._PUBLISH.items()}
            with mock.patch.dict(postgresql._PUBLISH, published), ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(lambda n: cache.put(n, warm=n), range(THREADS)))  # connects
                every = range(THREADS * PUTS_A_THREAD)
                return seconds(lambda: list(pool.map(lambda n: cache.put(n, n=n), every)))

    def eviction(self, size: int) -> Iterator[Row]:
        """Eviction of a tenth beside a process that writes."""
        waits: list[float] = []
        done = threading.Event()

        def write() -> None:
            for n in itertools.count():
                if done.is_set():
                    return
                waits.append(seconds(lambda n=n: self.cache.put(n, beside=n)))

        with UnifiedCache(self.cache.config.but(max_entries=size - size // 10)) as smaller:
            writer = threading.Thread(target=write)
            writer.start()
            try:
                took = seconds(smaller.evict)
            finally:
                done.set()
                writer.join()
        what = f"{self.name}, {size:,} entries: eviction of a tenth"
        yield Row(what, took, at_most=120)
        yield Row(f"{what}: slowest put beside it", max(waits), at_most=LONGEST_WAIT, note=f"{len(waits):,} puts")

    def point(self, what: str, size: int, took: float) -> Row:
        """A point of a curve."""
        return Row(
            f"{self.name}, {size:,} entries: {what}", took, curve=f"{self.name}: {what}", at=size, axis="results"
        )

    def against_first(self, what: str, size: int, took: float, *, at_most: float) -> Row:
        """The same at the smallest size, as the peer."""
        theirs = self.first.setdefault(what, took)
        row = f"{self.name}, {size:,} entries: {what}, against the smallest"
        return Row(row, took, f"{SMALLEST:,} entries", theirs, at_most=at_most)


def blobs_far_away(bench: Bench) -> Iterator[Row]:
    """Many blobs at once on an S3 server that is far away, against what its client does by itself."""
    url = bench.enter(far_away(bench.s3))
    parameters = {"metadata_backend": bench.postgresql, "blob_store": url, "signing_key": SIGNING_KEY}
    cache = bench.enter(UnifiedCache(**parameters, namespace="far", inline_max_bytes=0))
    gone = BLOBS_GONE // 10 if bench.quick else BLOBS_GONE
    cache.put_many([(os.urandom(1 << 10), {"n": n}) for n in range(gone)])
    yield Row(f"S3 {AWAY * 1e3:.0f} ms away: delete {gone:,} blobs", seconds(cache.clear), at_most=5)
    store, values, batches = bare(url), [os.urandom(BLOB) for _ in range(BLOBS_MOVED)], itertools.count()
    keys: list[Entry] = []

    def put_many() -> None:
        batch = next(batches)
        keys[:] = cache.put_many([(value, {"n": n, "batch": batch}) for n, value in enumerate(values)])

    races: dict[str, dict[str, Callable[[], object]]] = {
        "put": {
            "ours": put_many,
            "bare": lambda: side_by_side(lambda n: obstore.put(store, f"bare/{n}", values[n])),
        },
        "get": {
            "ours": lambda: cache.get_many(keys),
            "bare": lambda: side_by_side(lambda n: obstore.get(store, f"bare/{n}").bytes()),
        },
    }
    for what, contenders in races.items():
        times = bench.race(contenders, rounds=5, once=True)
        row = f"S3 {AWAY * 1e3:.0f} ms away: {what}_many of {BLOBS_MOVED:,} blobs of 48 KiB"
        yield compare(row, times["ours"], "obstore, 64 in flight", times["bare"], at_least=0.8)


@contextlib.contextmanager
def far_away(url: str) -> Iterator[str]:
    """The URL of a proxy before a server that makes it far away.

    It has a separate process: here it would take the interpreter's lock, and the more of it from what does more work
    for each request.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_forward, args=(url, theirs), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        ours.close()
        process.join()


def _forward(url: str, pipe: Connection) -> None:
    with Proxy.before(url) as proxy, contextlib.suppress(EOFError):
        proxy.lag(AWAY)
        pipe.send(proxy.url)
        pipe.recv()


def without_totals(statement: Statement) -> Statement:
    """The statement of a put as it was if nothing were counted."""
    before, counted, rest = statement.text.partition(", counted AS")
    assert counted
    return replace(statement, text=before + rest[rest.index(" SELECT CASE") :])


def side_by_side(call: Callable[[int], object]) -> None:
    """Call with each number, 64 at a time."""
    with ThreadPoolExecutor(64) as pool:
        list(pool.map(call, range(BLOBS_MOVED)))


def marked(n: int) -> int:
    """A function whose results are one in a hundred."""
    return n


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    main(measure, __doc__)
