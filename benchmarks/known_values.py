"""What it costs that results know their value: a hit, a put, and what a chain of references saves."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.bench import Bench, Row, compare, main
from cacheness import UnifiedCache
from cacheness.keys.closed import MOST_NODES

#: Closed values, and how much a put of them may cost more than one without a digest.
VALUES: dict[str, tuple[Any, float]] = {
    "an array of 1 MiB": (np.random.default_rng(0).random(1 << 17), 1.1),
    "a frame of 8 MB": (pd.DataFrame(np.random.default_rng(0).random((100_000, 10))), 1.1),
    f"a list of {MOST_NODES} numbers, the most that are digested": (list(range(MOST_NODES)), 1.25),
    # It compresses to nothing, as fast as its bytes are digested, and nearly nothing is written.
    "64 MiB of zeros": (np.zeros(1 << 23), 2.5),
}
CHAIN = 3  #: steps between the first result and the last


def measure(bench: Bench) -> Iterator[Row]:
    """The rows of this benchmark."""
    cache = bench.enter(UnifiedCache(cache_dir=str(bench.folder / "cache")))
    yield from hits(bench, cache)
    yield from puts(bench, cache)
    yield from chains(bench, cache)


def hits(bench: Bench, cache: UnifiedCache) -> Iterator[Row]:
    @cache.cached(check=1e-12, by_value=True)
    def everything_on(x: int) -> int:
        return x

    @cache.cached(check=0, by_value=False)
    def off(x: int) -> int:
        return x

    everything_on(1), off(1)
    times = bench.race({"on": lambda: everything_on(1), "off": lambda: off(1)}, rounds=9)
    yield compare("hit with everything on", times["on"], "off", times["off"], at_most=1.05)


def puts(bench: Bench, cache: UnifiedCache) -> Iterator[Row]:
    numbers = itertools.count()
    for name, (value, most) in VALUES.items():
        times = bench.race(
            {
                "with": lambda value=value: cache.put(value, x=next(numbers)),
                "without": lambda value=value: cache.put(value, x=next(numbers), by_value=False),
            },
            rounds=5,
        )
        yield compare(f"put {name} with its digest", times["with"], "without", times["without"], at_most=most)


def chains(bench: Bench, cache: UnifiedCache) -> Iterator[Row]:
    @cache.cached
    def first(n: int) -> Any:
        return np.random.default_rng(n).random(n)

    @cache.cached
    def step(rows: Any) -> Any:
        return rows + 1

    @cache.cached
    def last(rows: Any) -> float:
        return float(rows.sum())

    size = 1 << (17 if bench.quick else 20)

    def by_reference() -> float:
        rows = first.lazy(size)
        for _ in range(CHAIN):
            rows = step.lazy(rows.arg)
        return last(rows.arg)

    def loaded() -> float:
        rows = first(size)
        for _ in range(CHAIN):
            rows = step(rows)
        return last(rows)

    loaded()
    times = bench.race({"lazy": by_reference, "loaded": loaded}, rounds=5)
    yield compare(f"warm chain of {CHAIN + 2} steps by reference", times["lazy"], "loaded", times["loaded"], at_least=2)


if __name__ == "__main__":
    main(measure, __doc__)
