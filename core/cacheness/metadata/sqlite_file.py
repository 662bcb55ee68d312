"""A SQLite file as many threads and processes share it: connections, waiting for the lock, errors."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import quote

from cacheness.deadlines import patience as patient
from cacheness.deadlines import patience_or
from cacheness.errors import CodecError, CommitUnanswered, ConfigError, StoreFull, StoreRefused, StoreUnavailable
from cacheness.jitter import between
from cacheness.metadata.file_locks import wait_in_line
from cacheness.metadata.statements import Statement

T = TypeVar("T")

#: SQLite's write-ahead log shares memory between processes, which these cannot do.
NETWORK_FILE_SYSTEMS: Final = (
    *("9p", "afs", "beegfs", "ceph", "cifs", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "gfs2"),
    *("glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "smb2", "smb3", "smbfs"),
)
MOUNTS: Final = Path("/proc/mounts")
_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
#: What a full disk looks like, apart from SQLITE_FULL: a write over quota, and the log's index that cannot grow.
_NO_ROOM: Final = (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)
#: FULL syncs the log at each commit: what was acknowledged survives a power cut. NORMAL leaves that to the next one.
_SYNCED: Final = "PRAGMA synchronous=FULL"
_UNSYNCED: Final = "PRAGMA synchronous=NORMAL"
_SHORTEST_WAIT: Final = 0.0002
_LONGEST_WAIT: Final = 0.002

_Row = Sequence[Any]

# A connection must not be closed by a process that has not opened it: these are never collected.
_inherited: list[sqlite3.Connection] = []


class SqliteTransaction:
    """A transaction under way on one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def run(self, statement: Statement, values: Mapping[str, Any]) -> list[_Row]:
        """Run a statement; its rows."""
        return _run(self._connection, statement, values)[0]

    def run_many(self, statement: Statement, values: Sequence[Mapping[str, Any]]) -> int:
        """Run a statement for each set of values; the number of rows that changed."""
        return sum(_run(self._connection, statement, each)[1] for each in values)

    def define(self, text: str) -> None:
        """Run a statement that defines a table or an index."""
        self._connection.execute(text)


