"""Dask: what storing costs while a graph runs, with a store that is 30 ms away; and what hits save."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import dask
from distributed import Client, LocalCluster

import cacheness_dask as cd
from benchmarks.bench import SIGNING_KEY, Bench, main
from benchmarks.rows import Row, Timing, compare
from cacheness import UnifiedCache
from cacheness.testing.proxy import Proxy

TASKS, AWAY = 200, 0.030


def measure(bench: Bench) -> Iterator[Row]:
    """The rows of this benchmark."""
    proxy = bench.enter(Proxy.before(bench.postgresql))
    cache = bench.enter(
        UnifiedCache(
            metadata_backend=proxy.url,
            blob_store=bench.s3,
            cache_dir=str(bench.folder / "cache"),
            signing_key=SIGNING_KEY,
        )
    )
    client = bench.enter(Client(bench.enter(LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0"))))
    rounds = 3 if bench.quick else 7
    for seconds in (0.001, 0.005):
        for name, scheduler in (("two worker processes", client), ("threads", "threads")):
            with cd.caching(cache, scheduler=scheduler, which="all") as run:
                proxy.lag(AWAY)
                ours, bare = race(run, seconds, rounds)
                proxy.heal()
            what = f"{TASKS} tasks of {seconds * 1e3:.0f} ms on {name}, all stored, {AWAY * 1e3:.0f} ms away"
            yield compare(what, ours, "no cache", bare, at_most=1.5)


def tiny(number: int, seconds: float) -> int:
    time.sleep(seconds)
    return number


_numbers = itertools.count(step=TASKS)


def graph(seconds: float) -> Any:
    """A graph that nobody has computed yet."""
    first = next(_numbers)
    return dask.delayed(sum)([dask.delayed(tiny)(first + n, seconds) for n in range(TASKS)])


def race(run: cd.Run, seconds: float, rounds: int) -> tuple[Timing, Timing]:
    """With and without a cache in turns. What waits is stored between them, so that neither pays for the other."""

    def bare() -> None:
        with cd.nocache():
            graph(seconds).compute()

    times: dict[str, list[float]] = {"ours": [], "bare": []}
    for turn in range(rounds + 1):
        for name, call in (("ours", lambda: graph(seconds).compute()), ("bare", bare)):
            took = timed(call)
            run.flush()
            if turn:  # the first opens connections, and imports what a worker needs
                times[name].append(took)
    assert all(record.stored == TASKS + 1 for record in run.history)
    return timing(times["ours"]), timing(times["bare"])


def timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def timing(values: list[float]) -> Timing:
    median = statistics.median(values)
    return Timing(median, statistics.median(abs(value - median) for value in values))


if __name__ == "__main__":
    main(measure, __doc__)
