"""A Prefect server that the processes of one test run share, and that ends with the first of them."""

from __future__ import annotations

import shutil
import sys
import urllib.request
from pathlib import Path

from cacheness.testing import servers

#: Parts of the server that look at all runs every few seconds, or write each task run down, which takes three quarters
#: of the time that the server spends on one. No test looks at these.
UNUSED_SERVICES = (
    *("LATE_RUNS", "FOREMAN", "PAUSE_EXPIRATIONS", "CANCELLATION_CLEANUP", "REPOSSESSOR"),
    *("CLEANUP_RECONCILER", "DB_VACUUM", "TASK_RUN_RECORDER"),
)


def shared_api(shared: servers.SharedServers, database: Path, environment: dict[str, str]) -> str:
    """The API's URL, on a copy of a database. A server that ends while it starts is started once more."""

    def start(folder: str) -> servers.Server:
        try:
            return _start(folder, database, shared._owner, environment)
        except RuntimeError as error:
            print(error)
            Path(folder).mkdir(exist_ok=True)  # it went with the first server
            return _start(folder, database, shared._owner, environment)

    return shared._ask("prefect", start)


def _start(folder: str, database: Path, owner: int, environment: dict[str, str]) -> servers.Server:
    shutil.copy(database, Path(folder, "prefect.db"))
    port = servers._free_port()
    url = f"http://127.0.0.1:{port}/api"
    command = [
        sys.executable,
        "-m",
        "prefect",
        "server",
        "start",
        "--no-ui",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    own = {
        "PREFECT_API_URL": url,
        "PREFECT_HOME": folder,
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{folder}/prefect.db",
        "PREFECT_SERVER_DATABASE_MIGRATE_ON_START": "false",
        **{f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in UNUSED_SERVICES},
    }
    task = servers._task(folder, command, stop="SIGTERM", owner=owner, environment={**environment, **own})
    return servers.Server(task, servers._spawn(task), lambda: url if _is_healthy(url) else None)


def _is_healthy(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/health", timeout=2).close()
    except OSError:
        return False
    return True
