"""A hit of 256 KiB, which lies in a file, against diskcache and joblib.Memory, which keep it in one too."""

from __future__ import annotations

import os
from collections.abc import Iterator

import diskcache
import joblib
import numpy as np

from benchmarks.bench import Bench, Row, compare, main
from benchmarks.stages import stages
from cacheness import UnifiedCache

VALUE = os.urandom(256 << 10)
ARRAY = np.frombuffer(VALUE)


def measure(bench: Bench) -> Iterator[Row]:
    """The rows of this benchmark."""
    cache = bench.enter(UnifiedCache(cache_dir=str(bench.folder / "ours")))
    peer = bench.enter(diskcache.Cache(str(bench.folder / "diskcache")))
    remembered = joblib.Memory(bench.folder / "joblib", verbose=0).cache(returning)
    keys = {}
    for name, value in (("bytes", VALUE), ("array", ARRAY)):
        entry = cache.put(value, x=name)
        assert entry.blob is not None, "the value must lie in a file"
        keys[name] = peer_key = entry.cache_key
        peer[peer_key] = value
        remembered(name)
    times = bench.race(
        {
            "ours": lambda: cache.get(keys["bytes"]),
            "diskcache": lambda: peer[keys["bytes"]],
            "ours, array": lambda: cache.get(keys["array"]),
            "diskcache, array": lambda: peer[keys["array"]],
            "joblib, array": lambda: remembered("array"),
        }
    )
    what = "get 256 KiB by key, SQLite + files"
    yield compare(what, times["ours"], "diskcache", times["diskcache"], at_most=2)
    yield from stages(bench, what, cache, keys["bytes"])
    what = "get an array of 256 KiB by key, SQLite + files"
    yield compare(what, times["ours, array"], "diskcache", times["diskcache, array"])
    yield compare(what, times["ours, array"], "joblib.Memory", times["joblib, array"])


def returning(name: str) -> object:
    return ARRAY if name == "array" else VALUE


if __name__ == "__main__":
    main(measure, __doc__)
