"""Run a Prefect server, a Dask cluster, PostgreSQL and S3, each for the time of a block."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from cacheness.testing import servers

PATIENCE = 120.0  #: seconds that a service may take to start on a busy machine
#: Only the demo and errors print on the terminal; everything else is in the logs.
QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
    "DASK_LOGGING__DISTRIBUTED": "error",
    "DO_NOT_TRACK": "1",
    "PYTHONWARNINGS": "ignore:resource_tracker:UserWarning",  # semaphores that remain after Ctrl-C
}


@contextmanager
def embedded(folder: Path, *, ui: bool = False) -> Iterator[dict[str, str]]:
    """Start a local Prefect server beside SQLite and files. Yield the environment of a run."""
    with prefect_server(folder, ui=ui) as url:
        yield {**QUIET, "PREFECT_API_URL": url, "PREFECT_HOME": str(folder / "prefect"),
               "CACHENESS_CACHE_DIR": str(folder / "cache")}  # fmt: skip


@contextmanager
def cluster(folder: Path, *, ui: bool = False) -> Iterator[dict[str, str]]:
    """Start PostgreSQL, S3, a Prefect server and two Dask workers. Yield the environment of a run."""
    with ExitStack() as stack:
        shared = {
            "CACHENESS_METADATA_BACKEND": stack.enter_context(servers.postgresql()),
            "CACHENESS_BLOB_STORE": stack.enter_context(servers.s3()),
            "CACHENESS_SIGNING_KEY": secrets.token_hex(32),
        }
        settings = {**QUIET, **shared, "PREFECT_HOME": str(folder / "prefect")}
        settings["PREFECT_API_URL"] = stack.enter_context(prefect_server(folder, ui=ui))
        settings["DASK_SCHEDULER_ADDRESS"] = stack.enter_context(dask_cluster(folder, settings))
        yield settings


@contextmanager
def prefect_server(folder: Path, *, ui: bool = False) -> Iterator[str]:
    """Start a Prefect server on a free port, with a separate home. Yield the URL of its API."""
    port = _free_port()
    url = f"http://127.0.0.1:{port}/api"
    settings = {**QUIET, "PREFECT_HOME": str(folder / "prefect"), "PREFECT_UI_ENABLED": str(ui).lower(),
                "PREFECT_UI_API_URL": url}  # fmt: skip
    command = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with _running(command, folder / "prefect.log", settings) as process:
        _wait(process, folder / "prefect.log", lambda: _answers(f"{url}/health"))
        yield url


@contextmanager
def dask_cluster(folder: Path, settings: Mapping[str, str], workers: int = 2) -> Iterator[str]:
    """Start a scheduler and worker processes, as on separate machines. Yield the scheduler's address."""
    port = _free_port()
    address = f"tcp://127.0.0.1:{port}"
    scheduler = ["-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
    worker = ["-m", "distributed.cli.dask_worker", address, "--nworkers", str(workers), "--nthreads", "1",
              "--no-dashboard", "--local-directory", str(folder / "dask")]  # fmt: skip
    with (
        _running(scheduler, folder / "dask-scheduler.log", settings) as process,
        _running(worker, folder / "dask-workers.log", settings),
    ):
        _wait(process, folder / "dask-scheduler.log", lambda: _listens(port))
        yield address


@contextmanager
def nightly(folder: Path, settings: Mapping[str, str]) -> Iterator[None]:
    """Serve the repair flow on its schedule."""
    with _running(["-m", "examples.census.nightly"], folder / "nightly.log", settings):
        yield


@contextmanager
def _running(command: Sequence[str], log: Path, settings: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            env={**os.environ, **settings}, start_new_session=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(15)
            end_group(process)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all processes of its session."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _wait(process: subprocess.Popen[bytes], log: Path, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{log.stem} did not start; its log:\n{log.read_text()[-2000:]}")
        time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        with closing(urllib.request.urlopen(url, timeout=2)):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
