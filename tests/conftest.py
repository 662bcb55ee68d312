"""Servers for the whole run, a fresh database and a fresh prefix for each test, and the two worlds."""

from __future__ import annotations

import fcntl
import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from cacheness.config import Config
from cacheness.testing import servers

if TYPE_CHECKING:
    from cacheness import UnifiedCache

# Before any test module imports one of them.
pytest.register_assert_rewrite("cacheness.testing.contracts")

RUN = "CACHENESS_TEST_RUN"
EXTERNAL = frozenset({"kept_database", "postgres_url", "postgres_server", "s3_url", "s3_server"})
#: Folders whose tests start servers, clusters and processes that are killed.
SLOW = frozenset({"crash", "examples", "fuzz", "matrix", "peers", "prefect", "testing"})
SIGNING_KEY = "a key that only these tests know"
#: What Dask's processes do every few milliseconds while they wait: two idle workers take a tenth of a core by it.
QUIET_DASK = {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "200ms",
}

#: One authority, which signed nothing, in place of all of the system's: each client of S3 and of HTTP reads them all,
#: in a hundred times the time that the rest of it takes. What uses TLS here names its authority itself.
AUTHORITY = Path(__file__).parent / "certificates" / "authority.pem"
ONE_AUTHORITY = {"SSL_CERT_FILE": str(AUTHORITY), "SSL_CERT_DIR": str(AUTHORITY.parent)}


def pytest_configure(config: pytest.Config) -> None:
    """The first process of a run owns the servers; workers find them by its token."""
    # Tests measure no times: on a busy machine an example may take seconds.
    settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy")
    os.environ.update(QUIET_DASK | ONE_AUTHORITY)  # before anything imports Dask, here and in each child
    if not hasattr(config, "workerinput"):
        os.environ[RUN] = servers.SharedServers().token


def pytest_collection(session: pytest.Session) -> None:
    # Importing everything makes garbage of nearly nothing, and each look for it takes longer than the last.
    gc.disable()


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.collect()
    gc.freeze()  # what was imported stays, and no test has to look through it again
    gc.enable()


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        servers.SharedServers(os.environ.pop(RUN)).stop()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if EXTERNAL.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.external)
        if item.get_closest_marker("external") or not SLOW.isdisjoint(item.path.parts):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def shared_servers() -> servers.SharedServers:
    return servers.SharedServers(os.environ[RUN])


@pytest.fixture(scope="session")
def postgres_server(shared_servers: servers.SharedServers) -> str:
    """URL of a running PostgreSQL, shared by the whole run: create nothing outside of `postgres_url`."""
    return os.environ.get("CACHENESS_TEST_POSTGRES_URL") or shared_servers.postgresql()


@pytest.fixture(scope="session")
def s3_server(shared_servers: servers.SharedServers) -> str:
    """URL of a bucket, shared by the whole run: create nothing outside of `s3_url`."""
    return os.environ.get("CACHENESS_TEST_S3_URL") or shared_servers.s3()


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """URL of a new database, for tests that change its rights or copy it: the server takes a quarter of a second."""
    with servers.fresh_database(postgres_server) as url:
        yield url


@pytest.fixture(scope="session")
def kept_database(postgres_server: str) -> Iterator[str]:
    """A database of this process of the tests, which is emptied before each test that asks for it."""
    with servers.fresh_database(postgres_server) as url:
        yield url


@pytest.fixture
def emptied_url(kept_database: str) -> str:
    """URL of a database without entries, for tests that leave its tables as they are."""
    servers.empty_database(kept_database)
    return kept_database


@pytest.fixture
def bare_url(kept_database: str) -> Iterator[str]:
    """URL of a database without tables, for tests that make and change them."""
    servers.empty_database(kept_database, keep_tables=False)
    yield kept_database
    servers.empty_database(kept_database, keep_tables=False)


@pytest.fixture
def s3_url(s3_server: str, shared_servers: servers.SharedServers) -> Iterator[str]:
    """URL of an empty prefix that is this test's alone, with endpoint and credentials in its query."""
    ours = "CACHENESS_TEST_S3_URL" not in os.environ
    with servers.fresh_prefix(s3_server, shared_servers.bucket if ours else None) as url:
        yield url


@pytest.fixture(scope="session")
def prefect_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with all tables of a Prefect server, to be copied. Its migrations take ten seconds: once a run."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    made, unfinished = folder / "prefect.db", folder / "prefect-unfinished.db"
    with open(folder / "prefect.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            settings = {
                "PREFECT_HOME": str(folder / "prefect-home"),
                "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{unfinished}",
            }
            command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
            subprocess.run(command, env=os.environ | settings, check=True, capture_output=True)
            unfinished.rename(made)
    return made


@dataclass
class World:
    """A cache on one pair of stores. `reopen` closes it and opens it again."""

    config: Config
    cache: UnifiedCache

    def reopen(self) -> UnifiedCache:
        from cacheness import UnifiedCache

        self.cache.close()
        self.cache = UnifiedCache(self.config)
        return self.cache


@pytest.fixture(params=["sqlite+local", pytest.param("postgresql+s3", marks=pytest.mark.external)])
def world(request: pytest.FixtureRequest, tmp_path) -> Iterator[World]:
    """The same test on one machine's own stores, and on servers."""
    from cacheness import UnifiedCache

    config = Config(cache_dir=str(tmp_path / "cache"))
    if request.param == "postgresql+s3":
        config = config.but(
            metadata_backend=request.getfixturevalue("emptied_url"),
            blob_store=request.getfixturevalue("s3_url"),
            signing_key=SIGNING_KEY,
        )
    world = World(config, UnifiedCache(config))
    yield world
    world.cache.close()
