"""Tasks that draw without a seed are computed each time, and what needs them; seeded ones are found again."""

from __future__ import annotations

import functools
import operator
import random
from collections.abc import Callable
from typing import Any

import dask
import dask.bag as db
import dask.bag.random as bag_random
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from test_sources_and_sinks import compute

import cacheness_dask as cd
from cacheness import UnifiedCache
from cacheness.keys import register_random


def simulate(steps: int, seed: int | None = None) -> float:
    return float(np.random.default_rng(seed).normal()) + steps


def half(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sample(frac=0.5)


def half_seeded(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sample(frac=0.5, random_state=1)


class Walk:
    """Draws when it is made, and not when it is used."""

    def __init__(self, steps: int, seed: int | None = None) -> None:
        self.path = [random.Random(seed).random() for _ in range(steps)]

    def end(self) -> float:
        return self.path[-1]


def last(walk: Walk) -> float:
    return walk.end()


def ten() -> dd.DataFrame:
    return dd.from_pandas(pd.DataFrame({"a": range(40)}), npartitions=2)


DRAWS: dict[str, Callable[[], Any]] = {
    "a seed that is left out": lambda: dask.delayed(simulate)(3),
    "a seed of None": lambda: dask.delayed(simulate)(3, seed=None),
    "a partial": lambda: dask.delayed(functools.partial(simulate, 3))(),
    "a library's function": lambda: dask.delayed(np.random.default_rng)(),
    "a library's method": lambda: dask.delayed(scipy.stats.norm.rvs)(size=3),
    "methodcaller": lambda: dask.delayed(operator.methodcaller("sample", n=3))(pd.DataFrame({"a": range(9)})),
    "an object that is made": lambda: dask.delayed(Walk)(3),
    "what needs it": lambda: dask.delayed(last)(dask.delayed(Walk)(3)),
    "a bag": lambda: db.from_sequence(range(4), npartitions=2).map(simulate),
    "a bag's sample": lambda: bag_random.sample(db.from_sequence(range(40), npartitions=2), 3),
    "partitions": lambda: ten().map_partitions(half),
    "a frame's sample by name": lambda: ten().map_partitions(lambda frame: frame.sample(3, replace=True)),
}


@pytest.mark.parametrize("name", DRAWS)
def test_what_draws_is_computed_each_time(cache: UnifiedCache, name: str) -> None:
    for _ in range(2):
        record = compute(cache, DRAWS[name](), which="all")[1]
        assert any("unseeded randomness: " in reason for reason in record.reasons.values())
    wanted = compute(cache, DRAWS[name](), which="outputs")[1]
    assert wanted.hits == 0


SEEDED: dict[str, Callable[[], Any]] = {
    "a seed": lambda: dask.delayed(simulate)(3, 0),
    "a seed by name": lambda: dask.delayed(simulate)(3, seed=1),
    "a seed that is computed": lambda: dask.delayed(simulate)(3, dask.delayed(abs)(-4)),
    "a partial": lambda: dask.delayed(functools.partial(simulate, seed=4))(3),
    "methodcaller": lambda: dask.delayed(operator.methodcaller("sample", n=3, random_state=1))(
        pd.DataFrame({"a": range(9)})
    ),
    "an object that is made": lambda: dask.delayed(last)(dask.delayed(Walk)(3, seed=9)),
    "an object that is there": lambda: dask.delayed(last)(Walk(3, 4)),
    "a bag": lambda: db.from_sequence(range(4), npartitions=2).map(simulate, seed=4),
    "a bag of seeds": lambda: db.from_sequence([1, 2], npartitions=1).map(
        simulate, db.from_sequence([3, 4], npartitions=1)
    ),
    "partitions": lambda: ten().map_partitions(half_seeded),
    "Dask's own": lambda: ten().sample(frac=0.5, random_state=3),
}


@pytest.mark.parametrize("name", SEEDED)
def test_what_is_seeded_is_found_again(cache: UnifiedCache, name: str) -> None:
    first, record = compute(cache, SEEDED[name](), which="all")
    assert record.refused == 0
    again, record = compute(cache, SEEDED[name](), which="all")
    assert record.misses == 0
    assert str(again) == str(first)


def measured() -> float:
    return random.random()


def test_the_way_out_for_what_is_no_chance(cache: UnifiedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cacheness.keys.code.random_calls._registered", {})
    assert compute(cache, dask.delayed(measured)(), which="all")[1].refused == 1
    register_random(measured, draws=False)
    assert compute(cache, dask.delayed(measured)(), which="all")[1].refused == 0


DRAWING = ["{}".format("random")]  # what code does with a name that is computed is not seen


def draws_unseen(count: int) -> float:
    return sum(getattr(random, name)() for name in DRAWING * count)


def draws_from_numpy_unseen(count: int) -> float:
    return float(sum(getattr(np.random, name)() for name in DRAWING * count))


def draws_its_own(count: int) -> float:
    return sum(random.Random(5).random() for _ in range(count))


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_what_moves_a_process_wide_generator_is_suspected(cache: UnifiedCache, scheduler: Any) -> None:
    tasks = [dask.delayed(function)(3) for function in (draws_unseen, draws_from_numpy_unseen, draws_its_own)]
    with cd.caching(cache, which="all", scheduler=scheduler) as run:
        for task in tasks:
            task.compute()
        rows = {row.name: row.why.partition("; ")[2] for row in cd.explain(tasks)}
    assert run.suspected == {"draws_unseen": {"random": 1}, "draws_from_numpy_unseen": {"numpy.random": 1}}
    assert str(run).splitlines()[-2:] == [
        "suspected of chance: draws_unseen, 1 x the process-wide generator of random moved",
        "suspected of chance: draws_from_numpy_unseen, 1 x the process-wide generator of numpy.random moved",
    ]
    moved = "moved while it was computed: the process-wide generator of {}".format
    assert rows == {
        "draws_unseen": moved("random"),
        "draws_from_numpy_unseen": moved("numpy.random"),
        "draws_its_own": "",
    }
