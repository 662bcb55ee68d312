from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

from cacheness.testing import servers

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
