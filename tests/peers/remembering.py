"""A pytest plug-in: each test is a `caching()` block, and what became of it is written down.

PEER_CACHE names the directory of the cache, and is empty for a run without; PEER_OUTCOMES the file that is written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import cacheness_dask as cd
from cacheness import UnifiedCache

_outcomes: dict[str, str] = {}
_counts = {"hits": 0, "misses": 0, "refused": 0}


@pytest.fixture(scope="session")
def _peer_cache() -> Iterator[UnifiedCache | None]:
    place = os.environ["PEER_CACHE"]
    if not place:
        yield None
        return
    with UnifiedCache(cache_dir=place) as cache:
        yield cache


@pytest.fixture(autouse=True)
def _peer_block(_peer_cache: UnifiedCache | None) -> Iterator[None]:
    if _peer_cache is None:
        yield
        return
    with cd.caching(_peer_cache, which="all") as run:
        yield
    for record in run.history:
        for name in _counts:
            _counts[name] += getattr(record, name)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the worst of a test's three phases."""
    if report.when == "call" or report.outcome != "passed":
        expected = "xfailed" if hasattr(report, "wasxfail") else report.outcome
        _outcomes[report.nodeid] = _outcomes.get(report.nodeid, "") if expected == "passed" else expected
        _outcomes[report.nodeid] = _outcomes[report.nodeid] or "passed"


def pytest_sessionfinish() -> None:
    """Write down what there was."""
    Path(os.environ["PEER_OUTCOMES"]).write_text(json.dumps({"outcomes": _outcomes, "counts": _counts}))
