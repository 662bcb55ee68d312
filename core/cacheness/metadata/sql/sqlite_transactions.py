"""Share a SQLite file between threads and processes: connections, waits for the lock, errors."""

from __future__ import annotations

import contextlib
import io
import os
import sqlite3
import stat
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn, ParamSpec, TypeVar
from urllib.parse import quote

from cacheness import forks, platform
from cacheness.deadlines import retry
from cacheness.errors import (
    CachenessError,
    CodecError,
    CommitUnanswered,
    ConfigError,
    SchemaMismatch,
    StoreBusy,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)
from cacheness.file_locks import unlock, wait_in_line
from cacheness.file_systems import NETWORK_FILE_SYSTEMS, file_system_of
from cacheness.jitter import between
from cacheness.logs import logger_of
from cacheness.metadata.disk_reserve import Reserve, free_bytes
from cacheness.metadata.sql.sqlite_connections import Connections, Lease
from cacheness.metadata.sql.sqlite_log import LONG, LONGEST, LogKeeper
from cacheness.metadata.sql.statements import Statement

P = ParamSpec("P")
T = TypeVar("T")

_log = logger_of(__name__)

_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
#: Errors of a full disk besides SQLITE_FULL: a write over quota, and the log's index that cannot grow.
_NO_ROOM: Final = (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)
_NO_RIGHT: Final = "This user has no right to it: give it the right to read and write the directory's files"
_ELSEWHERE: Final = "move it out of the way to start with an empty cache, or restore it from a backup"
#: Operations that SQLite was denied, and what to do about it.
_REFUSALS: Final = {
    sqlite3.SQLITE_READONLY: "It is read-only: what is in the cache is served, and nothing can be stored there",
    sqlite3.SQLITE_CANTOPEN: "Check that the directory exists and that this user may write there, or set cache_dir",
    sqlite3.SQLITE_PERM: _NO_RIGHT,
    sqlite3.SQLITE_AUTH: _NO_RIGHT,
    sqlite3.SQLITE_NOTADB: f"It is not a SQLite database: {_ELSEWHERE}",
    sqlite3.SQLITE_CORRUPT: f"It is damaged: {_ELSEWHERE}",
}
#: SQLite's messages about existing tables that have changed.
_MIGRATED: Final = ("no such column", "has no column named")
#: Failures of the machine, which may be over at the next call.
_OUTAGES: Final = (
    *(sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_INTERRUPT),
    *(sqlite3.SQLITE_INTERNAL, sqlite3.SQLITE_ABORT, sqlite3.SQLITE_NOLFS, sqlite3.SQLITE_SCHEMA),
)
#: FULL syncs the log at each commit, so an acknowledged commit survives a power cut. NORMAL leaves
#: the sync to the next checkpoint.
_SYNCED: Final = "PRAGMA synchronous=FULL"
_UNSYNCED: Final = "PRAGMA synchronous=NORMAL"
_PAGES: Final = Statement(
    "SELECT page_size, page_count, freelist_count FROM pragma_page_size, pragma_page_count, pragma_freelist_count",
    {},
    (),
)
#: https://www.sqlite.org/pragma.html#pragma_data_version
_CHANGES: Final = "PRAGMA data_version"
_MOVE_LOG: Final = Statement("PRAGMA wal_checkpoint(PASSIVE)", {}, ())
_BEGIN_LOG_ANEW: Final = Statement("PRAGMA wal_checkpoint(RESTART)", {}, ())
_PAGE: Final = 4 << 10  #: bytes
#: The most seconds that writers wait for the log to start over.
_LOG_PATIENCE: Final = 0.03
#: Bytes of the log from which on it is emptied if the disk has little space: emptying it may need as much again.
_LOG_AT_MOST: Final = 512 << 10
#: Bytes that an entry's row may write besides its value, approximately.
_ROW: Final = 4 << 10
#: Bytes of a database that can be rewritten, to return its free pages, in a negligible time.
_SOON_REWRITTEN: Final = 16 << 20
_WORTH_REWRITING: Final = 8  #: if at least this fraction (1/n) of the pages is free
#: Seconds between two attempts of the caller that waits for the lock: the first pause, about as
#: long as a commit, and the longest.
_PAUSES: Final = 0.0002, 0.002

