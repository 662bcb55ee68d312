"""Manage connections to one SQLite file: used only inside `no_fork`, none open during a fork."""

from __future__ import annotations

import importlib
import os
import sqlite3
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from cacheness import forks


class _Dropped:
    """Connections whose `Connections` was collected. They wait here, because a finalizer must not close them."""

    def __init__(self) -> None:
        self._sets: deque[set[sqlite3.Connection]] = deque()
        forks.close_across_forks(self)

    def add(self, connections: set[sqlite3.Connection]) -> None:
        """Take connections at any point of the program: without a lock, and without a call into SQLite."""
        if connections:
            self._sets.append(connections)

    def close_before_fork(self) -> None:
        """Close all waiting connections; also called when a connection is opened."""
        while self._sets:
            try:
                connections = self._sets.popleft()
            except IndexError:  # another thread was faster
                return
            while connections:
                connections.pop().close()

    def has_connections(self) -> bool:
        """Return True when any connection waits."""
        return bool(self._sets)

    def reset_after_fork(self) -> None:
        """In a child, never touch connections that could not be closed."""
        while self._sets:
            _keep_for_ever(self._sets.popleft())


_dropped: Final = _Dropped()


class Lease:
    """A connection used by one call. After an interruption the next call finds it here."""

    __slots__ = ("__weakref__", "_lost", "connection")

    def __init__(self, lost: deque[sqlite3.Connection]) -> None:
        self._lost = lost
        self.connection: sqlite3.Connection | None = None

    def __del__(self) -> None:
        connection = getattr(self, "connection", None)
        if connection is not None:
            self._lost.append(connection)


class Connections:
    """Idle and busy connections. Every call runs inside `no_fork`, so that between calls all are idle."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._idle: list[sqlite3.Connection] = []
        self._open: set[sqlite3.Connection] = set()
        self._lost: deque[sqlite3.Connection] = deque()
        self.is_closed = False
        weakref.finalize(self, _dropped.add, self._open).atexit = False
        forks.close_across_forks(self)

    def take(self) -> tuple[sqlite3.Connection, Lease]:
        """Return a connection that no other thread uses until its lease is returned."""
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
        """Roll back uncommitted changes, and make a connection available again."""
        connection = lease.connection
        if connection is not None:
            self._roll_back(connection)
            lease.connection = None
            self._let_go(connection)

    def _find_lost(self) -> None:
        while self._lost:
            try:
                connection = self._lost.popleft()
            except IndexError:  # another thread was faster
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
        """Close every unused connection, and the others when they are returned."""
        self.is_closed = True
        self.close_before_fork()

    def close_before_fork(self) -> None:
        """Close idle connections, which are all when no thread is inside `no_fork`."""
        _dropped.close_before_fork()
        self._find_lost()
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was faster
                return
            self._close(connection)

    def has_connections(self) -> bool:
        """Return True when a connection is open."""
        return bool(self._open)

    def reset_after_fork(self) -> None:
        """In a child, keep unclosed connections alive: even their collection must not close them there."""
        _keep_for_ever(self._open)
        self._lost.clear()
        self._idle.clear()
        self._open.clear()

    def _close(self, connection: sqlite3.Connection) -> None:
        connection.close()
        self._open.discard(connection)


def _keep_for_ever(connections: set[sqlite3.Connection]) -> None:
    import ctypes

    for connection in connections:
        # A reference that is never released: a module's variables are cleared when the interpreter exits.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


# For `_keep_for_ever`: a child that was forked while a thread imported it could never do so.
os.register_at_fork(before=partial(importlib.import_module, "ctypes"))
