"""Manage forks: what must be complete before a fork, and what a forked child must make new.

SQLite keeps state of each open file, and its allocator a lock, inside the C library; Python keeps a
lock for each module that is being imported. A child inherits all of it in its state at the fork,
without the threads that would have continued. So a fork waits until no thread is inside such a
call, and then closes every connection to SQLite: the child starts with a library that has no file
open. If that is impossible, `refusal()` returns the reason, and SQLite is not used there.
"""

from __future__ import annotations

import contextlib
import io
import logging  # noqa: F401  registered first, its lock is taken last: who holds no_fork may ask for a logger
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Final, Generic, Protocol, TypeVar, overload

T = TypeVar("T")

#: Seconds that a fork waits for other threads to leave SQLite.
PATIENCE: Final = 5.0
#: Finalizers of multiprocessing with a lower priority run later; its own have at least -100.
_AFTER_THE_USERS: Final = -1000
_FOREIGN: Final = "this process was forked without Python's knowledge while SQLite was in use"


class ForkAware(Protocol):
    """An object that a forked child must not continue to use unchanged."""

    def reset_after_fork(self) -> None:
        """Make locks, queues, counters and connections new; called in the child, before other code runs there."""
        ...


class Closing(ForkAware, Protocol):
    """An object that is closed across a fork."""

    def close_before_fork(self) -> None:
        """Close what is open; called in the forking thread, while no thread is inside `no_fork`."""
        ...

    def has_connections(self) -> bool:
        """Return True when anything is still open."""
        ...


class _ForkState:
    """One process's state for forks. A child starts with a new one."""

    def __init__(self, generation: int) -> None:
        self.pid = os.getpid()
        self.generation = generation
        self.refusal = ""
        # Order of locks: one fork at a time, the locks of threads, the sets below. A thread inside
        # `no_fork` may need the last, to import a module whose objects are closed across forks, and
        # so a fork waits without holding it.
        self.forking = threading.RLock()  # reentrant, because a signal handler may fork
        self.registry = threading.RLock()
        self.locks: weakref.WeakSet[Any] = weakref.WeakSet()
        self.thread = _Thread(self)
        self.taken: list[list[Any]] = []  # by the forks in progress
        self.files: weakref.WeakSet[io.FileIO] = weakref.WeakSet()  # a list lost to an interruption frees its locks
        self.closing: weakref.WeakSet[Closing] = weakref.WeakSet()


class _Thread(threading.local):
    """The lock of one thread, held while a fork must wait for it.

    One lock per thread, because threads must not wait for each other. A lock implemented in C,
    because no interruption can occur between taking it and entering its block.
    """

    def __init__(self, process: _ForkState) -> None:
        self.lock = threading.RLock()
        with process.registry:
            process.locks.add(self.lock)


#: The state of this process; a child has a new one.
current = _ForkState(0)
_watched: weakref.WeakSet[ForkAware] = weakref.WeakSet()


class LazyAttribute(Generic[T]):
    """Compute an attribute when it is first read, and keep it.

    Not `functools.cached_property`: Python 3.11's holds a lock while it computes, and a child
    forked during another thread's first read would wait for that thread for ever. Here both
    compute, and the first value is kept.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> LazyAttribute[T]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object | None, owner: type) -> LazyAttribute[T] | T:
        if instance is None:
            return self
        # From now on the name is found in the instance, before this descriptor.
        value: T = instance.__dict__.setdefault(self._name, self._compute(instance))
        return value


def no_fork() -> contextlib.AbstractContextManager[Any]:
    """Return a block during which other threads' forks wait. Never wait in it, nor run user code."""
    return current.thread.lock


def watch_forks(aware: ForkAware) -> None:
    """Call `reset_after_fork` of an object in every child, as long as the object exists."""
    _watched.add(aware)


def at_end_of_child(work: Callable[[], None], owner: object) -> None:
    """Call a function when this process ends, if it is a child of `multiprocessing`: `atexit` is not run there.

    Args:
        work: the function.
        owner: the object that must still exist in a child which is made later.
    """
    process, util = (sys.modules.get(f"multiprocessing.{name}") for name in ("process", "util"))
    if process is None or util is None:
        return

    def register(_: object) -> None:
        util.Finalize(None, work, exitpriority=_AFTER_THE_USERS)

    if process.parent_process() is not None:
        register(owner)
    util.register_after_fork(owner, register)  # a child removes all finalizers after it has imported the user's module


def close_across_forks(closing: Closing) -> None:
    """Call `close_before_fork` of an object before every fork, and `reset_after_fork` in the child."""
    with current.registry:
        current.closing.add(closing)


def close_in_children(file: io.FileIO) -> None:
    """Close a file in every forked child: a lock on it would outlive this process there."""
    current.files.add(file)


def generation() -> int:
    """Return how many forks lie between this process and the first one that used cacheness."""
    return current.generation


def refusal() -> str:
    """Return why SQLite must not be used in this process; empty if it may."""
    if current.refusal or current.pid == os.getpid():
        return current.refusal
    return _FOREIGN  # Python's handlers did not run, so nothing was closed


def _before() -> None:
    process = current
    process.forking.acquire()
    taken: list[Any] = []
    process.taken.append(taken)
    # A fork does not wait for a call of the forking thread: the child inherits that call incomplete. If
    # other threads do not leave in time, open connections stay open, and the child detects and
    # rejects them.
    if not _is_inside(process.thread.lock) and _take_all(process, taken):
        for closing in list(process.closing):
            closing.close_before_fork()
    else:
        process.registry.acquire()


def _take_all(process: _ForkState, taken: list[Any]) -> bool:
    """Take the lock of every other thread, and the registry, so that none is added; return False on timeout."""
    deadline = time.monotonic() + PATIENCE
    known = {id(process.thread.lock)}
    while True:
        process.registry.acquire()
        missing = [lock for lock in list(process.locks) if id(lock) not in known]
        if not missing:
            return True
        process.registry.release()
        for lock in missing:
            if not lock.acquire(timeout=max(deadline - time.monotonic(), 0.0)):
                return False
            known.add(id(lock))
            taken.append(lock)  # and stored, so that its id is not reused


def _after_in_parent() -> None:
    for lock in current.taken.pop():
        lock.release()
    current.registry.release()
    current.forking.release()


def _after_in_child() -> None:
    global current  # a child gets a new state in one step
    parent, current = current, _ForkState(current.generation + 1)
    current.refusal = parent.refusal or _why_refused(parent)
    for file in list(parent.files):
        with contextlib.suppress(OSError):
            file.close()
    for closing in list(parent.closing):
        current.closing.add(closing)
        closing.reset_after_fork()
    for aware in list(_watched):
        aware.reset_after_fork()


def _why_refused(parent: _ForkState) -> str:
    if _is_inside(parent.thread.lock):
        return "it was forked by a thread that was inside SQLite, in a signal handler perhaps"
    # A thread whose lock is taken by another fork counts as inside, because a lock does not show its owner.
    if not all(lock.acquire(blocking=False) for lock in list(parent.locks)):
        return f"it was forked while another thread had been inside SQLite for more than {PATIENCE:g} s"
    if any(closing.has_connections() for closing in list(parent.closing)):
        return _FOREIGN
    return ""


def _is_inside(lock: Any) -> bool:
    return bool(lock._is_owned())  # noqa: SLF001 - threading.Condition calls it


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
