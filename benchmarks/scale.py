"""What put, get, list, evict and repair cost as the cache grows, on SQLite and on PostgreSQL.

A thousand, ten thousand and a hundred thousand entries; CACHENESS_BENCH_ENTRIES=2000000 sets
another largest size, with a step of ten below it.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator

import psycopg

from benchmarks.bench import SIGNING_KEY, Bench, Row, main
from benchmarks.memory import forget_peak, peak, resident
from cacheness import UnifiedCache

BATCH = 5000
EVICTED = 10  #: one entry of this many
#: From here on values lie in the rows: blobs kept in memory would be most of what the process holds.
INLINE_FROM = 1_000_000


def measure(bench: Bench) -> Iterator[Row]:
    """The rows of this benchmark."""
    largest = int(os.environ.get("CACHENESS_BENCH_ENTRIES", "10000" if bench.quick else "100000"))
    sizes = sorted({1000, 10_000, 100_000, largest // 10, largest})
    sizes = [size for size in sizes if 1000 <= size <= largest]
    # Blobs in memory: their store is not what grows dearer with their number.
    blobs = {"blob_store": "memory://", **({"inline_max_bytes": 0} if largest < INLINE_FROM else {})}
    embedded = {"cache_dir": str(bench.folder / "ours")}
    shared = {"metadata_backend": bench.postgresql, "signing_key": SIGNING_KEY}
    for name, parameters in (("SQLite", embedded), ("PostgreSQL", shared)):
        with UnifiedCache(**parameters, **blobs) as cache:
            yield from costs(bench, name, cache, sizes)


def costs(bench: Bench, name: str, cache: UnifiedCache, sizes: list[int]) -> Iterator[Row]:
    numbers, repaired = itertools.count(), {}
    for size in sizes:
        yield point(name, "put, in batches", size, fill(cache, size, numbers))
        if name == "PostgreSQL":
            analyze(bench)
        yield from one_by_one(bench, name, cache, size)
        repaired[size], memory = repair(cache)
        yield point(name, "repair, an entry", size, repaired[size] / size)
        yield point(name, "evict, an entry", size, evict(cache, size))
    what = f"{name}, repair of {sizes[-1]:,} entries"
    yield Row(f"{what}: memory", memory / (1 << 20), at_most=200, unit="MiB", note=f"{repaired[size]:.2f} s")
    for smaller in sizes[-2:-1]:
        peer, theirs = f"an entry of {smaller:,}", repaired[smaller] / smaller
        yield Row(f"{what}: an entry", repaired[size] / size, peer, theirs, at_most=2, note="linear time: 1 x")


def point(name: str, what: str, size: int, seconds: float) -> Row:
    return Row(f"{name}, {size:,} entries: {what}", seconds, curve=f"{name}: {what}", at=size)


def fill(cache: UnifiedCache, size: int, numbers: Iterator[int]) -> float:
    """Put until there are so many entries; seconds for each."""
    missing = size - cache.stats()["entries"]
    began = time.perf_counter()
    for start in range(0, missing, BATCH):
        with cache.write_batch():
            for n in itertools.islice(numbers, min(BATCH, missing - start)):
                cache.put(n, n=n)
    return (time.perf_counter() - began) / missing


def analyze(bench: Bench) -> None:
    """Have the server know the table, as it does within a minute by itself; until then it sorts all rows for a list."""
    with psycopg.connect(bench.postgresql, autocommit=True) as connection:
        connection.execute("ANALYZE cacheness.entries")


def one_by_one(bench: Bench, name: str, cache: UnifiedCache, size: int) -> Iterator[Row]:
    middle = next(itertools.islice(cache.iter_entries(), size // 2, None)).cache_key
    calls: dict[str, Callable[[], object]] = {
        "put": lambda: cache.put(0, middle),
        "get": lambda: cache.get(middle),
        "list 100": lambda: cache.list_entries(limit=100),
    }
    for what, timing in bench.race(calls, rounds=3).items():
        yield point(name, what, size, timing.median)


def repair(cache: UnifiedCache) -> tuple[float, int]:
    """One check and repair of everything: its seconds, and the bytes that it took beside what there was."""
    before = resident()
    forget_peak()
    began = time.perf_counter()
    report = cache.verify_integrity(repair=True)
    took = time.perf_counter() - began
    assert len(report) == 0, report
    return took, max(peak() - before, 0)


def evict(cache: UnifiedCache, size: int) -> float:
    """Make room for a tenth; seconds for each entry that went."""
    with UnifiedCache(cache.config.but(max_entries=size - size // EVICTED)) as smaller:
        began = time.perf_counter()
        gone = smaller.evict()
        took = time.perf_counter() - began
    # In the row, because its blobs would lie in another memory than those of the cache.
    with UnifiedCache(cache.config.but(max_entries=1 << 40, inline_max_bytes=1 << 10)) as wide:
        wide.put(0, wide=True)  # a quota belongs to the namespace until somebody who puts gives another
    assert gone >= size // EVICTED, gone
    return took / gone


if __name__ == "__main__":
    main(measure, __doc__)
