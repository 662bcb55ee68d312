"""Pool connections to PostgreSQL, limited in number and time; the only module with psycopg's errors."""

from __future__ import annotations

import os
import re
import select
import socket
import time
import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from cacheness import forks
from cacheness.config import redacted
from cacheness.deadlines import Limits, retry, waiting
from cacheness.errors import (
    CachenessError,
    CodecError,
    ConfigError,
    MissingExtra,
    SchemaMismatch,
    StoreBusy,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)
from cacheness.metadata.sql.statements import Statement

try:
    import psycopg
    from psycopg.pq import TransactionStatus
    from psycopg.types.array import ListBinaryDumper
except ImportError as error:
    raise MissingExtra.of(error, "psycopg", "postgres", "a PostgreSQL metadata store") from error

T = TypeVar("T")
_Row = Sequence[Any]

#: Connections that one process opens to one database, unless the URL has `?pool_size=`.
POOL_SIZE: Final = 8
#: Deadlock, serialization failure, lock timeout.
_CONFLICTS: Final = frozenset({"40P01", "40001", "55P03"})
#: Prepared statements that a pooler gave to another client.
_MIXED_UP: Final = frozenset({"26000", "42P05"})
#: The server shuts down, or ends this connection; whether it had committed is unknown.
_LOST: Final = ("57P", "08")
_REFUSED: Final = ("0A", "28", "3D", "42501", "25006", "3F", "42P01", "0L", "0P")
#: No resources, an operator's action, the machine, internal errors of the server.
_OUTAGES: Final = ("53", "57", "58", "F0", "XX")
#: psycopg's message about the connection itself, without a code of the server.
_CONNECTION_ERRORS: Final = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError)
#: The message of a refused connection; on connecting, libpq returns the text but not the code.
#: In libpq's messages, which our own advice replaces.
_QUESTION: Final = re.compile(r" ?\bIs the server running [^?]*\?")
_REFUSALS: Final = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|does not exist|permission denied"
    r"|is not permitted to log in|role .* is not"
)
#: Privileges that a statement needs on the tables that it names.
_RIGHTS: Final = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE)\b")
_CANCEL_SECONDS: Final = 1.0
#: Seconds between two attempts after a conflict.
_PAUSES: Final = 0.01, 0.5
#: Seconds after which an unused connection is closed, by the thread that returns the next one.
IDLE_SECONDS: Final = 120.0
#: How long the measured difference between two clocks is used.
_CLOCK_KEPT: Final = 60 * 1_000_000
#: A clock that cannot be set; the first one continues while a machine sleeps.
_STEADY: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

# Kept for ever in a forked child: closing them takes locks of OpenSSL that a thread of the parent may have held.
_inherited: list[psycopg.Connection[Any]] = []


class Lost(StoreUnavailable):
    """The connection was lost, or no answer arrived in time, during a statement."""


class Conflict(StoreBusy):
    """The server rolled back in favour of another transaction; a repetition may succeed."""


class _Deadline(psycopg.OperationalError):
    """No answer arrived in time."""


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection on which no call takes longer than `seconds`, whatever the server does.

    A server's own timeouts end with the server: a stopped one keeps its clients waiting for ever.
    """

    seconds = 5.0
    asked = ""  #: the last statement
    given_back = 0.0  #: time of the last use

    def wait(self, gen: Generator[Any, Any, T], *more: Any, **named: Any) -> T:
        """Let psycopg wait, but check the time whenever it wakes, which is ten times a second."""
        return super().wait(_bounded(gen, time.monotonic() + self.seconds), *more, **named)

    def prepare_to_serve(self, seconds: float) -> None:
        """Set the time limit, and return what every call needs."""
        self.seconds = seconds
        # Lists are sent as bytes; by default psycopg writes lists of texts and bytes as text, with
        # two characters per byte.
        self.adapters.register_dumper(list, ListBinaryDumper)
        self.reused = self.cursor(binary=True)
        self._poll = select.poll()
        self._poll.register(self.fileno(), select.POLLIN)

    @property
    def is_usable(self) -> bool:
        """Return True when the connection is free, and the server has not closed it."""
        # An idle server sends nothing: data to read means that it closes the connection.
        idle = self.pgconn.transaction_status == TransactionStatus.IDLE
        return not self.closed and idle and not self._poll.poll(0)

    def run(self, statement: Statement, values: Mapping[str, Any]) -> tuple[list[_Row], int]:
        """Run one statement; return its rows, and how many changed."""
        cursor, self.asked = self.reused, statement.text
        cursor.execute(statement.text, _in_order(statement, values))
        # Reading `cursor.description` would build a description of every column.
        has_rows = cursor.pgresult is not None and cursor.pgresult.nfields > 0
        return list(cursor.fetchall()) if has_rows else [], cursor.rowcount


class PostgresqlTransaction:
    """An open transaction on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def run(self, statement: Statement, values: Mapping[str, Any]) -> list[_Row]:
        """Run a statement; return its rows."""
        return self._connection.run(statement, values)[0]

    def run_many(self, statement: Statement, values: Sequence[Mapping[str, Any]]) -> int:
        """Run a statement for each set of values; return the number of changed rows."""
        cursor, self._connection.asked = self._connection.reused, statement.text
        cursor.executemany(statement.text, [_in_order(statement, each) for each in values])
        return max(cursor.rowcount, 0)

    def define(self, text: str) -> None:
        """Run a statement that defines a table, index or other object."""
        self._connection.execute(text.encode())


