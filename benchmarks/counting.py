"""What counting a call costs, of a hit of 1 KiB: figures, and OpenTelemetry where no provider is set."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import import_module

from benchmarks.bench import Bench, Row, compare, main
from cacheness import UnifiedCache, telemetry

VALUE = os.urandom(1024)
COUNTED = "counting a call, of a hit of 1 KiB by a cached function, SQLite"


def returning(x: int) -> bytes:
    return VALUE


def measure(bench: Bench) -> Iterator[Row]:
    """The rows of this benchmark.

    Counting is timed by itself: the difference of two hits would be lost in their noise.
    """
    cache = bench.enter(UnifiedCache(cache_dir=str(bench.folder / "ours")))
    cached = cache.cached(returning)
    cached(1)
    hit = cache.lookup(cached.key(1))
    assert hit is not None
    uses = cache._store.uses

    def counting() -> None:
        with telemetry.operation(telemetry.LOOKUP, namespace="default") as looking:
            looking.came_to("hit", "", function=hit.entry.function)
        uses.count_hit(hit.entry)

    for name in ("", ", API of OpenTelemetry imported"):
        assert "opentelemetry.trace" not in sys.modules
        if name:
            import_module("opentelemetry.trace")
            import_module("opentelemetry.metrics")
        times = bench.race({"counting": counting, "hit": lambda: cached(1)})
        yield compare(COUNTED + name, times["counting"], "the whole hit", times["hit"], at_most=0.02)


if __name__ == "__main__":
    main(measure, __doc__)
