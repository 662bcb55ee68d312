"""A Prefect task that finds its result, in a real flow: CachenessStorage against Prefect's own files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["PREFECT_LOGGING_LEVEL"] = "WARNING"
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"

import numpy as np
from prefect import flow, task
from prefect.cache_policies import INPUTS
from prefect.filesystems import LocalFileSystem
from prefect.testing.utilities import prefect_test_harness

from benchmarks.bench import Bench, Row, Timing, compare, main
from cacheness_prefect import CachenessStorage

VALUE = np.random.default_rng(1).random(4 << 20)


def measure(bench: Bench) -> Iterator[Row]:
    """The rows of this benchmark."""
    bench.enter(prefect_test_harness(server_startup_timeout=120))
    folders = {name: bench.folder / name for name in ("ours", "prefect")}
    times = hits(bench, folders, large)
    peer = "its own files, pickle"
    yield compare("Prefect hit, 32 MiB array, the whole task", times["ours"], peer, times["prefect"], at_least=20)
    for name, what in (("ours", "Prefect, bytes stored for each byte"), ("prefect", "… with Prefect's own storage")):
        stored = sum(path.stat().st_size for path in folders[name].rglob("*") if path.is_file())
        yield Row(what, stored / VALUE.nbytes, at_most=1.01 if name == "ours" else None, unit="bytes")
    folders = {name: bench.folder / f"{name}-small" for name in folders}
    times = hits(bench, folders, small)
    more = (times["ours"].median - times["nothing"].median) * 1e3
    yield Row("Prefect hit, small value, over the task's own time", more, at_most=8, unit="ms")
    yield compare("Prefect hit, small value, the whole task", times["ours"], peer, times["prefect"])


def large(n: int) -> np.ndarray:
    return VALUE


def small(n: int) -> dict[str, int]:
    return {"n": n}


def nothing(n: int) -> None:
    return None


def hits(bench: Bench, folders: dict[str, Path], function: Callable[[int], Any]) -> dict[str, Timing]:
    """Hits of one function, kept by us and by Prefect, beside a task that keeps nothing."""
    store = CachenessStorage(cache_dir=str(folders["ours"]))
    files = LocalFileSystem(basepath=str(folders["prefect"]))
    files.save(folders["prefect"].name, overwrite=True)  # Prefect takes no unsaved block
    plain = {"persist_result": True, "cache_result_in_memory": False}
    tasks = {
        "ours": task(cache_policy=store.policy(), cache_result_in_memory=False)(function),
        "prefect": task(cache_policy=INPUTS, result_storage=files, **plain)(function),
        "nothing": task(persist_result=False)(nothing),
    }

    @flow
    def race() -> dict[str, Timing]:
        for each in tasks.values():
            each(1)
        assert tasks["ours"](1, return_state=True).name == "Cached"
        assert tasks["prefect"](1, return_state=True).name == "Cached"
        contenders = {name: lambda each=each: each(1) for name, each in tasks.items()}
        return bench.race(contenders, rounds=6, once=True)

    return race()


if __name__ == "__main__":
    main(measure, __doc__)
