"""Sizes are about those that Dask tells, and measuring them moves no generator of the user's."""
# ruff: noqa: NPY002 - the process-wide generator is meant

from __future__ import annotations

import random
from typing import Any

import dask
import numpy as np
import pandas as pd
import pytest
from dask.sizeof import sizeof

import cacheness_dask as cd
from cacheness import UnifiedCache
from cacheness_dask.sizes import size_of

WORDS = [f"word {number}" * (number % 7) for number in range(400)]
VALUES: dict[str, Any] = {
    "a list": WORDS,
    "lists": [[number] * 200 for number in range(30)],
    "a tuple": tuple(WORDS),
    "a set": set(range(300)),
    "a dictionary": dict(enumerate(WORDS)),
    "a few": [1, "two", 3.0],
    "nothing": [],
    "an array": np.zeros(5000),
    "a frame": pd.DataFrame({"n": range(400), "word": pd.Series(WORDS, dtype=object)}),
    "a series": pd.Series(WORDS, dtype=object),
    "an index": pd.Index(WORDS, dtype=object),
    "one word": pd.Series([WORDS[3]] * 400, dtype=object),
    "strings": pd.Series(WORDS, dtype=pd.StringDtype("python")),
    "an empty frame": pd.DataFrame({"word": pd.Series([], dtype=object)}),
}


def made(name: str) -> Any:
    return VALUES[name]


@pytest.mark.parametrize("name", VALUES)
def test_sizes_are_about_those_of_dask(name: str) -> None:
    theirs = sizeof(VALUES[name])
    assert theirs / 2 - 2000 < size_of(VALUES[name]) < 2 * theirs + 2000


@pytest.mark.parametrize("which", ["outputs", "auto"])
def test_the_sequence_that_a_program_seeded_stays_as_it_was(cache: UnifiedCache, which: Any) -> None:
    random.seed(11)
    np.random.seed(11)
    expected = random.random(), np.random.random()
    random.seed(11)
    np.random.seed(11)
    with cd.caching(cache, which=which, scheduler="sync") as run:
        dask.compute([dask.delayed(made)(name) for name in VALUES])
    assert run.history[0].misses >= len(VALUES)
    assert (random.random(), np.random.random()) == expected


def test_a_size_that_a_user_registered_counts() -> None:
    class Lazy(list[int]):
        pass

    sizeof.register(Lazy)(lambda _: 12345)
    assert size_of(Lazy(range(50))) == 12345
