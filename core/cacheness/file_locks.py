"""Lock files: they show that a process is alive, or lock out other processes for a while."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import time
from pathlib import Path

from cacheness import forks, jitter, platform, threads
from cacheness.deadlines import waiting


class FileLocks:
    """Files in one folder, each locked by one holder at a time.

    The system frees a lock when its process dies, however it dies.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, io.FileIO] = {}
        self._mutex = threading.RLock()
        forks.watch_forks(self)

    def take(self, name: str) -> bool:
        """Lock a file, creating it if missing. Return False if another process holds it."""
        file = _open(self._folder / name)
        if not _lock(file.fileno()):
            file.close()
            return False
        with self._mutex:
            self._held[name] = file
        return True

    def release(self, name: str) -> None:
        """Unlock a file."""
        with self._mutex:
            file = self._held.pop(name, None)
        if file is not None:
            unlock(file)

    def remove(self, name: str) -> None:
        """Delete a lock file, also one that another process holds."""
        with contextlib.suppress(OSError):
            (self._folder / name).unlink()
        self.release(name)

    def is_free(self, name: str) -> bool:
        """Return True when no process holds a file. A deleted file is held by none."""
        with forks.no_fork():  # a forked child would keep the lock that this check takes
            try:
                descriptor = os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return True
            except OSError:
                return False
            free = _lock(descriptor)
            if free:
                platform.unlock(descriptor)
            os.close(descriptor)
            return free

    def close(self) -> None:
        """Free every lock; the files stay."""
        for name in list(self._held):
            self.release(name)

    def reset_after_fork(self) -> None:
        """In a child, drop all locks: they are the parent's, and their files are closed here."""
        self._held, self._mutex = {}, threading.RLock()


def _open(path: Path) -> io.FileIO:
    with forks.no_fork():  # a child must know the file, to close it
        file = io.FileIO(path, "a")
        forks.close_in_children(file)
        return file


def _lock(descriptor: int) -> bool:
    try:
        return platform.lock(descriptor)
    except OSError:
        return False


def unlock(file: io.FileIO) -> None:
    """Free a lock and close its file; may run twice, because an interruption may come right after the first time."""
    if not file.closed:
        # Explicitly, because a child that is about to call exec() may have the file open too.
        platform.unlock(file.fileno())
        file.close()


def wait_in_line(path: Path, seconds: float) -> io.FileIO | None:
    """Lock a file after all earlier callers; return it for `unlock`, or None after half of the caller's patience.

    The kernel serves processes that wait in flock() in order of arrival, and wakes one at a time.
    Polling would starve some of them: of 64 writers the slowest waited ten times the mean.
    """
    file = _open(path)
    try:
        is_locked = platform.lock(file.fileno())
    except BaseException:
        file.close()
        raise
    if is_locked:
        return file
    with waiting(seconds) as deadline:
        return _Waiter(file).wait(max(deadline - time.monotonic(), 0.0) / 2)


class _Waiter:
    """A thread that waits in flock(), which has no time limit, for a caller that has one."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self._mutex = threading.Lock()
        self._locked = threading.Event()
        self._given_up = False

    def wait(self, seconds: float) -> io.FileIO | None:
        try:
            if threads.started(self._lock, "cacheness-waiting-in-line"):
                self._locked.wait(seconds)
            else:
                self._ask_again(seconds)
        finally:
            with self._mutex:
                self._given_up = not self._locked.is_set()
        return None if self._given_up else self._file

    def _ask_again(self, seconds: float) -> None:
        """Without a thread there is no queue: whichever process polls first gets the lock."""
        until = time.monotonic() + seconds
        try:
            while not platform.lock(self._file.fileno()):
                if time.monotonic() > until:
                    return
                time.sleep(jitter.between(0.001, 0.01))
            self._locked.set()
        finally:
            if not self._locked.is_set():
                self._file.close()

    def _lock(self) -> None:
        platform.lock(self._file.fileno(), waits=True)
        with self._mutex:
            if self._given_up:
                unlock(self._file)
            self._locked.set()