class SqliteFile:
    """Connections to one file. A thread has one to itself for as long as it uses it."""

    def __init__(self, path: Path, busy: float) -> None:
        self.path = path.absolute()
        self._line = self.path.with_name(self.path.name + "-line")
        self.why_read_only = ""
        self._busy = busy
        self._idle: list[sqlite3.Connection] = []
        self._pid = os.getpid()
        self._closed = False
        _refuse_network_file_system(self.path)
        self._make_room()
        self._url = self._find_a_way_in()

    def is_empty(self) -> bool:
        """Whether the file holds no tables."""
        return self.run(Statement("SELECT name FROM sqlite_master LIMIT 1", {}, ()), {})[0] == []

    def run(self, statement: Statement, values: Mapping[str, Any]) -> tuple[list[_Row], int]:
        """Run one statement by itself; its rows, and how many changed."""
        connection = self._take()
        try:
            return self.patiently(lambda: _run(connection, statement, values))
        finally:
            self._give_back(connection)

    def transact(self, work: Callable[[SqliteTransaction], T], *, lasting: bool = True) -> T:
        """Run `work` in one transaction, which no other writer shares.

        What is not `lasting` is not synced: others see it at once, and a power cut may undo it.
        """
        connection = self._take()
        try:
            connection.execute(_SYNCED if lasting else _UNSYNCED)
            self._begin(connection)
            result = work(SqliteTransaction(connection))
            self._commit(connection)
            return result
        except (sqlite3.Error, UnicodeError, OverflowError) as error:
            self.refuse(error)
        finally:
            self._give_back(connection)

    def _take(self) -> sqlite3.Connection:
        """A connection that nobody else uses until it is given back."""
        if self._pid != os.getpid():
            self._forget_after_fork()
        try:
            return self._idle.pop()
        except IndexError:
            return self._connect(self._url)

    def _give_back(self, connection: sqlite3.Connection) -> None:
        """Let others use a connection."""
        if self._closed:
            connection.close()
            return
        if connection.in_transaction:
            connection.rollback()
        self._idle.append(connection)

    def close(self) -> None:
        """Close every connection that is not in use, and the others when they come back."""
        self._closed = True
        while self._idle and self._pid == os.getpid():
            self._idle.pop().close()

    def patiently(self, attempt: Callable[[], T]) -> T:
        """Run `attempt` until it finds the file unlocked, or patience ends."""
        try:
            return attempt()
        except (sqlite3.Error, UnicodeError, OverflowError) as error:
            if not is_busy(error):
                self.refuse(error)
        return self._again(attempt)

    def refuse(self, error: Exception) -> NoReturn:
        """Raise what a driver's error means to a caller. The only place that knows."""
        code = getattr(error, "sqlite_errorcode", 0)
        kind = code & 0xFF
        if kind in _BUSY:
            raise StoreUnavailable(
                f"the metadata database {self.path} stayed locked by other processes for {patience_or(self._busy):g} s"
            ) from error
        if is_full(error):
            raise StoreFull(
                f"the disk that holds the metadata database {self.path} is full ({error}). Nothing was stored and"
                " nothing was lost: make room, or set max_bytes to a smaller limit."
            ) from error
        if kind in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
            raise StoreRefused(
                f"the metadata database {self.path} cannot be opened or written ({error}). Check that the directory"
                " exists and that this user may write to it, or set cache_dir to another one."
            ) from error
        if kind in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            raise StoreRefused(
                f"{self.path} is not a SQLite database, or is damaged ({error}). Move it out of the way to start"
                " with an empty cache, or restore it from a backup."
            ) from error
        if isinstance(error, (UnicodeError, OverflowError, sqlite3.DataError, sqlite3.IntegrityError)):
            raise CodecError(f"the metadata database {self.path} cannot store this entry: {error}") from error
        raise StoreUnavailable(f"the metadata database {self.path} failed: {error}") from error

    def _again(self, attempt: Callable[[], T]) -> T:
        deadline = time.monotonic() + patience_or(self._busy)
        while True:
            time.sleep(between(_SHORTEST_WAIT, _LONGEST_WAIT))
            try:
                return attempt()
            except sqlite3.Error as error:
                if not is_busy(error) or time.monotonic() > deadline:
                    self.refuse(error)

    def _begin(self, connection: sqlite3.Connection) -> None:
        began = time.monotonic()
        patience = patience_or(self._busy)
        turn = self._wait_in_line(patience)
        try:
            # Only who is first in line asks for SQLite's own lock, and so may ask often.
            with patient(max(patience - (time.monotonic() - began), 0.0)):
                self.patiently(lambda: connection.execute("BEGIN IMMEDIATE"))
        finally:
            if turn is not None:
                os.close(turn)

    def _wait_in_line(self, patience: float) -> int | None:
        try:
            return wait_in_line(self._line, patience / 2)
        except OSError:
            return None  # a line is a courtesy; SQLite's lock is what counts

    def _commit(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if is_busy(error) or is_full(error):
                raise
            # The log may hold the commit although it could not be synced, and a restart would find it there.
            raise CommitUnanswered(f"the metadata database {self.path} failed to commit: {error}") from error

    def _make_room(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreRefused(
                f"the directory {self.path.parent} cannot be made ({error}). Check the permissions of the directory"
                " above, or set cache_dir to another one."
            ) from error

    def _find_a_way_in(self) -> str:
        """Read and write where we may; else read only, so that hits are still served."""
        plain = "file:" + quote(str(self.path))
        ways = [f"{plain}?mode=rwc"]
        if not os.access(self.path if self.path.exists() else self.path.parent, os.W_OK) or not os.access(
            self.path.parent, os.W_OK
        ):
            self.why_read_only = f"the metadata database {self.path} is on a read-only directory or disk"
            # Without a log to share, only a promise that nobody writes lets SQLite read.
            ways = [f"{plain}?mode=ro", f"{plain}?mode=ro&immutable=1"]
        for way in ways[:-1]:
            try:
                self._connect(way).close()
                return way
            except StoreRefused:
                continue
        return ways[-1]

    def _connect(self, url: str) -> sqlite3.Connection:
        if self._closed:
            raise StoreUnavailable(f"the metadata database {self.path} was closed by this process")
        return self.patiently(lambda: self._connect_once(url))

    def _connect_once(self, url: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            url, uri=True, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        try:
            if not self.why_read_only:
                connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("SELECT 1 FROM sqlite_master LIMIT 1")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _forget_after_fork(self) -> None:
        _inherited.extend(self._idle)
        self._idle = []
        self._pid = os.getpid()


def is_busy(error: BaseException | None) -> bool:
    """Whether a driver's error says that somebody else holds the lock."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY


def is_full(error: BaseException) -> bool:
    """Whether a driver's error says that there is no room."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_FULL or code in _NO_ROOM


def file_system_of(path: Path, mounts: str) -> str:
    """The type of the file system that holds a path, from the text of /proc/mounts."""
    best, kind = "", ""
    for line in mounts.splitlines():
        _, point, fstype, *_ = line.split(" ")
        point = point.encode().decode("unicode_escape")
        if path.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, fstype
    return kind


def _run(connection: sqlite3.Connection, statement: Statement, values: Mapping[str, Any]) -> tuple[list[_Row], int]:
    if statement.constants:
        values = {**statement.constants, **values}
    cursor = connection.execute(statement.text, values)
    return cursor.fetchall(), cursor.rowcount


def _refuse_network_file_system(path: Path) -> None:
    try:
        mounts = MOUNTS.read_text()
    except OSError:
        return
    kind = file_system_of(path.resolve(), mounts)
    if kind in NETWORK_FILE_SYSTEMS:
        raise ConfigError(
            f"{path.parent} is on a network file system ({kind}), where SQLite loses data when several machines"
            " write. Set cache_dir to a local disk, or share the cache through PostgreSQL"
            " (metadata_backend='postgresql://…')."
        )
