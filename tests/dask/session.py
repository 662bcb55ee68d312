"""One fresh process of a user: computes the workloads with a cache, and reports what it did as JSON."""

from __future__ import annotations

import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dask
from counting import Executed
from workloads import WORKLOADS, each, runs, shown

import cacheness_dask as cd
from cacheness import UnifiedCache


def main(cache_dir: str, tmp: str, scheduler: str, which: str, *names: str) -> dict[str, Any]:
    report: dict[str, Any] = {}
    with ExitStack() as stack, Executed() as executed:
        if scheduler == "processes":
            # One pool for all workloads: Dask alone would start processes anew for each.
            pool = ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))
            stack.enter_context(dask.config.set(pool=stack.enter_context(pool)))
        if scheduler == "distributed":
            from distributed import Client, LocalCluster

            cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
            stack.enter_context(Client(stack.enter_context(cluster)))
            executed.watch(cluster)
        cache = stack.enter_context(UnifiedCache(cache_dir=cache_dir))
        run = stack.enter_context(
            cd.caching(cache, which=which, scheduler=None if scheduler == "distributed" else scheduler)
        )
        for name, collection in each(list(names) or sorted(WORKLOADS), Path(tmp)):
            before = len(run.history)
            runs()  # building a collection may call its functions on empty data
            executed.number = 0
            (value,) = dask.compute(collection)
            done = run.history[before:]
            report[name] = {
                "value": shown(value),
                "runs": runs(),
                "misses": sum(record.misses for record in done),
                "refused": [str(reason) for record in done for reason in record.reasons.values()],
                "hits": sum(record.hits for record in done),
                "executed": executed.number,
            }
    return report


if __name__ == "__main__":
    print("REPORT" + json.dumps(main(*sys.argv[1:])))
