"""A cache and a count of task runs for each test; one cluster with real worker processes for each module."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cacheness import UnifiedCache

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # so that worker processes and `session.py` find the workloads by the same name


@pytest.fixture(autouse=True)
def count_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "runs"
    monkeypatch.setenv("COUNT_FILE", str(path))
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[UnifiedCache]:
    with UnifiedCache(cache_dir=tmp_path / "cache") as opened:
        yield opened


@pytest.fixture(scope="module")
def cluster() -> Iterator[object]:
    from distributed import LocalCluster

    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as running:
        yield running


@pytest.fixture
def client(cluster: object) -> Iterator[object]:
    from distributed import Client

    with Client(cluster) as connected:
        yield connected
