"""explain names the part of a task that is not what it was when the nearest entry was stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
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
