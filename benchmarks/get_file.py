"""A hit of 256 KiB, which lies in a file, against diskcache, which keeps it in one too."""

from __future__ import annotations

import os
from collections.abc import Iterator

import diskcache

from benchmarks.bench import Bench, Row, compare, main
from cacheness import UnifiedCache

VALUE = os.urandom(256 << 10)


def measure(bench: Bench) -> Iterator[Row]:
    """The rows of this benchmark."""
    cache = bench.enter(UnifiedCache(cache_dir=str(bench.folder / "ours")))
    entry = cache.put(VALUE, x=1)
    assert entry.object is not None, "the value must lie in a file"
    peer = bench.enter(diskcache.Cache(str(bench.folder / "diskcache")))
    peer[entry.cache_key] = VALUE
    key = entry.cache_key
    times = bench.race({"ours": lambda: cache.get(key), "diskcache": lambda: peer[key]})
    yield compare("get 256 KiB by key, SQLite + files", times["ours"], "diskcache", times["diskcache"], at_most=2)


if __name__ == "__main__":
    main(measure, __doc__)
