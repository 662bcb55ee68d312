"""Connections to PostgreSQL: bounded in number and in time, and in the only place that knows psycopg's errors."""

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

#: Connections that one process opens to one database, unless the URL says `?pool_size=`.
POOL_SIZE: Final = 8
#: Deadlock, serialization failure, lock timeout.
_CONFLICTS: Final = frozenset({"40P01", "40001", "55P03"})
#: Prepared statements that a pooler gave to another client.
_MIXED_UP: Final = frozenset({"26000", "42P05"})
#: The server shuts down, or ends this connection; whether it had committed is not said.
_LOST: Final = ("57P", "08")
_REFUSED: Final = ("0A", "28", "3D", "42501", "25006", "3F", "42P01", "0L", "0P")
#: No resources, the operator, the machine, the server's own faults.
_OUTAGES: Final = ("53", "57", "58", "F0", "XX")
#: Without a code of the server's, what psycopg says of the connection itself.
_CONNECTION_ERRORS: Final = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError)
#: What a refused connection says; on connecting, libpq gives the text but not the code.
_REFUSALS: Final = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|does not exist|permission denied"
    r"|is not permitted to log in|role .* is not"
)
#: What a statement needs of the tables that it names.
_RIGHTS: Final = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE)\b")
_CANCEL_SECONDS: Final = 1.0
#: Seconds between two attempts of what lost a conflict.
_PAUSES: Final = 0.01, 0.5
#: Seconds after which a connection that nobody took is closed, by who gives the next one back.
IDLE_SECONDS: Final = 120.0
#: How long the difference between two clocks is relied upon.
_CLOCK_KEPT: Final = 60 * 1_000_000
#: A clock that nobody sets; the first one goes on while a machine sleeps.
_STEADY: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

# Kept for ever in a forked child: to close them takes locks of OpenSSL that a thread of the parent may have held.
_inherited: list[psycopg.Connection[Any]] = []


class Lost(StoreUnavailable):
    """The connection was lost, or gave no answer in time, during a statement."""


class Conflict(StoreBusy):
    """The server rolled back, in favour of somebody else; the same again may work."""


class _Deadline(psycopg.OperationalError):
    """No answer in time."""


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection on which no call takes longer than `seconds`, whatever the server does.

    A server's own timeouts end with the server: a stopped one keeps its clients waiting for ever.
    """

    seconds = 5.0
    asked = ""  #: the last statement
    given_back = 0.0  #: when it was last used

    def wait(self, gen: Generator[Any, Any, T], *more: Any, **named: Any) -> T:
        """Let psycopg wait, but look at the clock whenever it wakes, which is ten times a second."""
        return super().wait(_bounded(gen, time.monotonic() + self.seconds), *more, **named)

    def prepare_to_serve(self, seconds: float) -> None:
        """Set the limit, and make what every call needs."""
        self.seconds = seconds
        # Lists travel as bytes; by default psycopg writes those of texts and bytes as text, with every byte in two.
        self.adapters.register_dumper(list, ListBinaryDumper)
        self.reused = self.cursor(binary=True)
        self._poll = select.poll()
        self._poll.register(self.fileno(), select.POLLIN)

    @property
    def is_usable(self) -> bool:
        """True when the connection is free, and the server has not hung up on it."""
        # An idle server sends nothing: what there is to read is that it closes the connection.
        idle = self.pgconn.transaction_status == TransactionStatus.IDLE
        return not self.closed and idle and not self._poll.poll(0)

    def run(self, statement: Statement, values: Mapping[str, Any]) -> tuple[list[_Row], int]:
        """Run one statement; its rows, and how many changed."""
        cursor, self.asked = self.reused, statement.text
        cursor.execute(statement.text, _in_order(statement, values))
        # Asking `cursor.description` would build a description of every column.
        has_rows = cursor.pgresult is not None and cursor.pgresult.nfields > 0
        return list(cursor.fetchall()) if has_rows else [], cursor.rowcount


class PostgresqlTransaction:
    """An open transaction on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def run(self, statement: Statement, values: Mapping[str, Any]) -> list[_Row]:
        """Run a statement; its rows."""
        return self._connection.run(statement, values)[0]

    def run_many(self, statement: Statement, values: Sequence[Mapping[str, Any]]) -> int:
        """Run a statement for each set of values; the number of rows that changed."""
        cursor, self._connection.asked = self._connection.reused, statement.text
        cursor.executemany(statement.text, [_in_order(statement, each) for each in values])
        return max(cursor.rowcount, 0)

    def define(self, text: str) -> None:
        """Run a statement that defines something."""
        self._connection.execute(text.encode())


