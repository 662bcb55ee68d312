"""Calls of a decorated function, hits and misses, against what else remembers results."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Iterator
from typing import Any

import diskcache
import joblib

from benchmarks.bench import Bench, Row, compare, main
from cacheness import UnifiedCache
from cacheness.results.kept import ROWS_AT_MOST


def measure(bench: Bench) -> Iterator[Row]:
    """The rows of this benchmark."""
    cache = bench.enter(UnifiedCache(cache_dir=str(bench.folder / "ours")))
    peer = bench.enter(diskcache.Cache(str(bench.folder / "diskcache")))
    memory = joblib.Memory(bench.folder / "joblib", verbose=0)
    ours, theirs, joblibs = cache.cached(summed), peer.memoize()(summed), memory.cache(summed)
    floor = functools.lru_cache(summed)
    times = bench.race(
        {
            "ours": lambda: ours(1, y=2),
            "diskcache": lambda: theirs(1, y=2),
            "joblib": lambda: joblibs(1, y=2),
            "lru_cache": lambda: floor(1, y=2),
        }
    )
    what = "hit of a decorated function, small, the same call again"
    yield compare(what, times["ours"], "diskcache.memoize", times["diskcache"], at_most=1.5)
    yield compare(what, times["ours"], "joblib.Memory", times["joblib"], at_most=0.4)
    yield compare(what, times["ours"], "functools.lru_cache, which keeps nothing", times["lru_cache"])
    yield from any_call(cache, peer, ours, theirs, bench)
    numbers = itertools.count(10)
    times = bench.race(
        {
            "ours": lambda: ours(next(numbers)),
            "diskcache": lambda: theirs(next(numbers)),
            "joblib": lambda: joblibs(next(numbers)),
        }
    )
    what = "miss of a decorated function, small, computed and stored"
    yield compare(f"{what}, synced", times["ours"], "diskcache.memoize, not synced", times["diskcache"])
    yield compare(f"{what}, synced", times["ours"], "joblib.Memory, not synced", times["joblib"])


def any_call(cache: UnifiedCache, peer: diskcache.Cache, ours: Any, theirs: Any, bench: Bench) -> Iterator[Row]:
    """Calls in a random order, more of them than a process keeps rows."""
    calls = range(1_000_000, 1_000_000 + 2 * ROWS_AT_MOST)
    cache.put_many([(summed(x), ours.key(x)) for x in calls])
    with peer.transact():
        for x in calls:
            theirs(x)
    order = random.Random(1).sample(calls, len(calls))
    ours_next, theirs_next = itertools.cycle(order), itertools.cycle(order)
    times = bench.race({"ours": lambda: ours(next(ours_next)), "diskcache": lambda: theirs(next(theirs_next))})
    what = f"hit of a decorated function, small, any of {len(calls):,} calls"
    yield compare(what, times["ours"], "diskcache.memoize", times["diskcache"], at_most=1.5)


def summed(x: int, y: int = 0) -> dict[str, int]:
    return {"sum": x + y}


if __name__ == "__main__":
    main(measure, __doc__)
