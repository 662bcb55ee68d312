"""One fresh process of a user: computes the workloads with a cache, and reports what it did as JSON."""

from __future__ import annotations

import json
import multiprocessing
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dask
from counting import Executed
from workloads import each, runs, shown

import cacheness_dask as cd
from cacheness import UnifiedCache


def main(tmp: str, parts: list[tuple[str, list[str]]]) -> list[dict[str, Any]]:
    """Each part computes its workloads on its scheduler, with a cache of its own."""
    folder = Path(tmp)
    with ExitStack() as stack, Executed() as executed:
        cluster = None
        if any(scheduler == "distributed" for scheduler, _ in parts):
            from distributed import LocalCluster

            cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
            executed.watch(stack.enter_context(cluster))
        reports = []
        for number, (scheduler, names) in enumerate(parts):
            with UnifiedCache(cache_dir=folder / f"cache-{number}") as cache, on(scheduler, cluster):
                collections = each(names, folder)
                reports.append(report(cache, None if scheduler == "distributed" else scheduler, collections, executed))
        return reports


@contextmanager
def on(scheduler: str, cluster: Any) -> Iterator[None]:
    """What a scheduler needs besides its name."""
    if scheduler == "processes":
        # One pool for all workloads: Dask alone would start processes anew for each.
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool, dask.config.set(pool=pool):
            yield
    elif scheduler == "distributed":
        from distributed import Client

        with Client(cluster):
            yield
    else:
        yield


def report(
    cache: UnifiedCache, scheduler: str | None, collections: Iterable[tuple[str, Any]], executed: Executed
) -> dict[str, Any]:
    """What happened to each workload of a part."""
    found: dict[str, Any] = {}
    with cd.caching(cache, which="auto", scheduler=scheduler) as run:
        for name, collection in collections:
            before = len(run.history)
            runs()  # building a collection may call its functions on empty data
            executed.number = 0
            (value,) = dask.compute(collection)
            done = run.history[before:]
            found[name] = {
                "value": shown(value),
                "runs": runs(),
                "misses": sum(record.misses for record in done),
                "refused": [str(reason) for record in done for reason in record.reasons.values()],
                "hits": sum(record.hits for record in done),
                "executed": executed.number,
            }
    return found


if __name__ == "__main__":
    print("REPORT" + json.dumps(main(sys.argv[1], json.loads(sys.argv[2]))))
