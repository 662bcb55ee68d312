# /// script
# requires-python = ">=3.11"
# dependencies = ["prefect>=3.8.8"]
# ///
"""
Cache the tasks of a Prefect flow: the second run executes nothing, in any process.

python examples/prefect_cached_tasks.py
"""

from __future__ import annotations

import sys

import numpy as np
from prefect import flow, task

from cacheness_prefect import CachenessStorage

store = CachenessStorage(cache_dir=sys.argv[1] if len(sys.argv) > 1 else ".cacheness")


@task(cache_policy=store.policy())
def measure(day: str) -> np.ndarray:
    """Return measurements; a real task takes longer."""
    print(f"measuring {day}")
    return np.random.default_rng(len(day)).random(100_000)


@task(cache_policy=store.policy())
def mean(values: np.ndarray) -> float:
    """Return the mean. The array counts by its content."""
    return float(values.mean())


@flow
def report() -> list[str]:
    """Return the state of each task: Completed or Cached."""
    values = [measure(day, return_state=True) for day in ("monday", "tuesday")]
    means = [mean(state.result(), return_state=True) for state in values]
    return [state.name for state in (*values, *means)]


if __name__ == "__main__":
    print("first run: ", report())
    print("second run:", report())
    print(store.explain(mean, np.zeros(3)))
