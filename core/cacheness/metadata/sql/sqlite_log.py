"""Bring SQLite's write-ahead log into the database in a thread.

SQLite does it within the commit that makes the log a thousand pages long: one put in a hundred then
waits until these pages are written in a thousand places and synced.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from cacheness import forks

#: Rows that a process changes between two looks at the log, which they make some thousand pages longer.
CHANGES: Final = 2000
#: Pages in the log, from which on writers wait for a moment, so that it can start over.
LONG: Final = 4 << 10
#: … and from which on a commit does it, as in processes that end before their thread gets to it.
LONGEST: Final = 16 << 10
_PASSES: Final = 5
_FEW: Final = 100  #: pages
_LAST_SECONDS: Final = 1.0  #: that closing waits for the thread


class LogKeeper:
    """Counts what a process writes, and has a thread bring it into the database."""

    def __init__(self, checkpoint: Callable[[bool], int]) -> None:
        #: Is called with True when writers have to wait; returns how many pages the log had.
        self._checkpoint = checkpoint
        self.reset_after_fork()
        forks.watch_forks(self)

    def reset_after_fork(self) -> None:
        """Leave the thread to the parent."""
        self._changes = 0
        self._thread: threading.Thread | None = None

    def note(self, changes: int) -> None:
        """Count rows that a commit has changed."""
        self._changes += changes  # not under a lock: what two threads count at once may get lost
        if self._changes < CHANGES or self._thread is not None:
            return
        self._changes = 0
        thread = self._thread = threading.Thread(target=self._run, name="cacheness-log", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter exits; the last connection that is closed does it
            self._thread = None

    def is_behind(self) -> bool:
        """Return True when something was written since the log was last looked at."""
        return self._changes > 0

    def wait(self) -> None:
        """Wait for the thread, if it is at work, but not for long."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_LAST_SECONDS)

    def _run(self) -> None:
        try:
            pages, moved = self._checkpoint(False), 0
            # Beside writers that never pause there is always a page more in it, and it would grow for ever. They wait
            # for what the last pass has left, so that there are several, each of them shorter.
            for _ in range(_PASSES):
                if pages <= LONG or pages - moved < _FEW:
                    break
                moved, pages = pages, self._checkpoint(False)
            if pages > LONG:
                self._checkpoint(True)
        finally:
            self._thread = None
