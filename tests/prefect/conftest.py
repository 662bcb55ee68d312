"""A real Prefect server for the whole folder, three task runners, and a way to count what was executed.

All tests of this folder are two xdist groups, on one server: what needs a Dask cluster or a pool of processes, of
which there is then one, whatever the number of workers; and the rest.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import context, settings
from prefect.logging.configuration import DEFAULT_LOGGING_SETTINGS_PATH, setup_logging
from prefect.settings import temporary_settings
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from cacheness.testing.servers import SharedServers
from cacheness_prefect import CachenessStorage
from tests.conftest import AUTHORITY
from tests.prefect.pool import OnePoolTaskRunner, shared_pool
from tests.prefect.server import shared_api

HERE = Path(__file__).parent
RECORD, FIELD = "\x1e", "\x1f"  #: between the records of a log, and between their fields


#: Prefect's HTTP clients leave their sockets to the garbage collector when an event loop ends. We open none.
PREFECTS_OWN = [
    "ignore:unclosed <socket.socket:ResourceWarning",
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning",
]


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.xdist_group(f"prefect-{_needs_processes(item)}"))
            for ignored in PREFECTS_OWN:
                item.add_marker(pytest.mark.filterwarnings(ignored))


def everywhere() -> AbstractContextManager[None]:
    """Threads of Prefect's own do not inherit our settings, and would start a server of their own."""
    return context._temporary_global_settings_context(context.get_settings_context())


def _needs_processes(item: pytest.Item) -> bool:
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    given = [value for value in parameters if isinstance(value, str)]
    return "dask" in given or ("make_runner" in getattr(item, "fixturenames", ()) and "threads" not in given)


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prefect-home")


@pytest.fixture(scope="session")
def run_log(prefect_home: Path) -> Path:
    """Every warning in the log of a run, in any process."""
    return prefect_home / "runs.log"


@pytest.fixture(scope="session")
def logging_config(prefect_home: Path, run_log: Path) -> Path:
    config = yaml.safe_load(DEFAULT_LOGGING_SETTINGS_PATH.read_text())
    config["formatters"]["runs"] = {"format": f"{RECORD}%(flow_run_id)s{FIELD}%(message)s"}
    config["handlers"]["runs"] = {
        "class": "logging.FileHandler",
        "filename": str(run_log),
        "formatter": "runs",
        "level": "WARNING",
    }
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        config["loggers"][name]["handlers"].append("runs")
    path = prefect_home / "logging-of-tests.yml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture(scope="session")
def prefect_api(
    prefect_home: Path,
    prefect_database: Path,
    logging_config: Path,
    shared_servers: SharedServers,
) -> Iterator[str]:
    """The API's URL; children of the tests find it in their environment."""
    quiet = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        # A request of each client, whose answers no test looks at.
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false",
        "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
    }
    url = shared_api(shared_servers, prefect_database, quiet)
    environment = {
        **quiet,
        "PREFECT_HOME": str(prefect_home),
        "PREFECT_API_URL": url,
        "PREFECT_API_SSL_CERT_FILE": str(AUTHORITY),
        "PREFECT_LOGGING_CONFIG_PATH": str(logging_config),
    }
    updates = {
        settings.PREFECT_HOME: prefect_home,
        settings.PREFECT_API_URL: url,
        settings.PREFECT_API_SSL_CERT_FILE: str(AUTHORITY),
        settings.PREFECT_LOGGING_LEVEL: "WARNING",
        settings.PREFECT_LOGGING_TO_API_ENABLED: False,
        settings.PREFECT_CLIENT_CSRF_SUPPORT_ENABLED: False,
        settings.PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED: False,
        settings.PREFECT_LOGGING_CONFIG_PATH: logging_config,
        # Ending a heartbeat costs each flow run a second.
        settings.PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        with temporary_settings(updates), everywhere():
            setup_logging(incremental=False)
            yield url


@pytest.fixture(scope="session")
def registered(prefect_api: str) -> None:
    """The block type is on the server."""
    CachenessStorage.register_type_and_schema(_sync=True)  # type: ignore[call-arg]


@pytest.fixture
def make_store(registered: None, tmp_path: Path) -> Callable[..., CachenessStorage]:
    """Saved blocks on this test's own directory, or with the given fields."""

    def make(**fields: Any) -> CachenessStorage:
        store = CachenessStorage(**{"cache_dir": str(tmp_path / "cache"), **fields})
        with pytest.MonkeyPatch.context() as patch:
            # To compute the block's schema again takes longer than most tests.
            patch.setattr(CachenessStorage, "register_type_and_schema", lambda *args, **kwargs: None)
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


@pytest.fixture(scope="session")
def process_pool(prefect_api: str) -> Iterator[None]:
    with shared_pool(max_workers=2):
        yield


RUNNERS = ["threads", "processes", "dask"]


@pytest.fixture
def make_runner(request: pytest.FixtureRequest) -> Callable[[str], TaskRunner[Any]]:
    def make(kind: str) -> TaskRunner[Any]:
        if kind == "threads":
            return ThreadPoolTaskRunner(max_workers=8)
        if kind == "processes":
            request.getfixturevalue("process_pool")
            return OnePoolTaskRunner(max_workers=2)
        from prefect_dask import DaskTaskRunner

        return DaskTaskRunner(address=request.getfixturevalue("dask_address"))

    return make


@pytest.fixture(params=RUNNERS)
def runner(request: pytest.FixtureRequest, make_runner: Callable[[str], TaskRunner[Any]]) -> TaskRunner[Any]:
    return make_runner(request.param)


@pytest.fixture
def told(run_log: Path, prefect_api: str) -> Callable[[Any], list[str]]:
    """All warnings and errors in the log of a flow run and its task runs, in whatever process."""

    def warnings(flow_run_id: Any) -> list[str]:
        records = [record.split(FIELD) for record in run_log.read_text().split(RECORD)[1:]]
        return [message.strip() for run, message in records if run == str(flow_run_id)]

    return warnings


class Tally:
    """Counts executions in any process: a line in a file for each."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, word: str = "run") -> None:
        with self.path.open("a") as file:
            file.write(f"{word}\n")

    def words(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []

    def __len__(self) -> int:
        return len(self.words())

    def __cacheness_key__(self) -> str:
        return "a tally counts what happens and decides nothing"


@pytest.fixture
def tally(tmp_path: Path) -> Tally:
    return Tally(tmp_path / "tally")
