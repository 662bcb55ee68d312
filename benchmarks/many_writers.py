"""Many processes writing into one cache at once: errors, losses, the slowest put, and how many a second."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from typing import Any

from benchmarks.bench import SIGNING_KEY, Bench, Row, main
from cacheness import Config, UnifiedCache

Report = dict[str, Any]

PUTS = 20  #: of each process


def measure(bench: Bench) -> Iterator[Row]:
    """The rows of this benchmark."""
    crowds = (1, 8) if bench.quick else (1, 4, 16, 64)
    embedded = {"cache_dir": str(bench.folder / "ours")}
    shared = {"metadata_backend": bench.postgresql, "blob_store": bench.s3, "signing_key": SIGNING_KEY}
    patient = {"connect_timeout": 60.0}  # 64 processes that open at once, on few cores, are not what is measured
    for name, parameters in (("SQLite", embedded), ("PostgreSQL", shared)):
        wrong: list[str] = []
        for writers in crowds:
            rows = list(crowd(name, Config(**parameters, **patient, namespace=f"crowd{writers}"), writers, wrong))
            yield from rows
        yield Row(f"{writers} processes writing, {name}: slowest put", rows[-1].ours, at_most=5)
        what = f"{crowds[0]} to {writers} processes writing, {name}: errors and losses"
        yield Row(what, len(wrong), at_most=0, unit="", note="; ".join(wrong[:1]))


def crowd(name: str, config: Config, writers: int, wrong: list[str]) -> Iterator[Row]:
    """Let everybody begin together, and read every entry back."""
    done = run(config, writers)
    with UnifiedCache(config) as cache:
        keys = [(writer, n) for writer in range(writers) for n in range(PUTS)]
        wrong += [f"lost: {key}" for key in keys if cache.get(writer=key[0], n=key[1]) != list(key)]
    wrong += [error for report in done for error in report["errors"]]
    took = sorted(seconds for report in done for seconds in report["took"])
    elapsed = max(report["ended"] for report in done) - min(report["began"] for report in done)
    for kind, value, unit in (
        ("puts a second, all together", len(took) / elapsed, "puts/s"),
        ("median put", took[len(took) // 2], "s"),
        ("99th percentile of a put", took[int(0.99 * len(took))], "s"),
        ("slowest put", took[-1], "s"),
    ):
        what = f"{writers} processes writing, {name}: {kind}"
        yield Row(what, value, unit=unit, curve=f"{name}: {kind}", at=writers, axis="writers")


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
        _, error = timed(lambda: cache.put(0, writer=writer, warm=True))
        start.wait()  # whatever happened: the others wait
        began = time.time()
        done = [timed(lambda n=n: cache.put([writer, n], writer=writer, n=n)) for n in range(PUTS)]
        errors = [each for each in (error, *(error for _, error in done)) if each]
        reports.put({"took": [took for took, _ in done], "errors": errors, "began": began, "ended": time.time()})


def timed(call: Callable[[], object]) -> tuple[float, str]:
    """How long a call took, and what went wrong, if anything."""
    before, error = time.perf_counter(), ""
    try:
        call()
    except Exception as problem:  # noqa: BLE001 - counted and shown
        error = repr(problem)
    return time.perf_counter() - before, error


if __name__ == "__main__":
    main(measure, __doc__)