class Pool:
    """Connections to one database, shared by the threads of a process."""

    def __init__(self, url: str, limits: Limits, hello: str) -> None:
        self.name = name_of(url)
        self._offset = 0  #: microseconds by which the server's clock is ahead of the monotonic clock here
        self._measured_at = -_CLOCK_KEPT
        self._url = url
        self._size = _read_url(url)[1]
        self._limits = limits
        self._hello = hello
        self._closed = False
        self.is_pooled = False  #: a pooler is in between, as the newest connection shows
        self._was_mixed_up = False
        self._begin()
        forks.watch_forks(self)

    def now(self) -> int:
        """Return microseconds since the epoch by the server's clock, as last measured."""
        return _steady() + self._offset

    def measure_clock(self) -> None:
        """Read the server's clock."""
        connection = self._take()
        connection.seconds = self._limits.statement
        try:
            self._measure(connection)
        except psycopg.Error as error:
            self._refuse(error, connection)
        finally:
            self._give_back(connection)

    def run(self, statement: Statement, values: Mapping[str, Any], seconds: float = 0.0) -> tuple[list[_Row], int]:
        """Run one statement by itself, in one round trip; return its rows, and how many changed.

        `seconds` are added to the usual limit of a statement. Once a minute the server's clock is
        read as well: a session's heartbeat uses this method, and so does a process that only reads.
        """
        connection = self._take()
        connection.seconds = self._limits.statement + seconds
        try:
            if _steady() - self._measured_at > _CLOCK_KEPT:
                self._measure(connection)
            return connection.run(statement, values)
        except (psycopg.Error, UnicodeError) as error:
            self._refuse(error, connection)
        finally:
            self._give_back(connection)

    def transact(self, work: Callable[[PostgresqlTransaction], T], seconds: float = 0.0) -> T:
        """Run `work` in one transaction; `seconds` are added to the usual limit of a statement."""
        connection = self._take()
        connection.seconds = self._limits.statement + seconds
        committing = False
        try:
            connection.execute("BEGIN", prepare=False)
            result = work(PostgresqlTransaction(connection))
            committing = True
            connection.execute("COMMIT", prepare=False)
            return result
        except (psycopg.Error, UnicodeError) as error:
            try:
                self._refuse(error, connection)
            except Lost as lost:
                if committing:
                    raise
                raise StoreUnavailable(str(lost)) from error
        except CachenessError:
            # The server works, so a rollback costs less than a new connection.
            with suppress(psycopg.Error):
                connection.execute("ROLLBACK", prepare=False)
            raise
        finally:
            self._give_back(connection)

    def settle(self, attempt: Callable[[], T]) -> T:
        """Run `attempt`, again after a conflict, until a statement's time limit."""
        return retry(attempt, _is_conflict, self._limits.statement, _PAUSES)

    def close(self) -> None:
        """Close every unused connection, and the others when they are returned."""
        self._closed = True
        self._purge()

    def reset_after_fork(self) -> None:
        """In a child, drop the parent's connections: copies would keep them open after the parent's end."""
        for connection in list(self._open):
            if not connection.closed:
                _inherited.append(connection)
                _hang_up_here(connection)
        self._begin()

    def _begin(self) -> None:
        self._idle: list[Connection] = []
        self._open: weakref.WeakSet[Connection] = weakref.WeakSet()
        # A semaphore implemented in C; `threading`'s takes ten times as long.
        self._permits: SimpleQueue[None] = SimpleQueue()
        for _ in range(self._size):
            self._permits.put(None)

    def _take(self) -> Connection:
        try:
            self._permits.get(block=False)
        except Empty:
            self._wait_for_permit()
        try:
            return self._usable() or self._connect()
        except BaseException:
            self._permits.put(None)
            raise

    def _wait_for_permit(self) -> None:
        began = time.monotonic()
        try:
            with waiting(self._limits.statement) as deadline:
                self._permits.get(timeout=max(deadline - began, 0.0))
        except Empty:
            raise StoreBusy(
                f"all {self._size} connections to {self.name} stayed busy for {time.monotonic() - began:.1f} s."
                " Use fewer threads, or allow more connections with ?pool_size= in the URL"
            ) from None

    def _usable(self) -> Connection | None:
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was quicker
                return None
            if connection.is_usable:
                return connection
            connection.close()
        return None

    def _give_back(self, connection: Connection) -> None:
        if connection not in self._open:
            return  # the parent's connection, in a child that a signal handler forked during a call
        if self._closed or connection.closed or connection.pgconn.transaction_status != TransactionStatus.IDLE:
            connection.close()
        else:
            connection.given_back = time.monotonic()
            self._idle.append(connection)
            self._close_unused(connection.given_back - IDLE_SECONDS)
        self._permits.put(None)

    def _close_unused(self, since: float) -> None:
        """Close connections that were unused since then. The last one returned is the first to be used again."""
        with suppress(IndexError):  # other threads took them all
            while self._idle[0].given_back < since:
                self._idle.pop(0).close()

    def _connect(self) -> Connection:
        if self._closed:
            raise StoreUnavailable(f"{self.name} was closed by this process")
        connection = connect(self._url, self._limits, cursor_factory=psycopg.RawCursor)
        self._open.add(connection)
        connection.prepare_to_serve(self._limits.statement)
        try:
            self._greet(connection)
        except psycopg.Error as error:
            connection.close()
            self._refuse(error, connection)
        return connection

    def _greet(self, connection: Connection) -> None:
        pid = self._measure(connection)
        # Behind a pooler each statement may run in another server process, which does not have our
        # prepared statements. A pooler is detected because it cannot return the process id of the
        # server to its client.
        self.is_pooled = pid != connection.info.backend_pid or self._was_mixed_up
        if self.is_pooled:
            connection.prepare_threshold = None

    def _measure(self, connection: Connection) -> int:
        """Compare the server's clock with the monotonic one; return the id of the server's process."""
        asked = _steady()
        connection.reused.execute(self._hello.encode())
        [(there, pid)] = connection.reused.fetchall()
        answered = _steady()
        self._offset, self._measured_at = there - (asked + answered) // 2, answered
        return int(pid)

    def _purge(self) -> None:
        while self._idle:
            try:
                self._idle.pop().close()
            except IndexError:
                return

    def _refuse(self, error: Exception, connection: Connection) -> NoReturn:
        code = getattr(error, "sqlstate", None) or ""
        if code in _MIXED_UP:
            self._was_mixed_up = True
            connection.close()
        try:
            refuse(error, self.name, connection.asked)
        except Lost:
            self._hang_up(connection)
            raise

    def _hang_up(self, connection: Connection) -> None:
        if connection not in self._open:
            return  # the parent continues to use it, so its statement must not be cancelled
        # Without a cancellation, the statement would continue, and keep its locks, on a server that is only slow.
        if not connection.closed and psycopg.capabilities.has_cancel_safe():
            with suppress(psycopg.Error):
                connection.cancel_safe(timeout=_CANCEL_SECONDS)
        connection.close()
        # One lost connection often means that all are lost; new ones cost milliseconds.
        self._purge()


