"""Tasks that say when they compute, and wait for leave to return; in a test's flow, or in that of another process.

python -m tests.prefect.gated '{"fields": …, "kind": "dask", "address": …, "folder": …, "keys": [1, 2], "value": "b"}'
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import Task, flow, task
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from cacheness_prefect import CachenessStorage


def wait_for(condition: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


def place(folder: str, key: int, value: str) -> Path:
    """Says who computes a key; `.go` beside it is the leave to return."""
    return Path(folder, f"{key}-{value}")


def let_go(folder: str, key: int, value: str) -> None:
    place(folder, key, value).with_suffix(".go").touch()


def computing(folder: str, key: int) -> set[str]:
    """Those who compute a key, or have computed it."""
    return {path.name.partition("-")[2] for path in Path(folder).glob(f"{key}-*") if not path.suffix}


def make_slow(store: CachenessStorage, **options: Any) -> Task[..., str]:
    @task(name="slow", cache_policy=store.policy(code=False, ignore=("folder", "value"), **options))
    def slow(key: int, value: str, folder: str) -> str:
        here = place(folder, key, value)
        here.with_suffix(".tmp").write_text(str(os.getpid()))
        here.with_suffix(".tmp").rename(here)
        wait_for(here.with_suffix(".go").exists, 600)
        return value

    return slow


def main() -> None:
    told = json.loads(sys.argv[1])
    slow = make_slow(CachenessStorage(**told["fields"]), lease=3.0)
    runners: dict[str, Callable[[], TaskRunner[Any]]] = {
        "threads": ThreadPoolTaskRunner,
        "processes": lambda: ProcessPoolTaskRunner(max_workers=1),
        "dask": lambda: _on_dask(told["address"]),
    }

    @flow(task_runner=runners[told["kind"]]())
    def work() -> list[str]:
        futures = [slow.submit(key, told["value"], told["folder"]) for key in told["keys"]]
        return [f"{future.wait() or future.state.name}:{future.result()}" for future in futures]

    print("RESULT", " ".join(work()))


def _on_dask(address: str) -> TaskRunner[Any]:
    from prefect_dask import DaskTaskRunner

    return DaskTaskRunner(address=address)


if __name__ == "__main__":
    main()
