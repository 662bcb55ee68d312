"""Calls of a decorated function, hits and misses, against what else remembers results."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

import diskcache
import joblib

from benchmarks.bench import Bench, Row, compare, main
from cacheness import UnifiedCache


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
    what = "hit of a decorated function, small"
    yield compare(what, times["ours"], "diskcache.memoize", times["diskcache"], at_most=1.5)
    yield compare(what, times["ours"], "joblib.Memory", times["joblib"], at_most=0.4)
    yield compare(what, times["ours"], "functools.lru_cache, which keeps nothing", times["lru_cache"])
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


def summed(x: int, y: int = 0) -> dict[str, int]:
    return {"sum": x + y}


if __name__ == "__main__":
    main(measure, __doc__)
