"""A pytest plug-in: each test is a `caching()` block, and what became of it is written down.

PEER_CACHE names the directory of the cache, and is empty for a run without; PEER_OUTCOMES the file that is written.
PEER_EVERY=10 takes one test in ten, PEER_FROM=1 another one. Each test seeds the generators that nobody seeds by its
name, and the names of temporary files, so that two runs make the same data in the same places.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock
from zlib import crc32

import numpy as np
import pytest
from numpy.random import bit_generator

import cacheness_dask as cd
from cacheness import UnifiedCache
from cacheness_dask.graphs import name_of
from cacheness_dask.run import Run

EVERY, FROM = int(os.environ.get("PEER_EVERY", "1")), int(os.environ.get("PEER_FROM", "0"))
_outcomes: dict[str, str] = {}
_counts = {"hits": 0, "skipped": 0, "misses": 0, "refused": 0}
_missed: dict[str, str] = {}  #: which function's tasks were computed and may be stored, by the key of the entry
_refused: dict[str, int] = {}  #: how many tasks have no key, by reason


@pytest.fixture(scope="session")
def _peer_cache() -> Iterator[UnifiedCache | None]:
    place = os.environ["PEER_CACHE"]
    if not place:
        yield None
        return
    with UnifiedCache(cache_dir=place) as cache:
        yield cache


@pytest.fixture(autouse=True)
def _peer_seed(request: pytest.FixtureRequest) -> Iterator[None]:
    seed = crc32(request.node.nodeid.encode())
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the generator that Dask's tests draw from
    names = map(f"{seed:08x}-{{}}".format, itertools.count())
    unseeded = random.Random(seed).getrandbits  # what NumPy's new generators take from the system
    with mock.patch.object(tempfile, "_name_sequence", names), mock.patch.object(bit_generator, "randbits", unseeded):
        yield


@pytest.fixture(autouse=True, scope="session")
def _peer_missed() -> Iterator[None]:
    plan = Run._plan

    def planned(self: Run, *args: Any, **options: Any) -> Any:
        made, prints = plan(self, *args, **options)
        for key, name in made.misses.items():
            first = made.graph[key].dependencies.isdisjoint(made.misses)
            _missed[name] = f"{name_of(made.graph[key])}{', which needs no other miss' if first else ''}"
        for why in made.refused.values():
            _refused[why] = _refused.get(why, 0) + 1
        return made, prints

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "_plan", planned)
        yield


@pytest.fixture(autouse=True)
def _peer_block(_peer_cache: UnifiedCache | None, _peer_seed: None) -> Iterator[None]:
    if _peer_cache is None:
        yield
        return
    with cd.caching(_peer_cache, which="all") as run:
        yield
    for record in run.history:
        for name in _counts:
            _counts[name] += getattr(record, name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Take one test in so many, by name."""
    items[:] = [item for item in items if crc32(item.nodeid.encode()) % EVERY == FROM]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the worst of a test's three phases."""
    if report.when == "call" or report.outcome != "passed":
        expected = "xfailed" if hasattr(report, "wasxfail") else report.outcome
        _outcomes[report.nodeid] = _outcomes.get(report.nodeid, "") if expected == "passed" else expected
        _outcomes[report.nodeid] = _outcomes[report.nodeid] or "passed"


def pytest_sessionfinish() -> None:
    """Write down what there was."""
    told = {"outcomes": _outcomes, "counts": _counts, "missed": _missed, "refused": _refused}
    Path(os.environ["PEER_OUTCOMES"]).write_text(json.dumps(told))