class Pool:
    """Connections to one database, shared by the threads of a process."""

    def __init__(self, url: str, limits: Limits, hello: str) -> None:
        self.name = name_of(url)
        self._offset = 0  #: microseconds by which the server's clock is ahead of the steady one here
        self._measured_at = -_CLOCK_KEPT
        self._url = url
        self._size = _read_url(url)[1]
        self._limits = limits
        self._hello = hello
        self._closed = False
        self.is_pooled = False  #: a pooler stands between, as the newest connection shows
        self._was_mixed_up = False
        self._begin()
        forks.watch_forks(self)

    def now(self) -> int:
        """Microseconds since the epoch by the server's clock, as it was last measured."""
        return _steady() + self._offset

    def measure_clock(self) -> None:
        """Ask the server for its time."""
        connection = self._take()
        connection.seconds = self._limits.statement
        try:
            self._measure(connection)
        except psycopg.Error as error:
            self._refuse(error, connection)
        finally:
            self._give_back(connection)

    def run(self, statement: Statement, values: Mapping[str, Any], seconds: float = 0.0) -> tuple[list[_Row], int]:
        """Run one statement by itself, in one round trip; its rows, and how many changed.

        `seconds` come on top of what a statement may usually take. Once a minute the server is asked
        for its time as well: the heartbeat of a session comes through here, and so does a process that only reads.
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
        """Run `work` in one transaction; `seconds` come on top of what a statement may usually take."""
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
            # The server is well: a rollback costs less than a new connection.
            with suppress(psycopg.Error):
                connection.execute("ROLLBACK", prepare=False)
            raise
        finally:
            self._give_back(connection)

    def settle(self, attempt: Callable[[], T]) -> T:
        """Run `attempt`, again when it lost a conflict, for as long as a statement may take."""
        return retry(attempt, _is_conflict, self._limits.statement, _PAUSES)

    def close(self) -> None:
        """Close every connection that is not in use, and the others when they come back."""
        self._closed = True
        self._purge()

    def reset_after_fork(self) -> None:
        """Take the parent's connections away from a child: its copies would keep them open after the parent's end."""
        for connection in list(self._open):
            if not connection.closed:
                _inherited.append(connection)
                _hang_up_here(connection)
        self._begin()

    def _begin(self) -> None:
        self._idle: list[Connection] = []
        self._open: weakref.WeakSet[Connection] = weakref.WeakSet()
        # A semaphore made in C; the one of `threading` takes ten times as long.
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
            return  # the parent's, in a child that a signal handler forked inside of a call
        if self._closed or connection.closed or connection.pgconn.transaction_status != TransactionStatus.IDLE:
            connection.close()
        else:
            connection.given_back = time.monotonic()
            self._idle.append(connection)
            self._close_unused(connection.given_back - IDLE_SECONDS)
        self._permits.put(None)

    def _close_unused(self, since: float) -> None:
        """Close connections that nobody has taken since then. The last to come is the first to go out again."""
        with suppress(IndexError):  # others took them all
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
        # Behind a pooler each statement may meet another server process, to which a prepared statement of
        # ours is unknown. A pooler shows itself: it cannot give its client the process's own number.
        self.is_pooled = pid != connection.info.backend_pid or self._was_mixed_up
        if self.is_pooled:
            connection.prepare_threshold = None

    def _measure(self, connection: Connection) -> int:
        """Compare the server's clock with the steady one; returns the number of the server's process."""
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
            return  # the parent goes on with it, and so must its statement
        # Without this, the statement would go on, and keep its locks, on a server that merely waits.
        if not connection.closed and psycopg.capabilities.has_cancel_safe():
            with suppress(psycopg.Error):
                connection.cancel_safe(timeout=_CANCEL_SECONDS)
        connection.close()
        # One lost connection often means that all are; new ones cost milliseconds.
        self._purge()


def _hang_up_here(connection: Connection) -> None:
    """Put a dead socket in the place of a connection's, without a word to the server."""
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        os.dup2(ours.fileno(), connection.fileno(), inheritable=False)


def connect(url: str, limits: Limits, **options: Any) -> Connection:
    """A new connection, each statement its own transaction; what goes wrong is one of our errors."""
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
    """Raise what a driver's error means to a caller. The only place that knows. `asked` is the statement."""
    code = getattr(error, "sqlstate", None) or ""
    text = _sentence(error)
    if code in _CONFLICTS or code in _MIXED_UP:
        raise Conflict(f"{name} gave way to others until the time was over: {text}") from error
    if code == "42703":  # a column that was there when the store was opened
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
    # A statement or a value that the server does not take: no other call has to suffer for it.
    raise CodecError(f"{name} cannot store or find this: {text}") from error


def name_of(url: str) -> str:
    """A database for people: its address without secrets."""
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
    """The address as libpq takes it, and the number of connections."""
    parts = urlsplit(url)
    options = parse_qsl(parts.query, keep_blank_values=True)
    sizes = [value for name, value in options if name == "pool_size"]
    if sizes and not (sizes[-1].isdecimal() and int(sizes[-1]) > 0):
        raise ConfigError(f"pool_size={sizes[-1]!r} is not a number of connections")
    rest = urlencode([(name, value) for name, value in options if name != "pool_size"], quote_via=quote)
    scheme = parts.scheme.partition("+")[0]
    return urlunsplit(parts._replace(scheme=scheme, query=rest)), int(sizes[-1]) if sizes else POOL_SIZE


def _sentence(error: Exception) -> str:
    """A driver's words in one line. They never hold the password."""
    return " ".join(str(error).split()).rstrip(".")


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