_Row = Sequence[Any]

_ERRORS: Final = (sqlite3.Error, UnicodeError, OverflowError)


class SqliteTransaction:
    """A transaction on one connection, in the process that began it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._inner = connection
        self._process = forks.current

    def run(self, statement: Statement, values: Mapping[str, Any]) -> list[_Row]:
        """Run a statement; return its rows."""
        return _run(self._connection, statement, values)[0]

    def run_many(self, statement: Statement, values: Sequence[Mapping[str, Any]]) -> int:
        """Run a statement for each set of values; return the number of changed rows."""
        return _run_many(self._connection, statement, values)

    def run_rows(self, statement: Statement, rows: Sequence[_Row]) -> int:
        """Run a statement for each row, which has its values in order; return the number of changed rows."""
        return _run_many(self._connection, statement, rows)

    def define(self, text: str) -> None:
        """Run a statement that defines a table or an index."""
        self._connection.execute(text)

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo the block's statements if it raises an error, and no earlier ones."""
        self._connection.execute("SAVEPOINT put")
        try:
            yield
        except BaseException:
            if self.is_open:
                self._connection.execute("ROLLBACK TO put")
                self._connection.execute("RELEASE put")
            raise
        self._connection.execute("RELEASE put")

    @property
    def is_open(self) -> bool:
        """Return whether the transaction is still open: after some errors SQLite rolls it back."""
        return self._connection.in_transaction

    def commit(self) -> None:
        """Commit the transaction."""
        self._connection.execute("COMMIT")

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._process is not forks.current:
            # A signal handler forked here; the child has the connection, and none of its locks.
            raise StoreUnavailable("this process was forked within a transaction, which its parent continues")
        return self._inner


