"""A cache and a count of task runs for each test; one cluster with real worker processes for all of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import dask
import pytest

from cacheness import UnifiedCache

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # so that worker processes and `session.py` find the workloads by the same name


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have all tests that share a cluster run in one process, or each process would start one."""
    for item in items:
        if HERE in item.path.parents:
            for shared in {"cluster", "elsewhere"}.intersection(getattr(item, "fixturenames", ())):
                item.add_marker(pytest.mark.xdist_group(f"dask-{shared}"))


@pytest.fixture(scope="session", autouse=True)
def count_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where tasks leave traces; the worker processes of a cluster learn it when they start."""
    path = tmp_path_factory.mktemp("traces") / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COUNT_FILE", str(path))
        yield path


@pytest.fixture(autouse=True)
def nothing_ran_yet(count_file: Path) -> None:
    count_file.unlink(missing_ok=True)


@pytest.fixture(autouse=True)
def scheduler_stays(nothing_ran_yet: None) -> Iterator[None]:
    """A client that is closed before a younger one leaves Dask asking for a client that is no more."""
    before = dask.config.get("scheduler", None)
    yield
    after = dask.config.get("scheduler", None)
    dask.config.config["scheduler"] = before  # for the tests that follow
    assert after == before


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[UnifiedCache]:
    with UnifiedCache(cache_dir=tmp_path / "cache") as opened:
        yield opened


@pytest.fixture(scope="session")
def cluster() -> Iterator[object]:
    from distributed import LocalCluster

    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as running:
        yield running


@pytest.fixture
def client(cluster: object) -> Iterator[object]:
    from distributed import Client

    with Client(cluster) as connected:
        connected.wait_for_workers(2)  # the test before may have killed one
        yield connected
