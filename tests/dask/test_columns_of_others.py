"""Columns that Arrow does not know, in graphs: one element decides, and what is kept for speed does not."""

from __future__ import annotations

from typing import Any

import dask
import pandas as pd
import pytest
from distributed import Client
from shapes import Shapes, field
from workloads import ran, runs

import cacheness_dask as cd
from cacheness import UnifiedCache


def moved(frame: pd.DataFrame, by: int) -> pd.DataFrame:
    ran()
    shapes = frame["shape"].array
    assert isinstance(shapes, Shapes)
    return frame.assign(shape=Shapes([(x + by, y) for x, y in shapes], shapes.system))


def first(*frames: pd.DataFrame) -> list[Any]:
    ran()
    return [(frame["shape"].iloc[0], frame["shape"].array.system) for frame in frames]  # type: ignore[union-attr]


def graph(*frames: pd.DataFrame) -> Any:
    """Each frame moved, and the first shape of each."""
    return dask.delayed(first)(*(dask.delayed(moved)(frame, 1) for frame in frames))


@pytest.mark.slow
@pytest.mark.parametrize("where", ["threads", "cluster"])
def test_one_element_of_a_column_is_one_block(cache: UnifiedCache, where: str, request: pytest.FixtureRequest) -> None:
    client: Client | None = request.getfixturevalue("client") if where == "cluster" else None
    scheduler: dict[str, Any] = {} if client else {"scheduler": "threads"}
    with cd.caching(cache, which="all", **scheduler) as run:
        assert graph(field(0), field(10)).compute() == [((1, 0), ""), ((11, 0), "")]
        used = field(0)
        used["shape"].array.lookup()  # type: ignore[union-attr]
        runs()
        assert graph(used, field(10)).compute() == [((1, 0), ""), ((11, 0), "")]
        assert runs() == 0
        changed = field(10)
        changed["shape"] = Shapes([(10, 0), (11, 1), (99, 99)])
        graph(used, changed).compute()
        assert runs() == 2  # that block, and what needs it
        assert graph(used, field(10, "polar")).compute()[1] == ((11, 0), "polar")
        assert runs() == 2
    assert [record.refused for record in run.history] == [0, 0, 0, 0]
