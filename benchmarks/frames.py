"""Data frames of 12 MB in local files, against Feather, joblib and diskcache, which check nothing."""

from __future__ import annotations

from collections.abc import Iterator

import diskcache
import joblib
import numpy as np
import pandas as pd

from benchmarks.bench import Bench, Row, compare, main
from cacheness import UnifiedCache

ROWS = 400_000


def frames() -> dict[str, pd.DataFrame]:
    """Frames of about 12 MB."""
    random = np.random.default_rng(0)
    mixed = pd.DataFrame(
        {
            "i": np.arange(ROWS) % 1000,
            "x": random.normal(size=ROWS),
            "s": [f"user-{n % 5000}" for n in range(ROWS)],
        }
    )
    numbers = pd.DataFrame({"a": random.normal(size=2 * ROWS), "b": np.arange(2 * ROWS)})
    return {
        "numbers and text": mixed,
        "numbers": numbers,
        "a category": mixed.assign(s=mixed["s"].astype("category")),
        "lists in cells": pd.DataFrame(
            {"l": [[n, n + 1] for n in range(ROWS // 4)], "x": random.normal(size=ROWS // 4)}
        ),
    }


def measure(bench: Bench) -> Iterator[Row]:
    """The rows of this benchmark."""
    cache = bench.enter(UnifiedCache(cache_dir=str(bench.folder / "ours")))
    peer = bench.enter(diskcache.Cache(str(bench.folder / "diskcache")))
    dumped, feather = bench.folder / "frame.pickle", bench.folder / "frame.feather"
    for name, frame in frames().items():
        has_feather = name != "lists in cells"
        writers = {
            "ours": lambda frame=frame: cache.put(frame, x=1),
            "joblib": lambda frame=frame: joblib.dump(frame, dumped),
            "diskcache": lambda frame=frame: peer.set("frame", frame),
        }
        if has_feather:
            writers["feather"] = lambda frame=frame: frame.to_feather(feather, compression="uncompressed")
        puts = bench.race(writers, rounds=3, once=True, memory=64 << 20)
        readers = {
            "ours": lambda: cache.get(x=1),
            "joblib": lambda: joblib.load(dumped),
            "diskcache": lambda: peer.get("frame"),
        }
        if has_feather:
            readers["feather"] = lambda: pd.read_feather(feather)
        gets = bench.race(readers, once=True, memory=64 << 20)
        bound = {"at_most": 1.5} if name == "numbers and text" else {}
        what = f"hit of a data frame of {name}"
        if has_feather:
            yield compare(what, gets["ours"], "pandas.read_feather", gets["feather"], **bound)
        yield compare(what, gets["ours"], "joblib.load", gets["joblib"], **(bound and {"at_most": 1}))
        yield compare(what, gets["ours"], "diskcache", gets["diskcache"])
        yield compare(f"put of a data frame of {name}, synced", puts["ours"], "joblib.dump, not synced", puts["joblib"])


if __name__ == "__main__":
    main(measure, __doc__)
