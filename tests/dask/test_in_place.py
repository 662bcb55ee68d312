"""`check_inputs`: tasks that change in place what they are given are named, and their results are not stored."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import partd
import pytest

import cacheness_dask as cd
from cacheness import UnifiedCache
from cacheness_dask.sources_and_sinks import why_not


def add_column(frame: pd.DataFrame) -> int:
    frame["y"] = 1
    return len(frame)


def fill(array: np.ndarray[Any, Any], value: float) -> float:
    array[array < 0] = value
    return float(array.sum())


def extend(*, deep: dict[str, list[int]]) -> int:
    deep["items"].append(1)
    return 1


def copies(frame: pd.DataFrame) -> int:
    return len(frame.assign(y=1))


def consumes(lines: Any) -> list[int]:
    return list(lines)


def changes_its_lock(lock: Any) -> int:
    with lock:
        return 1


CHANGING = {
    "add_column": (add_column, lambda: pd.DataFrame({"x": [1, 2]}), "argument 1 (DataFrame)"),
    "fill": (fill, lambda: np.array([-1.0, 2.0]), "argument 1 (ndarray)"),
    "extend": (extend, lambda: {"items": [1]}, "argument `deep` (dict)"),
}
INNOCENT = {
    "copies": (copies, lambda: pd.DataFrame({"x": [1, 2]})),
    "iterator": (consumes, lambda: iter([1, 2])),
    "handle": (changes_its_lock, threading.Lock),
}


def make(value: Any) -> Any:
    return value


def call(function: Callable[..., Any], value: Any) -> Any:
    """A task that is given what another one returns."""
    given = dask.delayed(make, pure=True)(dask.delayed(value, traverse=False))
    task = dask.delayed(function, pure=True)
    if function is extend:
        return task(deep=given)
    return task(given, 0.0) if function is fill else task(given)


@pytest.mark.parametrize("which", ["all", "marked"])
@pytest.mark.parametrize("scheduler", ["sync", "threads"])
@pytest.mark.parametrize("case", CHANGING)
def test_what_changes_its_arguments_is_named(
    cache: UnifiedCache, caplog: pytest.LogCaptureFixture, case: str, scheduler: str, which: Any
) -> None:
    function, given, argument = CHANGING[case]
    with cd.caching(cache, scheduler=scheduler, which=which, check_inputs=1) as run:
        call(function, given()).compute(optimize_graph=False)
    assert run.unstored[case] == {f"in place: it changes {argument}": 1}
    assert [r.getMessage() for r in caplog.records if argument in r.getMessage()] == [
        f"{case} changes {argument} in place, so that other tasks get the one value or the other: let it change a copy"
    ]


@pytest.mark.parametrize("case", INNOCENT)
def test_what_changes_nothing_that_can_be_read_is_not(
    cache: UnifiedCache, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    with cd.caching(cache, scheduler="sync", which="all", check_inputs=1) as run:
        function, given = INNOCENT[case]
        call(function, given()).compute(optimize_graph=False)
    assert "in place" not in str(run) + caplog.text


def test_what_a_shuffle_writes_to_is_no_argument_that_it_changes_and_no_result(cache: UnifiedCache) -> None:
    frame = dd.from_pandas(pd.DataFrame({"k": range(20), "v": range(20)}), npartitions=3)
    with cd.caching(cache, scheduler="sync", which="all", check_inputs=1) as run:
        assert len(frame.shuffle("k", shuffle_method="disk").compute()) == 20
    assert "in place" not in str(run)
    assert why_not(partd.PandasBlocks(partd.Dict())) == "handle: what a shuffle writes to"


@pytest.mark.slow
def test_a_sample_is_a_part_of_all_tasks_and_by_default_none(cache: UnifiedCache) -> None:
    found: dict[float, int] = {}
    for part in (0.0, 0.5, 1.0):
        with cd.caching(cache, scheduler="sync", which="all", check_inputs=part) as run:
            tasks = [call(add_column, pd.DataFrame({f"{part} {n}": [n]})) for n in range(100)]
            dask.compute(*tasks, optimize_graph=False)
        found[part] = sum(run.unstored.get("add_column", {}).values())
    assert found[0.0] == 0
    assert 0 < found[0.5] < 100  # as good as certain: one in 2**99
    assert found[1.0] == 100
