"""Poolers in transaction mode: each transaction may meet another server connection than the last one.

PgBouncer is one, where it is installed. The small one here does the same on every machine, and never
gives a client the same connection twice in a row, so that what relies on a session shows at once.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import queue
import selectors
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg

PGBOUNCER = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
_CANCEL = 80877102
_ENCRYPTION = (80877103, 80877104)


class SmallPooler:
    """A pooler for one database."""

    def __init__(self, url: str, connections: int = 3) -> None:
        self._server_url = url
        self._ends: list[Any] = []
        self._servers: queue.Queue[socket.socket] = queue.Queue()
        for _ in range(connections):
            self._connect()
        self._listener = socket.create_server(("127.0.0.1", 0))
        host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = urlunsplit(urlsplit(url)._replace(netloc=f"{urlsplit(url).username}@{host}"))
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._ends:
            end.close()

    def _connect(self) -> None:
        owner = psycopg.connect(self._server_url, autocommit=True)
        server = socket.socket(fileno=os.dup(owner.fileno()))
        server.settimeout(10)
        self._ends += (server, owner)
        self._servers.put(server)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            if self._greet(client):
                while first := client.recv(1 << 16):
                    if first[:1] == b"X" or not self._transaction(client, first):
                        return

    def _greet(self, client: socket.socket) -> bool:
        while True:
            (length,) = struct.unpack("!i", _exactly(client, 4))
            (code,) = struct.unpack("!i", _exactly(client, length - 4)[:4])
            if code not in _ENCRYPTION:
                break
            client.sendall(b"N")
        if code == _CANCEL:
            return False
        settings = {"server_version": "18.0", "client_encoding": "UTF8", "standard_conforming_strings": "on"}
        client.sendall(_message(b"R", struct.pack("!i", 0)))
        for name, value in settings.items():
            client.sendall(_message(b"S", f"{name}\0{value}\0".encode()))
        client.sendall(_message(b"K", struct.pack("!ii", 0x7FFFFFFF, 0)) + _message(b"Z", b"I"))
        return True

    def _transaction(self, client: socket.socket, first: bytes) -> bool:
        """Lend a server connection until it is idle again; whether the client is still there."""
        server = self._servers.get(timeout=30)
        asked, answers = _Frames(b"SQ"), _Frames(b"Z")
        waiting = asked.count(first)
        server.sendall(first)
        with selectors.DefaultSelector() as ready:
            ready.register(client, selectors.EVENT_READ)
            ready.register(server, selectors.EVENT_READ)
            while waiting or answers.last != b"I":
                for key, _ in ready.select():
                    data = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                    if not data:
                        server.shutdown(socket.SHUT_RDWR)  # in the middle of a transaction: nobody may have it
                        self._connect()
                        return False
                    if key.fileobj is client:
                        waiting += asked.count(data)
                        server.sendall(data)
                    else:
                        waiting -= answers.count(data)
                        client.sendall(data)
        self._servers.put(server)
        return True


def _exactly(client: socket.socket, size: int) -> bytes:
    """So many bytes. Raises ConnectionError where the client is gone, as one that a test kills may be."""
    data = client.recv(size, socket.MSG_WAITALL)
    if len(data) < size:
        raise ConnectionError("the client went away before it said what it wants")
    return data


class _Frames:
    """Counts messages of some kinds in a stream, and keeps the body of the last one."""

    def __init__(self, kinds: bytes) -> None:
        self._kinds = kinds
        self._rest = b""
        self.last = b""

    def count(self, data: bytes) -> int:
        self._rest += data
        found = 0
        while len(self._rest) >= 5:
            end = 1 + struct.unpack("!i", self._rest[1:5])[0]
            if len(self._rest) < end:
                break
            if self._rest[:1] in self._kinds:
                found += 1
                self.last = self._rest[5:end]
            self._rest = self._rest[end:]
        return found


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


@contextmanager
def small_pooler(url: str, folder: Path, connections: int = 3) -> Iterator[str]:
    """The small pooler before a database: its URL."""
    with contextlib.closing(SmallPooler(url, connections)) as pooler:
        yield pooler.url


@contextmanager
def pgbouncer(url: str, folder: Path, connections: int = 3) -> Iterator[str]:
    """PgBouncer in transaction mode before a database: its URL."""
    assert PGBOUNCER is not None
    parts = urlsplit(url)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (folder / "users").write_text(f'"{parts.username}" "{parts.password}"\n')
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={parts.hostname} port={parts.port}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = plain\n"
        f"auth_file = {folder / 'users'}\npool_mode = transaction\ndefault_pool_size = {connections}\n"
        "max_client_conn = 500\n"
    )
    command = [PGBOUNCER, str(folder / "pgbouncer.ini")]
    if os.geteuid() == 0:  # it refuses to run as root
        nobody = pwd.getpwnam("nobody").pw_uid
        for path in (folder, folder / "users", folder / "pgbouncer.ini"):
            os.chown(path, nobody, -1)
        command = [PGBOUNCER, "-q", "-u", "nobody", str(folder / "pgbouncer.ini")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(port, process)
            host = f"{parts.username}:{parts.password}@127.0.0.1:{port}"
            yield urlunsplit(parts._replace(netloc=host))
        finally:
            process.terminate()


POOLERS = {"small": small_pooler} | ({"pgbouncer": pgbouncer} if PGBOUNCER else {})


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert process.poll() is None, "PgBouncer did not start"
        time.sleep(0.02)
