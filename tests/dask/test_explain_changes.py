"""explain names the part of a task that is not what it was when the nearest entry was stored."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import toolz
from workloads import inc, total

import cacheness_dask as cd
from cacheness import UnifiedCache
from cacheness_dask import task_checksums


def scaled(x: int, by: int = 2, path: str = "") -> int:
    return x * by + len(path)


def model(slope: int) -> Any:
    """Another function of the same name for each slope."""

    def predict(x: int) -> int:
        return slope * x

    return predict


def whys(cache: UnifiedCache, before: Any, after: Any) -> dict[str, str]:
    """Why each task of a collection misses, after another was computed and stored."""
    with cd.caching(cache, which="all", scheduler="sync"):
        dask.compute(before)
        return {row.name.rpartition(".")[2]: row.why for row in cd.explain(after) if row.status == "miss"}


def once(why: str) -> str:
    """The reason, without how long ago that was."""
    told, since, ago = why.partition(" since the entry of ")
    assert bool(since) == ago.endswith(" ago")
    return told


def test_a_function_without_entries_says_so(cache: UnifiedCache) -> None:
    assert whys(cache, dask.delayed(inc)(1), dask.delayed(scaled)(1)) == {"scaled": "no earlier entry of `scaled`"}


def test_changed_code_is_named(cache: UnifiedCache) -> None:
    found = whys(cache, dask.delayed(model(2))(3), dask.delayed(model(5))(3))
    assert once(found["predict"]).startswith("code of `")
    assert once(found["predict"]).endswith("predict` changed")


@pytest.mark.parametrize(
    ("args", "kwargs", "what"),
    [
        ((2,), {"by": 3}, "argument 1 changed"),
        ((1,), {"by": 4}, "argument `by` changed"),
        ((2,), {"by": 4}, "argument 1, argument `by` changed"),
    ],
)
def test_a_changed_argument_is_named(cache: UnifiedCache, args: Any, kwargs: Any, what: str) -> None:
    found = whys(cache, dask.delayed(scaled)(1, by=3), dask.delayed(scaled)(*args, **kwargs))
    assert once(found["scaled"]) == what


class Line:
    """A function that is an object."""

    def __init__(self, slope: int) -> None:
        self.slope = slope

    def __call__(self, x: int) -> int:
        return self.slope * x

    def at(self, x: int) -> int:
        return self.slope * x


@pytest.mark.parametrize(
    ("make", "name", "what"),
    [
        (lambda by: partial(scaled, 1, by=by), "scaled", "argument `by` bound in `scaled` changed"),
        (lambda by: partial(scaled, by, 7), "scaled", "argument 1 bound in `scaled` changed"),
        (lambda by: toolz.curry(scaled, by), "scaled", "argument 1 bound in `scaled` changed"),
        (lambda by: partial(partial(scaled, 1, by=by), path=""), "scaled", "argument `by` bound in `scaled` changed"),
        (lambda by: Line(by).at, "at", "the object of `Line.at` changed"),
        (lambda by: Line(by), "Line", "`Line` (its code, or what it holds) changed"),
    ],
)
def test_what_is_bound_in_a_function_is_named(cache: UnifiedCache, make: Any, name: str, what: str) -> None:
    args = () if name == "scaled" else (1,)
    found = whys(cache, dask.delayed(make(2))(*args), dask.delayed(make(3))(*args))
    assert once(found[name]) == what


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        (partial(scaled, by=2), partial(scaled, by=3), "argument `by` bound in `scaled` changed"),
        (Line(2), Line(3), "`Line` (its code, or what it holds) changed"),
    ],
)
def test_what_is_bound_in_a_function_that_dask_calls_is_named(
    cache: UnifiedCache, before: Any, after: Any, what: str
) -> None:
    frame = dd.from_pandas(pd.DataFrame({"a": [1, 2]}), npartitions=1)["a"]
    (why,) = whys(cache, frame.map_partitions(before), frame.map_partitions(after)).values()
    assert once(why) == what


def test_bags_go_by_the_names_of_the_users_functions(cache: UnifiedCache) -> None:
    numbers = db.from_sequence(range(4), npartitions=2)
    found = whys(cache, numbers.map(model(2)), numbers.map(model(3)))
    assert once(found["predict"]).endswith("predict` changed")
    assert found["predict"].startswith("code of `")
    assert once(found["finalize"]).startswith("what comes from `model.<locals>.predict` ")


def test_a_function_with_very_many_bound_arguments_counts_as_a_whole(cache: UnifiedCache) -> None:
    def made(first: int) -> Any:
        return dask.delayed(partial(max, first, *range(task_checksums.MOST_PARTS)))()

    assert once(whys(cache, made(1), made(2))["max"]) == "code of `max` changed"


def test_a_rewritten_input_file_is_named(cache: UnifiedCache, tmp_path: Path) -> None:
    path = tmp_path / "numbers.txt"
    path.write_text("1")
    with cd.caching(cache, which="all", scheduler="sync"):
        dask.delayed(scaled)(1, path=str(path)).compute()
        path.write_text("22")
        (row,) = cd.explain(dask.delayed(scaled)(1, path=str(path)))
    assert once(row.why) == f"input {path} changed"


def test_a_rewritten_file_of_a_data_frame_is_named(cache: UnifiedCache, tmp_path: Path) -> None:
    for number in range(3):
        pd.DataFrame({"a": [number, 1]}).to_csv(tmp_path / f"{number}.csv", index=False)
    with cd.caching(cache, which="all", scheduler="sync"):
        dd.read_csv(tmp_path / "*.csv").compute()
        pd.DataFrame({"a": [5, 5]}).to_csv(tmp_path / "1.csv", index=False)
        rows = [row for row in cd.explain(dd.read_csv(tmp_path / "*.csv")) if row.status == "miss"]
    assert any(once(row.why) == f"input {tmp_path / '1.csv'} changed" for row in rows), [row.why for row in rows]


def test_what_is_downstream_of_a_change_names_the_task_above(cache: UnifiedCache) -> None:
    found = whys(
        cache, dask.delayed(total)(dask.delayed(scaled)(1, by=2)), dask.delayed(total)(dask.delayed(scaled)(1, by=3))
    )
    assert once(found["scaled"]) == "argument `by` changed"
    assert once(found["total"]).startswith("what comes from `scaled` ")


def test_a_change_within_a_fused_task_is_named(cache: UnifiedCache) -> None:
    def blocks(slope: int) -> Any:
        return da.from_array(np.arange(8), chunks=4).map_blocks(model(slope), dtype=int) + 1

    with cd.caching(cache, which="all", scheduler="sync"):
        blocks(2).persist()
        rows = [row for row in cd.explain(blocks(3)) if row.status == "miss"]
    assert rows
    assert any("code of `" in row.why and "predict` changed" in row.why for row in rows), [row.why for row in rows]


def test_the_nearest_of_many_entries_is_compared(cache: UnifiedCache) -> None:
    many = [dask.delayed(scaled)(n, by=n) for n in range(5)]
    found = whys(cache, many, dask.delayed(scaled)(3, by=8))
    assert once(found["scaled"]) == "argument `by` changed"


def test_entries_of_other_makers_are_passed_over(cache: UnifiedCache) -> None:
    cache.put(5, x=1)
    cache.get_or_compute(inc, 1)
    assert whys(cache, dask.delayed(scaled)(1), dask.delayed(inc)(1)) == {"inc": "no earlier entry of `inc`"}


def test_a_clue_is_two_bytes_for_each_part() -> None:
    assert len(task_checksums.clue(0, [b"f", b"a", b"b"])) == 7
    assert task_checksums.clue(0, [b"a"] * 33) == b""


def test_steps_of_a_fused_task_are_compared_in_any_order() -> None:
    one, two, other = [b"f", b"1"], [b"g", b"2"], [b"g", b"3"]
    mine = task_checksums.clue(2, [*one, *two])
    assert task_checksums.differences(mine, task_checksums.clue(2, [*two, *one])) == [
        4
    ]  # so it must be what it was given
    assert task_checksums.differences(mine, task_checksums.clue(2, [*other, *one])) == [3]
    assert task_checksums.differences(mine, task_checksums.clue(2, [*one, b"h", b"2"])) == [2]
    assert task_checksums.differences(mine, task_checksums.clue(0, [b"f", b"1"])) is None
    assert task_checksums.differences(b"", b"") is None
