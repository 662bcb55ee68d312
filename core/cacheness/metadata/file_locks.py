"""Lock files that show that a process still lives, or keep others out for a while."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import weakref
from pathlib import Path
from typing import Protocol


class FileLocks:
    """Files in one folder, each locked by one holder at a time.

    The kernel lets go of a lock when its process dies, however it dies. A record lock (fcntl)
    would not do: any close of the file by the same process, a repair's look say, drops it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, int] = {}
        self._mutex = threading.Lock()
        watch_forks(self)

    def take(self, name: str) -> bool:
        """Lock a file, which is made when it is not there. False: somebody else holds it."""
        descriptor = os.open(self._folder / name, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        if not _lock(descriptor):
            return False
        with self._mutex:
            self._held[name] = descriptor
        return True

    def release(self, name: str) -> None:
        """Let others lock a file."""
        with self._mutex:
            descriptor = self._held.pop(name, None)
        if descriptor is not None:
            # Said aloud: a child forked meanwhile may have the file open too.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def remove(self, name: str) -> None:
        """Remove a file, whoever holds it."""
        with contextlib.suppress(OSError):
            (self._folder / name).unlink()
        self.release(name)

    def is_free(self, name: str) -> bool:
        """Whether nobody holds a file. One that was removed is held by nobody."""
        try:
            descriptor = os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        free = _lock(descriptor)
        if free:
            os.close(descriptor)
        return free

    def close(self) -> None:
        """Let go of every lock; the files stay."""
        for name in list(self._held):
            self.release(name)

    def forget_after_fork(self) -> None:
        """Close what a parent holds, in its child, lest the locks outlive the parent."""
        held, self._held, self._mutex = self._held, {}, threading.Lock()
        for descriptor in held.values():
            os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock an open file, or close it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return False
    return True


def wait_in_line(path: Path, seconds: float) -> int | None:
    """Lock a file behind all who asked before: a descriptor, to be closed. None: the time was over.

    The kernel serves whoever waits in flock() in order of arrival, and wakes one at a time. To ask
    again and again instead starves the unlucky: of 64 writers the slowest waited ten times the mean.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _Waiter(descriptor).wait(seconds)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class _Waiter:
    """A thread that waits in flock(), which knows no time limit, on behalf of one that has no time."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._mutex = threading.Lock()
        self._locked = threading.Event()
        self._given_up = False

    def wait(self, seconds: float) -> int | None:
        threading.Thread(target=self._lock, name="cacheness-waiting-in-line", daemon=True).start()
        try:
            self._locked.wait(seconds)
        finally:
            with self._mutex:
                self._given_up = not self._locked.is_set()
        return None if self._given_up else self._descriptor

    def _lock(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        with self._mutex:
            if self._given_up:
                os.close(self._descriptor)
            self._locked.set()


class ForkAware(Protocol):
    """Something that a forked child must not go on using as it is."""

    def forget_after_fork(self) -> None:
        """Called in the child, before anything else runs there."""
        ...


_watched: weakref.WeakSet[ForkAware] = weakref.WeakSet()


def watch_forks(who: ForkAware) -> None:
    """Tell somebody, for as long as they exist, that they find themselves in a forked child."""
    _watched.add(who)


def _forget_after_fork() -> None:
    for who in list(_watched):
        who.forget_after_fork()


os.register_at_fork(after_in_child=_forget_after_fork)