def _hang_up_here(connection: Connection) -> None:
    """Replace a connection's socket by a dead one, without sending anything to the server."""
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        os.dup2(ours.fileno(), connection.fileno(), inheritable=False)


def connect(url: str, limits: Limits, **options: Any) -> Connection:
    """Open a connection with autocommit; raise our error if it fails."""
    try:
        return Connection.connect(
            _read_url(url)[0],
            autocommit=True,
            connect_timeout=max(1, round(limits.connect)),
            fallback_application_name="cacheness",
            **options,
        )
    except psycopg.Error as error:
        text, name = _sentence(error), name_of(url)
        if isinstance(error, psycopg.ProgrammingError):
            raise ConfigError(f"{name} has an address that cannot be read: {text}") from None
        if _REFUSALS.search(text):
            raise StoreRefused(
                f"{name} refuses the connection: {text}. Check the user, the password and the database's name in"
                " metadata_backend, and that the user may connect"
            ) from error
        raise StoreUnavailable(
            f"{name} cannot be reached: {text}. Check that the server runs and can be reached from here"
        ) from error


def refuse(error: Exception, name: str, asked: str = "") -> NoReturn:
    """Raise our error for a driver's error. No other function maps them. `asked` is the statement."""
    code = getattr(error, "sqlstate", None) or ""
    text = _sentence(error)
    if code in _CONFLICTS or code in _MIXED_UP:
        raise Conflict(f"{name} gave way to others until the time was over: {text}") from error
    if code == "42703":  # the column existed when the store was opened
        raise SchemaMismatch(
            f"{name} was migrated by a newer version of cacheness while this process used it ({text}). Restart the"
            " process with that version"
        ) from error
    if code.startswith(_REFUSED):
        raise StoreRefused(f"{name} refuses: {text}. {_advice(code, asked)}") from error
    if code in ("53100", "54000"):
        raise StoreFull(f"{name} has no room: {text}. Nothing was stored and nothing was lost") from error
    if code.startswith(_LOST) or (not code and isinstance(error, _CONNECTION_ERRORS)):
        raise Lost(f"{name} was lost: {text}") from error
    if code.startswith(_OUTAGES):
        raise StoreUnavailable(f"{name} failed: {text} (SQLSTATE {code})") from error
    # A statement or a value that the server rejects: no other call is affected.
    raise CodecError(f"{name} cannot store or find this: {text}") from error


