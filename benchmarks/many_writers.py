"""Many processes writing into one cache at once: errors, losses, the slowest put, and how many a second."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from typing import Any

from benchmarks.bench import SIGNING_KEY, Bench, Row, main
from cacheness import Config, UnifiedCache

Report = dict[str, Any]

PUTS = 20


def measure(bench: Bench) -> Iterator[Row]:
    """The rows of this benchmark."""
    crowds = (1, 8) if bench.quick else (1, 4, 16, 64)
    embedded = {"cache_dir": str(bench.folder / "ours")}
    shared = {"metadata_backend": bench.postgresql, "blob_store": bench.s3, "signing_key": SIGNING_KEY}
    for name, parameters in (("SQLite", embedded), ("PostgreSQL", shared)):
        for number, writers in enumerate(crowds):
            config = Config(**parameters, namespace=f"crowd{number}")
            yield from crowd(name, config, writers)


def crowd(name: str, config: Config, writers: int) -> Iterator[Row]:
    """Let everybody begin together, and read every entry back."""
    done = run(config, writers)
    with UnifiedCache(config) as cache:
        keys = [(writer, n) for writer in range(writers) for n in range(PUTS)]
        lost = sum(cache.get(writer=writer, n=n) != [writer, n] for writer, n in keys)
    took = sorted(seconds for report in done for seconds in report["took"])
    errors = [error for report in done for error in report["errors"]]
    elapsed = max(report["ended"] for report in done) - min(report["began"] for report in done)
    what = f"{name}, {writers} processes writing"
    late = took[int(0.99 * len(took))]
    yield Row(f"{what}: slowest put", took[-1], at_most=5, note="; ".join(errors[:1]))
    yield Row(f"{what}: errors and losses", len(errors) + lost, at_most=0, unit="")
    yield Row(f"{what}: 99th percentile", late, curve=f"{name}: 99th percentile of a put", at=writers)
    rate = len(took) / elapsed
    yield Row(f"{what}: together", rate, unit="puts/s", curve=f"{name}: puts a second", at=writers)


def run(config: Config, writers: int) -> list[Report]:
    """Everybody opens the cache, waits for the last one, and writes."""
    # Forked from a server that has imported everything, so that starting 64 of them is not what is measured.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.bench", "cacheness", "psycopg", "obstore"])
    start, reports = context.Barrier(writers), context.SimpleQueue()
    processes = [context.Process(target=write, args=(n, config, start, reports)) for n in range(writers)]
    for process in processes:
        process.start()
    found = [reports.get() for _ in processes]
    for process in processes:
        process.join()
    return found


def write(writer: int, config: Config, start: Barrier, reports: SimpleQueue[Report]) -> None:
    """What each process does."""
    with UnifiedCache(config) as cache:
        cache.put(0, writer=writer, warm=True)
        start.wait()
        took, errors, began = [], [], time.time()
        for n in range(PUTS):
            before = time.perf_counter()
            try:
                cache.put([writer, n], writer=writer, n=n)
            except Exception as error:  # noqa: BLE001 - counted and shown
                errors.append(repr(error))
            took.append(time.perf_counter() - before)
        reports.put({"took": took, "errors": errors, "began": began, "ended": time.time()})


if __name__ == "__main__":
    main(measure, __doc__)
