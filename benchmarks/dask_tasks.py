"""Dask: graphs of tiny tasks, from compute() to the result, and from there until all is stored."""

from __future__ import annotations

import gc
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dask._task_spec import List, Task, TaskRef
from dask.delayed import Delayed
from dask.order import order
from distributed import Client, LocalCluster
from toolz import partition_all

import cacheness_dask as cd
from benchmarks.bench import Bench, main
from benchmarks.dask_graphs import materialised
from benchmarks.rows import Row, Timing, compare
from cacheness_dask.fingerprint import fingerprints
from cacheness_dask.result_keys import entry_key


def measure(bench: Bench) -> Iterator[Row]:
    """The rows of this benchmark."""
    yield from million(bench)
    yield from threads(bench)
    client = bench.enter(Client(bench.enter(LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0"))))
    yield from cluster(bench, client)
    yield from aggregation(bench, client)


def tiny(number: int) -> int:
    return number


def total(numbers: list[int], turn: int) -> int:
    return sum(numbers) + turn


_turns = itertools.count(1)


def graph(size: int, first: int = 0) -> Any:
    """What `delayed(total)([delayed(tiny)(n) for n in …], turn)` makes, without the time that making it takes."""
    turn = next(_turns)
    tasks: dict[str, Any] = {f"tiny-{first + n}": Task(f"tiny-{first + n}", tiny, first + n) for n in range(size)}
    tasks[f"total-{turn}"] = Task(f"total-{turn}", total, List(*map(TaskRef, tasks)), turn)
    return Delayed(f"total-{turn}", tasks)


def new_graph(size: int) -> Any:
    """A graph that nobody has computed yet."""
    return graph(size, first=next(_turns) * size)


def million(bench: Bench) -> Iterator[Row]:
    """All of a graph that hits, without the threads that would run it otherwise."""
    size = int(os.environ.get("BENCH_HITS", "1000" if bench.quick else "100000"))
    with cd.caching(bench.folder / "million") as run:
        collection = graph(size)
        tasks, keys = materialised(collection)
        digests = [entry_key(digest) for digest in fingerprints(tasks, keys, {}).digests.values()]
        for several in partition_all(10_000, digests):
            with run.cache.write_batch():
                for key in several:
                    run.cache.put(0, key, compute_seconds=1.0)

        def theirs() -> None:
            order(materialised(collection)[0])

        ways = {"ours": lambda: collection.compute(scheduler="sync"), "dask": theirs}
        times = bench.race(ways, rounds=1, once=True)
        assert run.history[-1].misses == 0
    note = f"{times['ours'].median / size * 1e6:.1f} us a task"
    peer = "Dask's own optimise and order"
    yield compare(f"Dask, {size:,} tasks that all hit", times["ours"], peer, times["dask"], at_most=1.2, note=note)


def threads(bench: Bench) -> Iterator[Row]:
    """Tiny tasks that are all stored, on threads."""
    size = 500 if bench.quick else 2000
    with cd.caching(bench.folder / "threads", scheduler="threads", which="all") as run:
        times = race(bench, run, {"ours": lambda: new_graph(size).compute(), "none": bare(lambda: new_graph(size))})
        assert all(record.stored == size + 1 for record in run.history)
    yield compare(
        f"Dask, {size:,} tiny tasks on threads, all stored", times["ours"], "no cache", times["none"], at_most=1.5
    )
    yield compare(
        f"Dask, {size:,} tiny tasks on threads, until all are stored", times["ours, stored"], "no cache", times["none"]
    )


def cluster(bench: Bench, client: Client) -> Iterator[Row]:
    """All of a task on client and scheduler."""
    size = 500 if bench.quick else 2000
    with cd.caching(bench.folder / "cluster") as run:
        ways = {"ours": lambda: new_graph(size).compute(), "none": bare(lambda: new_graph(size))}
        times = race(bench, run, ways)
        assert all(record.misses == size + 1 for record in run.history)
        yield compare(
            f"Dask, {size:,} tasks on two workers that all miss", times["ours"], "no cache", times["none"], at_most=1.2
        )


def aggregation(bench: Bench, client: Client) -> Iterator[Row]:
    """One new task that takes many results that are there."""
    size = 500 if bench.quick else 4000
    with cd.caching(bench.folder / "aggregation", which="all") as run:
        graph(size).compute()
        run.flush()
        times = race(bench, run, {"ours": lambda: graph(size).compute(), "none": bare(lambda: graph(size))})
        assert all(record.hits == size for record in run.history[1:])
    yield compare(
        f"Dask, an aggregation over {size:,} small hits on two workers",
        times["ours"],
        "no cache",
        times["none"],
        at_most=0.1,
    )


def bare(make: Callable[[], Any]) -> Callable[[], Any]:
    """The same without a cache."""

    def compute() -> Any:
        with cd.nocache():
            return make().compute()

    return compute


def race(bench: Bench, run: cd.Run, ways: Mapping[str, Callable[[], Any]]) -> dict[str, Timing]:
    """Each in turns. What waits is stored between them, so that neither pays for the other."""
    times: dict[str, list[float]] = {}
    for turn in range(3 if bench.quick else 4):
        for name, call in ways.items():
            gc.collect()
            start = time.perf_counter()
            call()
            took = time.perf_counter() - start
            run.flush()
            stored = time.perf_counter() - start
            if turn:  # the first opens connections, and imports what a worker needs
                times.setdefault(name, []).append(took)
                times.setdefault(f"{name}, stored", []).append(stored)
    return {name: timing(values) for name, values in times.items()}


def timing(values: list[float]) -> Timing:
    median = statistics.median(values)
    return Timing(median, statistics.median(abs(value - median) for value in values))


if __name__ == "__main__":
    main(measure, __doc__)
