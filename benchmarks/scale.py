"""What put, get, list, evict and repair cost at a thousand, ten thousand and a hundred thousand entries.

CACHENESS_BENCH_ENTRIES=2000000 asks for another largest size.
"""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.bench import SIGNING_KEY, Bench, Row, main
from cacheness import UnifiedCache

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
BATCH = 5000


def measure(bench: Bench) -> Iterator[Row]:
    """The rows of this benchmark."""
    largest = int(os.environ.get("CACHENESS_BENCH_ENTRIES", "10000" if bench.quick else "100000"))
    sizes = sorted({1000, min(10_000, largest), largest})
    embedded = {"cache_dir": str(bench.folder / "ours")}
    shared = {"metadata_backend": bench.postgresql, "signing_key": SIGNING_KEY}
    for name, parameters in (("SQLite", embedded), ("PostgreSQL", shared)):
        # Blobs in memory: their store is not what grows dearer with their number.
        config = {**parameters, "blob_store": "memory://", "inline_max_bytes": 0}
        with UnifiedCache(**config) as cache:
            yield from costs(bench, name, cache, sizes)


def costs(bench: Bench, name: str, cache: UnifiedCache, sizes: list[int]) -> Iterator[Row]:
    filled, first = 0, {}
    for size in sizes:
        began = time.perf_counter()
        for start in range(filled, size, BATCH):
            with cache.write_batch():
                for n in range(start, min(start + BATCH, size)):
                    cache.put(n, n=n)
        figures = {"put in batches": (time.perf_counter() - began) / (size - filled)} | one_by_one(bench, cache, size)
        filled = size
        for what, seconds in figures.items():
            beside = (f"at {sizes[0]:,}", first[what]) if what in first else ()
            first.setdefault(what, seconds)
            yield Row(f"{name}, {size:,} entries: {what}", seconds, *beside, curve=f"{name}: {what}", at=size)
    yield repair(name, cache, sizes[-1])
    with cache_with(cache, max_entries=sizes[-1] // 2) as smaller:
        began = time.perf_counter()
        gone = smaller.evict()
        yield Row(f"{name}, evict half of {sizes[-1]:,}: an entry", (time.perf_counter() - began) / max(gone, 1))


def one_by_one(bench: Bench, cache: UnifiedCache, size: int) -> dict[str, float]:
    numbers = itertools.count(-1, -1)
    middle = cache.key(n=size // 2)
    times = bench.race(
        {
            "put": lambda: cache.put(0, n=next(numbers)),
            "get": lambda: cache.get(middle),
            "list 100": lambda: cache.list_entries(limit=100),
        },
        rounds=2,
    )
    return {name: timing.median for name, timing in times.items()}


def repair(name: str, cache: UnifiedCache, size: int) -> Row:
    """One check of everything, in a memory that must not depend on the number."""
    before = resident("VmRSS")
    CLEAR.write_text("5")
    began = time.perf_counter()
    report = cache.verify_integrity(repair=True)
    seconds = time.perf_counter() - began
    assert len(report) == 0, report
    more = (resident("VmHWM") - before) / (1 << 20)
    note = f"{seconds:.2f} s, {seconds / size * 1e6:.1f} us an entry"
    return Row(f"{name}, repair of {size:,} entries: memory", more, at_most=200, unit="MiB", note=note)


def resident(what: str) -> int:
    return 1024 * int(re.search(rf"{what}:\s+(\d+)", STATUS.read_text())[1])


def cache_with(cache: UnifiedCache, **changes: Any) -> UnifiedCache:
    return UnifiedCache(cache.config.but(**changes))


if __name__ == "__main__":
    main(measure, __doc__)
