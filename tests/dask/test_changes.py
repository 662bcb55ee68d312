"""What was changed runs again, and its descendants do, and nothing else: counted on real worker processes."""

from __future__ import annotations

import types
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import pandas as pd
import pytest
from counting import Executed
from distributed import Client
from workloads import ran, traces

import cacheness_dask as cd
from cacheness import UnifiedCache

pytestmark = pytest.mark.timeout(120)

SOURCE = """
from workloads import ran

LIMIT = {limit}

def load(n):
    ran("load")
    return n * 10

def helper_of_helper(x):
    return x + {constant}

def helper(x):
    return helper_of_helper(x) * 2

def clean(x):
    ran("clean")
    {comment}
    return helper(x)

def scaled(factor):
    def feature(x):
        ran("feature")
        return x * factor
    return feature

feature = scaled({factor})

def total(features):
    ran("total")
    return sum(features)

def mean(loaded):
    ran("mean")
    return min(sum(loaded) / len(loaded), LIMIT)
"""
PLAIN = {"constant": 1, "comment": "pass", "factor": 2, "limit": 100}
EVERYTHING = Counter(load=3, clean=3, feature=3, total=1, mean=1)
CHANGES: dict[str, tuple[dict[str, Any], Counter[str]]] = {
    "a helper of a helper": ({"constant": 2}, Counter(clean=3, feature=3, total=1)),
    "a comment": ({"comment": "pass  # why"}, Counter()),
    "a docstring": ({"comment": "'what for'"}, Counter()),
    "a closure over 3 in place of 2": ({"factor": 3}, Counter(feature=3, total=1)),
    "a global": ({"limit": 5}, Counter(mean=1)),
}


def workflow(**changes: Any) -> tuple[Any, Any]:
    """Two results on one beginning, by functions that a user has just written."""
    users = types.ModuleType("users_code")
    exec(SOURCE.format(**PLAIN | changes), users.__dict__)
    loaded = [dask.delayed(users.load)(n) for n in range(3)]
    features = [dask.delayed(users.feature)(dask.delayed(users.clean)(x)) for x in loaded]
    return dask.delayed(users.total)(features), dask.delayed(users.mean)(loaded)


@pytest.fixture
def executed(cluster: Any) -> Iterator[Executed]:
    counter = Executed()
    counter.watch(cluster)
    yield counter
    cluster.scheduler.remove_plugin("executed")


@pytest.mark.parametrize("what", CHANGES)
def test_only_the_descendants_of_what_was_changed_run(
    cache: UnifiedCache, client: Client, executed: Executed, what: str
) -> None:
    changes, expected = CHANGES[what]
    (plain,) = dask.compute(workflow(**changes), scheduler="sync")
    traces()
    with cd.caching(cache, which="all") as run:
        dask.compute(workflow())
        assert traces() == EVERYTHING
        executed.number = 0
        (changed,) = dask.compute(workflow(**changes))
    assert changed == plain
    assert traces() == expected
    assert run.history[-1].misses == expected.total()
    # Of the hits, those are tasks that are wanted themselves; others are read by what takes them.
    assert executed.number == expected.total() + len({"total", "mean"} - expected.keys())


def parsed(frame: pd.DataFrame) -> pd.DataFrame:
    if len(frame) > 2:  # Dask calls it with less, to learn the columns
        ran("parsed")
    return frame


def write(folder: Path, number: int, start: int) -> None:
    pd.DataFrame({"a": range(start, start + 5)}).to_csv(folder / f"{number:03}.csv", index=False)


@pytest.mark.slow
def test_one_file_more_among_a_hundred_runs_its_own_tasks_and_the_aggregation(
    cache: UnifiedCache, client: Client, executed: Executed, tmp_path: Path
) -> None:
    def total() -> Any:
        return dd.read_csv(str(tmp_path / "*.csv")).map_partitions(parsed).a.sum(split_every=200)

    for number in range(100):
        write(tmp_path, number, number)
    counts = []
    with cd.caching(cache, which="all") as run:
        for change in (lambda: None, lambda: write(tmp_path, 100, 500), lambda: write(tmp_path, 40, 900)):
            change()
            executed.number = 0
            value = total().compute()
            assert value == sum(pd.read_csv(path).a.sum() for path in tmp_path.glob("*.csv"))
            record = run.history[-1]
            counts.append((traces()["parsed"], executed.number, record.hits, record.misses, record.refused))
    # Dask makes five tasks of a file, and one of their sums, which reads what it did not run: a result of each file.
    assert counts == [(100, 501, 0, 501, 0), (1, 6, 100, 6, 0), (1, 6, 100, 6, 0)]