def name_of(url: str) -> str:
    """Return a database's address without secrets, for messages."""
    return f"the metadata database {redacted(url)}"


def _is_conflict(error: Exception) -> bool:
    return isinstance(error, Conflict)


def _steady() -> int:
    return time.clock_gettime_ns(_STEADY) // 1000


def _bounded(gen: Generator[Any, Any, T], deadline: float) -> Generator[Any, Any, T]:
    try:
        state = next(gen)
        while True:
            ready = yield state
            if time.monotonic() > deadline:
                raise _Deadline("no answer in time")
            state = gen.send(ready)
    except StopIteration as done:
        result: T = done.value
        return result


def _in_order(statement: Statement, values: Mapping[str, Any]) -> list[Any]:
    if statement.constants:
        values = {**statement.constants, **values}
    return [values[name] for name in statement.order]


def _read_url(url: str) -> tuple[str, int]:
    """Return the address for libpq, and the number of connections."""
    parts = urlsplit(url)
    options = parse_qsl(parts.query, keep_blank_values=True)
    sizes = [value for name, value in options if name == "pool_size"]
    if sizes and not (sizes[-1].isdecimal() and int(sizes[-1]) > 0):
        raise ConfigError(f"pool_size={sizes[-1]!r} is not a number of connections")
    rest = urlencode([(name, value) for name, value in options if name != "pool_size"], quote_via=quote)
    scheme = parts.scheme.partition("+")[0]
    return urlunsplit(parts._replace(scheme=scheme, query=rest)), int(sizes[-1]) if sizes else POOL_SIZE


def _sentence(error: Exception) -> str:
    """Return a driver's message in one line, without its question. It never contains the password."""
    return _QUESTION.sub("", " ".join(str(error).split())).rstrip(".")


def _advice(code: str, asked: str) -> str:
    if code == "25006":
        return "It is read-only, a replica perhaps: what is in the cache is served, nothing can be stored there"
    if code == "42501":
        needed = " and ".join(dict.fromkeys(_RIGHTS.findall(asked)))
        return (
            (f"This call needs {needed} there. " if needed else "")
            + "For everything, grant this role USAGE on the schema cacheness, and SELECT, INSERT, UPDATE and DELETE on"
            " its tables; creating them takes CREATE on the database"
        )
    if code in ("3F000", "42P01"):
        return "The tables of the cache are gone from the database; open the cache again to create them"
    return "Check the user, the password and the database's name in metadata_backend"
