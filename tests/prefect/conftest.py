"""A real Prefect server for the whole folder, three task runners, and a way to count what was executed.

All tests of this folder are one xdist group: one server, one Dask cluster, whatever the number of workers.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from prefect import context, settings
from prefect.settings import temporary_settings
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from cacheness_prefect import CachenessStorage

HERE = Path(__file__).parent
START_SECONDS = 90.0


#: Prefect's HTTP clients leave their sockets to the garbage collector when an event loop ends. We open none.
PREFECTS_OWN = [
    "ignore:unclosed <socket.socket:ResourceWarning",
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("prefect"))
            for ignored in PREFECTS_OWN:
                item.add_marker(pytest.mark.filterwarnings(ignored))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_healthy(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, "the Prefect server ended while it was starting"
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the Prefect server did not start within {START_SECONDS} s")


def everywhere() -> AbstractContextManager[None]:
    """Threads of Prefect's own do not inherit our settings, and would start a server of their own."""
    return context._temporary_global_settings_context(context.get_settings_context())


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prefect-home")


@pytest.fixture(scope="session")
def prefect_api(prefect_home: Path) -> Iterator[str]:
    """The API's URL; children of the tests find it in their environment."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    environment = {
        "PREFECT_HOME": str(prefect_home),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{prefect_home}/prefect.db",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_API_URL": url,
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (prefect_home / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=os.environ | environment, stdout=log, stderr=log, start_new_session=True, cwd=prefect_home
        )
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            wait_until_healthy(url, process)
            updates = {
                settings.PREFECT_HOME: prefect_home,
                settings.PREFECT_API_URL: url,
                settings.PREFECT_LOGGING_LEVEL: "WARNING",
                settings.PREFECT_LOGGING_TO_API_ENABLED: False,
                # Ending a heartbeat costs each flow run a second.
                settings.PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
            }
            with temporary_settings(updates), everywhere():
                yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def make_store(prefect_api: str, tmp_path: Path) -> Callable[..., CachenessStorage]:
    """Saved blocks on this test's own directory, or with the given fields."""

    def make(**fields: Any) -> CachenessStorage:
        store = CachenessStorage(**{"cache_dir": str(tmp_path / "cache"), **fields})
        store.save(f"test-{uuid.uuid4().hex[:12]}")
        return store

    return make


@pytest.fixture
def store(make_store: Callable[..., CachenessStorage]) -> CachenessStorage:
    return make_store()


@pytest.fixture(scope="session")
def dask_address(prefect_api: str) -> Iterator[str]:
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=":0") as cluster:
        yield cluster.scheduler_address


@pytest.fixture(params=["threads", "processes", "dask"])
def runner(request: pytest.FixtureRequest) -> TaskRunner[Any]:
    if request.param == "threads":
        return ThreadPoolTaskRunner(max_workers=8)
    if request.param == "processes":
        # A process takes seconds to start; two are for what needs two.
        return ProcessPoolTaskRunner(max_workers=2 if "six" in request.node.name else 1)
    from prefect_dask import DaskTaskRunner

    return DaskTaskRunner(address=request.getfixturevalue("dask_address"))


class Tally:
    """Counts executions in any process: a line in a file for each."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, word: str = "run") -> None:
        with self.path.open("a") as file:
            file.write(f"{word}\n")

    def __len__(self) -> int:
        return len(self.path.read_text().splitlines()) if self.path.exists() else 0

    def __cacheness_key__(self) -> str:
        return "a tally counts what happens and decides nothing"


@pytest.fixture
def tally(tmp_path: Path) -> Tally:
    return Tally(tmp_path / "tally")