class SqliteFile:
    """One file, shared by threads and processes."""

    def __init__(self, path: Path, busy: float) -> None:
        self.path = path.absolute()
        self._line = self.path.with_name(self.path.name + "-line")
        self.why_read_only = ""
        self._busy = busy
        #: Threads inside a transaction: one, and those that have just left. Weak, because an
        #: interruption at the wrong moment may leave one here.
        self._writers: weakref.WeakValueDictionary[int, Lease] = weakref.WeakValueDictionary()
        _refuse_network_file_system(self.path)
        self._make_directory()
        self._reserve = Reserve(self.path)
        self._find_a_way_in()
        self._connections = Connections(self._open)
        #: data_version does not count a connection's own commits, so these connections never write.
        self._watching = Connections(self._open)
        self._log = LogKeeper(self._checkpoint)

    def is_empty(self) -> bool:
        """Return True when the file has no tables."""
        return self.run(Statement("SELECT name FROM sqlite_master LIMIT 1", {}, ()), {})[0] == []

    def run(self, statement: Statement, values: Mapping[str, Any]) -> tuple[list[_Row], int]:
        """Run one statement by itself; return its rows, and how many changed."""
        return self.patiently(self._run_once, statement, values)

    def _run_once(self, statement: Statement, values: Mapping[str, Any]) -> tuple[list[_Row], int]:
        with forks.no_fork():
            connection, lease = self._take()
            try:
                return _run(connection, statement, values)
            finally:
                self._connections.give_back(lease)
                if self.why_read_only:
                    self._connections.close_before_fork()

    def last_change(self) -> tuple[sqlite3.Connection, int] | None:
        """Return a mark that stays equal until any process commits; None if SQLite does not provide it."""
        if self.why_read_only:  # another connection at each statement
            return None
        with forks.no_fork():
            try:
                connection, lease = self._take(self._watching)
            except sqlite3.Error:  # a new connection waits for no lock: the row is read instead, with patience
                return None
            try:
                return connection, next(connection.execute(_CHANGES))[0]
            except sqlite3.Error:
                return None
            finally:
                self._watching.give_back(lease)

    def require_room(self, size: int, rows: int) -> None:
        """Raise StoreFull before a put that would leave too little space to delete something afterwards.

        Data is written to the log first, and then to the database as well.
        """
        size = 2 * (size + rows * _ROW)
        if self._reserve.is_roomy(size):
            return
        if self._log_size() > _LOG_AT_MOST:
            self._empty_log()
        if not self._reserve.keep() or free_bytes(self.path.parent) < size + self._log_size():
            raise StoreFull(self._full("too little room is left on it"))

    def transact(self, work: Callable[[SqliteTransaction], T], *, lasting: bool = True, deletes: bool = False) -> T:
        """Run `work` in one transaction, which no other writer shares.

        A transaction that is not `lasting` is not synced: other processes see it at once, and a
        power cut may undo it. One that only `deletes` may use the reserved space, and is repeated
        with it if the disk is full.
        """
        try:
            return self._transact(work, lasting)
        except StoreFull:
            if not deletes:
                raise
        self._reserve.give_up()
        self._empty_log()
        result = self._transact(work, lasting)
        self._shrink()
        self._reserve.restore()
        return result

    def _transact(self, work: Callable[[SqliteTransaction], T], lasting: bool) -> T:
        if threading.get_ident() in self._writers:
            raise StoreBusy(f"a finalizer or signal handler interrupted a write to the metadata database {self.path}")
        turn = self._wait_in_line()
        # A file object ends its block in C code, which no interruption can split.
        with turn or contextlib.nullcontext():
            try:
                return self.patiently(self._attempt, work, lasting, turn)
            finally:
                if turn is not None and not turn.closed:
                    unlock(turn)

    def _attempt(self, work: Callable[[SqliteTransaction], T], lasting: bool, turn: io.FileIO | None) -> T:
        with forks.no_fork():
            connection, lease = self._take()
            try:
                connection.execute(_SYNCED if lasting else _UNSYNCED)
                connection.execute("BEGIN IMMEDIATE")
                if turn is not None:  # only the first in line requests SQLite's lock, and so may do it often
                    unlock(turn)
                before = connection.total_changes
                result = self._finish(connection, lease, work)
                self._log.note(connection.total_changes - before)
                return result
            finally:
                self._connections.give_back(lease)

    def _take(self, connections: Connections | None = None) -> tuple[sqlite3.Connection, Lease]:
        """Return a connection for a block of `no_fork`, and the lease to return."""
        refuse_after_unclean_fork(self.path)
        if self._connections.is_closed:
            raise StoreUnavailable(f"the metadata database {self.path} was closed by this process")
        return (connections or self._connections).take()

    def close(self) -> None:
        """Close every unused connection, and the others when they are returned."""
        self._log.wait()
        # SQLite does it when the last connection is closed
        if self._log.is_behind() and self._log_size() > LONG * _PAGE:
            self._checkpoint(False)
        with forks.no_fork():
            self._connections.close()
            self._watching.close()
        if not self.why_read_only:
            self._reserve.restore()

    def patiently(self, attempt: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `attempt` until the file is unlocked, or the time limit is over."""
        try:
            return attempt(*args, **kwargs)
        except _ERRORS as error:
            if not is_busy(error):
                self.refuse(error)
        try:
            return retry(partial(attempt, *args, **kwargs), is_busy, self._busy, _PAUSES)
        except _ERRORS as error:
            self.refuse(error)

    def refuse(self, error: Exception) -> NoReturn:
        """Raise our error for a driver's error. No other function maps them."""
        code = getattr(error, "sqlite_errorcode", 0)
        kind = code & 0xFF
        if kind in _BUSY:
            raise StoreBusy(
                f"the metadata database {self.path} stayed locked by other processes for longer than this call may wait"
            ) from error
        if is_full(error):
            raise StoreFull(self._full(error)) from error
        if any(sign in str(error) for sign in _MIGRATED):
            raise SchemaMismatch(
                f"the metadata database {self.path} was migrated by a newer version of cacheness while this process"
                " used it. Restart the process with that version"
            ) from error
        if kind in _REFUSALS or "no such table" in str(error):
            advice = _REFUSALS.get(kind, "Its tables are gone: open the cache again to create them")
            raise StoreRefused(f"the metadata database {self.path} refuses: {error}. {advice}") from error
        if kind in _OUTAGES:
            raise StoreUnavailable(f"the metadata database {self.path} failed: {error}") from error
        # A statement or a value that SQLite rejects: no other call is affected.
        raise CodecError(f"the metadata database {self.path} cannot store or find this: {error}") from error

    def _full(self, why: object) -> str:
        return (
            f"the disk that holds the metadata database {self.path} is full ({why}). Nothing was stored and nothing was"
            " lost: free space, or delete entries (clear, invalidate, or evict with a smaller max_bytes)"
        )

    def _log_size(self) -> int:
        try:
            return os.stat(f"{self.path}-wal").st_size
        except FileNotFoundError:
            return 0

    def _empty_log(self) -> None:
        """Checkpoint the log as far as readers permit, and truncate it."""
        self._tidy("PRAGMA wal_checkpoint(TRUNCATE)")

    def _checkpoint(self, waits: bool) -> int:
        """Checkpoint the log, in parallel with writers or, if it `waits`, alone; return its number of pages."""
        turn = self._wait_in_line() if waits else None  # no writer begins during this
        until = time.monotonic() + _LOG_PATIENCE
        with turn or contextlib.nullcontext():
            try:
                while True:
                    is_moved, pages = self._move_log(_BEGIN_LOG_ANEW if waits else _MOVE_LOG)
                    if is_moved or not waits or time.monotonic() > until:
                        return pages
                    time.sleep(between(*_PAUSES))
            except (CachenessError, sqlite3.Error) as error:
                _log.debug("%s: the log was not checkpointed: %s", self.path, error)
                return 0
            finally:
                if turn is not None:
                    unlock(turn)

    def _move_log(self, how: Statement) -> tuple[bool, int]:
        with forks.no_fork():
            connection, lease = self._take()
            try:
                [(is_locked, pages, _)] = _run(connection, how, {})[0]
                return not is_locked, pages
            finally:
                self._connections.give_back(lease)

    def _shrink(self) -> None:
        """Return the space of deleted rows to the file system, if little else is in the file."""
        self._empty_log()
        [(page, pages, free)] = self.run(_PAGES, {})[0]
        living = page * (pages - free)
        if free > pages / _WORTH_REWRITING and living < min(free_bytes(self.path.parent), _SOON_REWRITTEN):
            self._tidy("PRAGMA temp_store=MEMORY", "VACUUM", "PRAGMA temp_store=DEFAULT")
            self._empty_log()

    def _tidy(self, *texts: str) -> None:
        with forks.no_fork():
            connection, lease = self._take()
            try:
                for text in texts:
                    _run(connection, Statement(text, {}, ()), {})
            except sqlite3.Error as error:  # other processes use the file, or there is no space for it either
                _log.debug("%s: %s was not done: %s", self.path, text, error)
            finally:
                self._connections.give_back(lease)

    def _finish(self, connection: sqlite3.Connection, lease: Lease, work: Callable[[SqliteTransaction], T]) -> T:
        """Run the rest of a transaction; once begun, it is never repeated."""
        try:
            self._writers[threading.get_ident()] = lease
            transaction = SqliteTransaction(connection)
            result = work(transaction)
            self._commit(transaction)
        except _ERRORS as error:
            self.refuse(error)
        finally:
            self._writers.pop(threading.get_ident(), None)
        return result

    def _wait_in_line(self) -> io.FileIO | None:
        try:
            return wait_in_line(self._line, self._busy)
        except OSError:
            return None  # the queue is optional; SQLite's lock decides

    def _commit(self, transaction: SqliteTransaction) -> None:
        try:
            transaction.commit()
        except sqlite3.OperationalError as error:
            if is_busy(error) or is_full(error):
                raise
            # The log may contain the commit although the sync failed, and a restart would find it there.
            raise CommitUnanswered(f"the metadata database {self.path} failed to commit: {error}") from error

    def _make_directory(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreRefused(
                f"the directory {self.path.parent} cannot be made ({error}). Check the permissions of the directory"
                " above, or set cache_dir to another one"
            ) from error

    def _find_a_way_in(self) -> None:
        """Open for reading and writing if permitted; otherwise read only, so that hits are still served."""
        with contextlib.suppress(OSError):
            # SQLite would create it writable by this user only, whatever the umask; its other files get the same mode.
            os.mknod(self.path, 0o666 | stat.S_IFREG)
        if not all(os.access(path, os.W_OK) for path in (self.path, self.path.parent) if path.exists()):
            disk_is = os.statvfs(self.path.parent).f_flag & os.ST_RDONLY
            why = "is on a disk that is mounted read-only" if disk_is else "may not be written by this user"
            self.why_read_only = f"the metadata database {self.path}, or its directory, {why}"

    def _open(self) -> sqlite3.Connection:
        plain = "file:" + quote(str(self.path))
        if self.why_read_only:
            return self._open_to_read(plain)
        try:
            return self._connect(f"{plain}?mode=rwc")
        except sqlite3.Error as error:
            if not is_full(error):
                raise
        # The first connection writes some pages that processes share, even if it only reads.
        self._reserve.give_up()
        return self._connect(f"{plain}?mode=rwc")

    def _open_to_read(self, plain: str) -> sqlite3.Connection:
        # A log created by a reader would belong to it, and lock out users who may write. Without a
        # log SQLite reads only under `immutable`, which declares that nothing writes; it is set for
        # a single statement, because a writer may start.
        if self._log_size():
            with contextlib.suppress(sqlite3.Error):
                return self._connect(f"{plain}?mode=ro")
        return self._connect(f"{plain}?mode=ro&immutable=1")

    def _connect(self, url: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            url, uri=True, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        try:
            if not self.why_read_only:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute(f"PRAGMA wal_autocheckpoint={LONGEST}")
                # If SQLite was built to overwrite deleted data, a deletion would write as much as it frees.
                connection.execute("PRAGMA secure_delete=OFF")
                if platform.SYNCS_IN_TWO_STEPS:
                    connection.execute("PRAGMA fullfsync=ON")
            connection.execute("SELECT 1 FROM sqlite_master LIMIT 1")
        except sqlite3.Error:
            connection.close()
            raise
        return connection


def refuse_after_unclean_fork(path: Path) -> None:
    """Raise StoreRefused in a child that was forked while SQLite was in use."""
    # Checked inside `no_fork`: a fork may have happened while this thread waited to enter.
    if reason := forks.refusal():
        raise StoreRefused(
            f"the metadata database {path} cannot be used in this process: {reason}, and what SQLite keeps in memory is"
            " not usable then. Start processes by forkserver or spawn, or fork before other threads use the cache"
        )


def is_busy(error: BaseException | None) -> bool:
    """Return True when a driver's error means that another connection holds the lock."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY


def is_full(error: BaseException) -> bool:
    """Return True when a driver's error means that there is no space."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_FULL or code in _NO_ROOM


def _run(connection: sqlite3.Connection, statement: Statement, values: Mapping[str, Any]) -> tuple[list[_Row], int]:
    if statement.constants:
        values = {**statement.constants, **values}
    cursor = connection.execute(statement.text, values)
    try:
        return cursor.fetchall(), cursor.rowcount
    finally:
        cursor.close()  # an error's traceback could keep it alive, and with it the file, after the connection is closed


def _run_many(connection: sqlite3.Connection, statement: Statement, values: Sequence[Any]) -> int:
    if statement.constants:
        values = [{**statement.constants, **each} for each in values]
    cursor = connection.executemany(statement.text, values)
    try:
        return cursor.rowcount
    finally:
        cursor.close()


def _refuse_network_file_system(path: Path) -> None:
    # SQLite's write-ahead log needs shared memory between processes, which these file systems lack.
    kind = file_system_of(path)
    if kind in NETWORK_FILE_SYSTEMS:
        raise ConfigError(
            f"{path.parent} is on a network file system ({kind}), where SQLite loses data when several machines"
            " write. Set cache_dir to a local disk, or share the cache through PostgreSQL"
            " (metadata_backend='postgresql://…')"
        )
