"""Lock files by which SQLite sessions show that their process still lives."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import weakref
from pathlib import Path

_everybody: weakref.WeakSet[SessionLocks] = weakref.WeakSet()


class SessionLocks:
    """One file a session, locked by the process that writes and by nobody else for as long as it lives.

    The kernel lets go of the lock when the process dies, however it dies. A record lock (fcntl)
    would not do: any close of the file by the same process, a repair's probe say, drops it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, int] = {}
        self._lock = threading.Lock()
        _everybody.add(self)

    def take(self, session: str) -> None:
        """Lock a new session's file. OSError when the folder cannot be written."""
        self._folder.mkdir(exist_ok=True)
        descriptor = os.open(self._path(session), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        with self._lock:
            self._held[session] = descriptor

    def drop(self, session: str) -> None:
        """Remove a session's file, one's own or that of a session just fenced."""
        with self._lock:
            descriptor = self._held.pop(session, None)
        with contextlib.suppress(OSError):
            self._path(session).unlink()
        if descriptor is not None:
            os.close(descriptor)

    def is_free(self, session: str) -> bool:
        """Whether nobody holds a session's file. One that was removed is held by nobody."""
        try:
            descriptor = os.open(self._path(session), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True

    def release(self) -> None:
        """Let go of every lock; the files stay, for a repair to find."""
        with self._lock:
            held, self._held = self._held, {}
        for descriptor in held.values():
            os.close(descriptor)

    def _path(self, session: str) -> Path:
        return self._folder / f"{session}.lock"

    def forget_after_fork(self) -> None:
        """Close what a parent holds, in its child."""
        # The child shares the parent's open files, and would keep its locks after its death.
        self._lock = threading.Lock()
        self.release()


def _forget_after_fork() -> None:
    for locks in list(_everybody):
        locks.forget_after_fork()


os.register_at_fork(after_in_child=_forget_after_fork)
