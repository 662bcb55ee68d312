"""Dask: a graph computed again, with this cache, with what else there is, and with none."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dask
from dask.cache import Cache

import cacheness_dask as cd
from benchmarks.bench import Bench, main
from benchmarks.rows import Row, compare
from cacheness import UnifiedCache

TASKS, SECONDS = 200, 0.005
ROOT = Path(__file__).parents[1]
#: graphchain requires a cloudpickle that distributed refuses, so it is installed without its requirements.
GRAPHCHAIN = ("graphchain", "fs", "appdirs", "lz4", "setuptools<81")


def measure(bench: Bench) -> Iterator[Row]:
    """The rows of this benchmark."""
    run = bench.enter(cd.caching(bench.enter(UnifiedCache(cache_dir=str(bench.folder / "cache"))), scheduler="threads"))
    opportunistic = Cache(1e9)

    def ours() -> None:
        collection().compute()

    def none() -> None:
        collection().compute(scheduler="threads")

    def theirs() -> None:
        with opportunistic:
            collection().compute(scheduler="threads")

    times = bench.race({"ours": ours, "none": none, "dask.cache": theirs}, once=True)
    what = f"Dask, {TASKS} tasks of {SECONDS * 1000:g} ms computed again"
    note = "a quick run does not try graphchain" if bench.quick else with_graphchain(bench.folder)
    assert run.history[-1].misses == 0
    yield compare(what, times["ours"], "no cache", times["none"], note=note)
    yield compare(what, times["ours"], "dask.cache, in memory", times["dask.cache"], note=f"cachey {version('cachey')}")


def slow(x: int) -> int:
    time.sleep(SECONDS)
    return x + 1


def collection() -> Any:
    lazy = dask.delayed(slow, pure=True)
    return dask.delayed(sum, pure=True)([lazy(n) for n in range(TASKS)])


def with_graphchain(folder: Path) -> str:
    """What becomes of the same graph with graphchain, on the Dask that is installed."""
    target = folder / "graphchain"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), *GRAPHCHAIN]
    if (failed := error_of(install)) is not None:
        return f"graphchain cannot be installed: {failed}"
    program = "import sys; from benchmarks.dask_peers import run_graphchain; run_graphchain(*sys.argv[1:])"
    failed = error_of([sys.executable, "-W", "ignore", "-c", program, str(target), str(folder / "chained")])
    return f"graphchain on dask {version('dask')}: {failed or 'runs'}"


def error_of(command: list[str]) -> str | None:
    """The error that a command ends with, None when it does not fail."""
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    errors = re.findall(r"^(?:[\w.]+(?:Error|Exception)|ERROR)\b.*", ran.stderr, flags=re.MULTILINE)
    return None if ran.returncode == 0 else (errors or [f"exit status {ran.returncode}"])[-1]


def run_graphchain(target: str, location: str) -> None:
    """Compute the graph twice with graphchain, as in its documentation."""
    sys.path.append(target)
    import graphchain  # type: ignore[import-not-found]

    optimize = partial(graphchain.optimize, location=location)
    with dask.config.set(scheduler="sync", delayed_optimize=optimize):
        first = collection().compute()
        began = time.perf_counter()
        assert collection().compute() == first
        print(time.perf_counter() - began)


if __name__ == "__main__":
    main(measure, __doc__)
