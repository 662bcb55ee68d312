"""Connections to one SQLite file: each in use only inside `no_fork`, none open while the process forks."""

from __future__ import annotations

import ctypes
import sqlite3
import weakref
from collections import deque
from collections.abc import Callable
from typing import Final

from cacheness import forks


class _Dropped:
    """Connections whose `Connections` was collected. They wait here, because a finalizer closes nothing."""

    def __init__(self) -> None:
        self._sets: deque[set[sqlite3.Connection]] = deque()
        forks.close_across_forks(self)

    def add(self, connections: set[sqlite3.Connection]) -> None:
        """Take connections, in the middle of anything: without a lock, and without a call into SQLite."""
        if connections:
            self._sets.append(connections)

    def close_before_fork(self) -> None:
        """Close all that wait; also called when a connection is opened."""
        while self._sets:
            try:
                connections = self._sets.popleft()
            except IndexError:  # another thread was quicker
                return
            while connections:
                connections.pop().close()

    def has_connections(self) -> bool:
        """Return True when any waits."""
        return bool(self._sets)

    def reset_after_fork(self) -> None:
        """Never touch in a child what could not be closed."""
        while self._sets:
            _keep_for_ever(self._sets.popleft())


_dropped: Final = _Dropped()


class Lease:
    """A connection in use by one call. The next call finds it where an interruption kept it from being given back."""

    __slots__ = ("__weakref__", "_lost", "connection")

    def __init__(self, lost: deque[sqlite3.Connection]) -> None:
        self._lost = lost
        self.connection: sqlite3.Connection | None = None

    def __del__(self) -> None:
        connection = getattr(self, "connection", None)
        if connection is not None:
            self._lost.append(connection)


class Connections:
    """Idle and busy connections. Every call is made inside `no_fork`, so that between calls all are idle."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._idle: list[sqlite3.Connection] = []
        self._open: set[sqlite3.Connection] = set()
        self._lost: deque[sqlite3.Connection] = deque()
        self.is_closed = False
        weakref.finalize(self, _dropped.add, self._open).atexit = False
        forks.close_across_forks(self)

    def take(self) -> tuple[sqlite3.Connection, Lease]:
        """Return a connection that no other thread uses until its lease is given back."""
        self._find_lost()
        lease = Lease(self._lost)
        try:
            lease.connection = connection = self._idle.pop()
        except IndexError:
            _dropped.close_before_fork()
            lease.connection = connection = self._connect()
            self._open.add(connection)
        return connection, lease

    def give_back(self, lease: Lease) -> None:
        """Roll back what was not committed, and let others use a connection."""
        connection = lease.connection
        if connection is not None:
            self._roll_back(connection)
            lease.connection = None
            self._let_go(connection)

    def _find_lost(self) -> None:
        while self._lost:
            try:
                connection = self._lost.popleft()
            except IndexError:  # another thread was quicker
                return
            self._roll_back(connection)
            self._let_go(connection)

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        if connection in self._open and connection.in_transaction:
            connection.rollback()

    def _let_go(self, connection: sqlite3.Connection) -> None:
        if connection not in self._open:
            return  # the parent's, in a child that was forked inside a call
        if self.is_closed:
            self._close(connection)
        else:
            self._idle.append(connection)

    def close(self) -> None:
        """Close every connection that is not in use, and the others when they come back."""
        self.is_closed = True
        self.close_before_fork()

    def close_before_fork(self) -> None:
        """Close what is idle, which is all when no thread is inside `no_fork`."""
        _dropped.close_before_fork()
        self._find_lost()
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was quicker
                return
            self._close(connection)

    def has_connections(self) -> bool:
        """Return True when a connection is open."""
        return bool(self._open)

    def reset_after_fork(self) -> None:
        """Never touch in a child what could not be closed: not even its end may close it there."""
        _keep_for_ever(self._open)
        self._lost.clear()
        self._idle.clear()
        self._open.clear()

    def _close(self, connection: sqlite3.Connection) -> None:
        connection.close()
        self._open.discard(connection)


def _keep_for_ever(connections: set[sqlite3.Connection]) -> None:
    for connection in connections:
        # A reference that nobody gives back: a module's variables are cleared when the interpreter exits.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
