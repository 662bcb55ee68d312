"""Prefect: many runs of one key, and of as many keys, beside the same without single flight and Prefect's INPUTS.

70 runs of each kind; PREFECT_RUNS=500 makes more. The peer is the slower of the two. Where the runner starts
processes for each flow, which takes seconds, it is Prefect's INPUTS alone.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ["PREFECT_LOGGING_LEVEL"] = "CRITICAL"
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["PREFECT_LOGGING_TO_API_ENABLED"] = "false"
# What the server writes down later would still be going on while the next runs are timed.
os.environ["PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_ENABLED"] = "false"

from distributed import LocalCluster
from prefect import flow, task
from prefect.cache_policies import INPUTS
from prefect.filesystems import LocalFileSystem
from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner
from prefect.testing.utilities import prefect_test_harness
from prefect_dask import DaskTaskRunner

from benchmarks.bench import Bench, Row, main
from cacheness_prefect import CachenessStorage

OURS, UNGUARDED, INPUTS_ALONE = "ours", "no single flight", "Prefect's INPUTS"
#: Kinds whose runner starts processes, or connects to some, for each flow.
STARTS_PROCESSES = ("submitted, processes", "submitted, Dask")
SECONDS = 0.01  #: that a task takes
WORKERS = 2

_numbers = itertools.count()


def measure(bench: Bench) -> Iterator[Row]:
    """The rows of this benchmark."""
    bench.enter(prefect_test_harness(server_startup_timeout=120))
    cluster = bench.enter(
        LocalCluster(n_workers=WORKERS, threads_per_worker=WORKERS, dashboard_address=":0", silence_logs=50)
    )
    runs = int(os.environ.get("PREFECT_RUNS", "20" if bench.quick else "70"))
    kinds: dict[str, Callable[[dict[str, Any], list[int], str], list[int]]] = {
        "submitted, processes": functools.partial(submitted, lambda: ProcessPoolTaskRunner(max_workers=WORKERS)),
        "submitted, Dask": functools.partial(submitted, lambda: DaskTaskRunner(address=cluster.scheduler_address)),
        "one after the other": called,
        "async": gathered,
        "mapped, threads": functools.partial(submitted, ThreadPoolTaskRunner, mapped=True),
        "submitted, threads": functools.partial(submitted, ThreadPoolTaskRunner),
    }
    computations = 0.0
    for name, kind in kinds.items():
        starts = name in STARTS_PROCESSES
        if not starts:
            work(bench, kind, [1, 2], OURS)  # imports
        for what, numbers in ((f"{runs} runs of one key", [7] * runs), (f"{runs} keys", list(range(runs)))):
            times, computed = dict[str, float](), dict[str, int]()
            for which in (INPUTS_ALONE, OURS) if starts else (UNGUARDED, OURS, INPUTS_ALONE):
                times[which], computed[which] = until_it_ends(bench, kind, numbers, which)
            peer = max(times.keys() - {OURS}, key=times.__getitem__)
            computations = max(computations, computed[OURS] / len(set(numbers)))
            note = f"computed: {computed[OURS]}, the peer {computed[peer]}"
            yield Row(f"Prefect, {what}, {name}", times[OURS], peer, times[peer], at_most=1.5, note=note)
    yield Row("Prefect, single flight: most computations of a key", computations, at_most=1, unit="")


def until_it_ends(
    bench: Bench, kind: Callable[[dict[str, Any], list[int], str], list[int]], numbers: list[int], which: str
) -> tuple[float, int]:
    """As `work`, tried again where Prefect's own storage read a file that another task was still writing."""
    for _ in range(3):
        try:
            return work(bench, kind, numbers, which)
        except EOFError:
            if which != INPUTS_ALONE:
                raise
    return work(bench, kind, numbers, which)


def work(
    bench: Bench, kind: Callable[[dict[str, Any], list[int], str], list[int]], numbers: list[int], which: str
) -> tuple[float, int]:
    """Seconds that a flow takes, and how many of its tasks were computed."""
    folder = bench.folder / f"many{next(_numbers)}"
    folder.mkdir()
    options, tally = kept(folder, which), folder / "tally"
    start = time.perf_counter()
    found = kind(options, numbers, str(tally))
    seconds = time.perf_counter() - start
    assert found == numbers
    return seconds, len(tally.read_text().split())


def kept(folder: Path, which: str) -> dict[str, Any]:
    """The options of a task that keeps its results in a folder."""
    if which != INPUTS_ALONE:
        storage = CachenessStorage(cache_dir=str(folder / "kept"))
        return {"cache_policy": storage.policy(version="1", ignore=["tally"], single_flight=which == OURS)}
    files = LocalFileSystem(basepath=str(folder / "kept"))
    files.save(folder.name, overwrite=True)  # Prefect takes no unsaved block
    return {"cache_policy": INPUTS - "tally", "persist_result": True, "result_storage": files}


def once(number: int, tally: str) -> int:
    note(number, tally)
    time.sleep(SECONDS)
    return number


async def once_later(number: int, tally: str) -> int:
    note(number, tally)
    await asyncio.sleep(SECONDS)
    return number


def note(number: int, tally: str) -> None:
    """Count a computation, in whatever process it is."""
    with open(tally, "a") as file:
        file.write(f"{number}\n")


def called(options: dict[str, Any], numbers: Sequence[int], tally: str) -> list[int]:
    each = task(**options)(once)

    @flow
    def many() -> list[int]:
        return [each(number, tally) for number in numbers]

    return many()


def gathered(options: dict[str, Any], numbers: Sequence[int], tally: str) -> list[int]:
    each = task(**options)(once_later)

    @flow
    async def many() -> list[int]:
        return list(await asyncio.gather(*[each(number, tally) for number in numbers]))

    return asyncio.run(many())


def submitted(
    runner: Callable[[], Any], options: dict[str, Any], numbers: Sequence[int], tally: str, *, mapped: bool = False
) -> list[int]:
    each = task(**options)(once)

    @flow(task_runner=runner())
    def many() -> list[int]:
        futures = each.map(numbers, tally=tally) if mapped else [each.submit(number, tally) for number in numbers]
        return [future.result() for future in futures]

    return many()


if __name__ == "__main__":
    main(measure, __doc__)
