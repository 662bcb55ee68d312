"""What the cache may cost a cluster: memory in bytes, and no waiting for the store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask
import pytest
from dask.callbacks import Callback
from workloads import inc

import cacheness_dask as cd
from cacheness import Config, UnifiedCache
from cacheness.testing.proxy import Proxy

HERE = Path(__file__).parent
MIB = 1 << 20

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def measured(what: str, count: int, parameters: dict[str, Any]) -> dict[str, int]:
    """What `memory.py` finds in a fresh process with a cluster."""
    found = subprocess.run(
        [sys.executable, "memory.py", what, str(count), json.dumps(parameters)],
        env={**os.environ, "PYTHONPATH": str(HERE)},
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-4000:]
    line = next(line for line in found.stdout.splitlines() if line.startswith("REPORT"))
    return json.loads(line.removeprefix("REPORT"))  # type: ignore[no-any-return]


def test_hits_of_400_mib_are_loaded_spilled_and_reduced_without_the_client_growing(tmp_path: Path) -> None:
    found = measured("loading", 50, {"cache_dir": str(tmp_path / "cache")})
    assert (found["hits"], found["misses"]) == (50, 0)
    assert found["spilled"] >= 25  # of 50, with room in memory for 12
    assert found["growth"] < 20 * MIB  # of the client and the scheduler, which are one process


def shared(url: str, tmp_path: Path) -> dict[str, Any]:
    """A cache on a database that may be slow to answer."""
    return {
        "metadata_backend": url,
        "cache_dir": str(tmp_path / "cache"),
        "shared_path": True,
        "signing_key": "a key that only this test knows",
        "connect_timeout": 30,
        "statement_timeout": 60,
    }


def test_a_slow_store_costs_a_worker_no_more_memory_than_its_queue(tmp_path: Path, emptied_url: str) -> None:
    with Proxy.before(emptied_url) as proxy:
        UnifiedCache(**shared(proxy.url, tmp_path)).close()
        proxy.lag(0.06)  # longer than a task takes to make its 8 MiB
        found = measured("storing", 24, shared(proxy.url, tmp_path))
    assert found["stored"] == found["misses"] == 73  # nothing is dropped
    assert found["behind"] - found["baseline"] <= 64 * MIB
    assert found["behind"] - found["baseline"] >= 16 * MIB  # else nothing ever waited, and this shows nothing


def test_no_task_waits_for_a_store_that_does_not_answer(tmp_path: Path, emptied_url: str) -> None:
    with Proxy.before(emptied_url) as proxy:
        cache = UnifiedCache(Config(**shared(proxy.url, tmp_path)))

        def answering(*_: Any) -> None:
            proxy.stalled = False

        with cache, cd.caching(cache, scheduler="sync", which="all") as run:
            collection = dask.delayed(sum)([dask.delayed(inc)(n) for n in range(200)])
            cd.explain(collection)  # so that every connection is there
            asked = proxy.round_trips
            # From the first task to the last, the database says nothing.
            with Callback(start=lambda _: proxy.stall(), finish=answering):
                assert collection.compute() == 20100
            run.flush()
            asked = proxy.round_trips - asked
            assert run.history[-1].stored == 201
    assert asked < 40  # for all 201 results: they are stored by the hundred
