"""Checkpoint SQLite's write-ahead log in a thread.

By default SQLite does it within the commit that makes the log a thousand pages long: one put in a
hundred then waits until these pages are written in a thousand places and synced.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from cacheness import forks

#: Rows that a process changes between two checkpoints; they make the log some hundred pages longer. A put that meets
#: the sync of a checkpoint waits for it. With 2,000 rows the slowest put beside an eviction took 57 ms in place of 47,
#: of a million entries; puts a second were the same.
CHANGES: Final = 500
#: Pages in the log from which on writers wait briefly, so that it can start over.
LONG: Final = 4 << 10
#: … and from which on a commit does it, as in processes that end before their thread runs.
LONGEST: Final = 16 << 10
_PASSES: Final = 5
_FEW: Final = 100  #: pages
_LAST_SECONDS: Final = 1.0  #: the most that closing waits for the thread


class LogKeeper:
    """Counts changed rows, and starts a thread that checkpoints the log."""

    def __init__(self, checkpoint: Callable[[bool], int]) -> None:
        #: Called with True when writers must wait; returns how many pages the log had.
        self._checkpoint = checkpoint
        self.reset_after_fork()
        forks.watch_forks(self)

    def reset_after_fork(self) -> None:
        """In a forked child, drop the parent's thread."""
        self._changes = 0
        self._thread: threading.Thread | None = None

    def note(self, changes: int) -> None:
        """Count rows that a commit has changed."""
        self._changes += changes  # no lock: a count of two concurrent threads may get lost
        if self._changes < CHANGES or self._thread is not None:
            return
        self._changes = 0
        thread = self._thread = threading.Thread(target=self._run, name="cacheness-log", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter exits; closing the last connection checkpoints
            self._thread = None

    def is_behind(self) -> bool:
        """Return True when something was written since the last checkpoint."""
        return self._changes > 0

    def wait(self) -> None:
        """Wait for the thread if it is running, but not for long."""
        thread = self._thread
        # Another thread may have made it, and not started it yet.
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(_LAST_SECONDS)

    def _run(self) -> None:
        try:
            pages, moved = self._checkpoint(False), 0
            # While writers never pause, each pass finds new pages, and the log would grow without
            # limit. So writers wait for the last pass; several passes run before it, each shorter
            # than the one before.
            for _ in range(_PASSES):
                if pages <= LONG or pages - moved < _FEW:
                    break
                moved, pages = pages, self._checkpoint(False)
            if pages > LONG:
                self._checkpoint(True)
        finally:
            self._thread = None
