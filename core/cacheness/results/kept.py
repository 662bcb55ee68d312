"""Keep small verified results in memory, until the database changes.

A row that is read a second time is kept with a mark of the database's last change. At the next call
an equal mark proves that the row has not changed, so it is neither read nor verified again. The
value is decoded each time, so a caller that changes it changes nothing here.
"""

from __future__ import annotations

import threading
from itertools import islice
from typing import Final, TypeAlias

from cacheness import forks
from cacheness.records import Entry

BYTES_AT_MOST: Final = 16 << 20  #: of the values of kept rows
ROWS_AT_MOST: Final = 10_000  #: kept, or seen once

_Kept: TypeAlias = tuple[Entry, object]


class KeptRows:
    """Rows with their inline values, oldest first. Thread-safe."""

    def __init__(self) -> None:
        self.reset_after_fork()
        forks.watch_forks(self)

    def reset_after_fork(self) -> None:
        """Drop all rows: the marks belong to connections that a child process does not have."""
        self._lock = threading.RLock()
        self._rows: dict[bytes, _Kept | None] = {}  #: None: seen once
        self._size = 0

    def is_known(self, key: bytes) -> bool:
        """Return True when a row was seen before, so that reading a mark is worth its cost."""
        return key in self._rows

    def find(self, key: bytes, mark: object | None) -> Entry | None:
        """Return the row under a key, if it was kept with an equal mark."""
        kept = self._rows.get(key)
        return kept[0] if kept is not None and kept[1] == mark else None

    def note(self, entry: Entry, mark: object | None) -> None:
        """Keep a verified row that was read after the mark; without a mark, record that it was seen."""
        if mark is None and entry.key in self._rows:
            return
        with self._lock:
            if mark is None:
                self._rows.setdefault(entry.key)
            else:
                self._drop(entry.key)
                self._rows[entry.key] = entry, mark
                self._size += entry.size
            while self._size > BYTES_AT_MOST or len(self._rows) > ROWS_AT_MOST:
                # Many at a time: the search for the first row passes all that were dropped before.
                for oldest in list(islice(self._rows, 1 + len(self._rows) // 16)):
                    self._drop(oldest)

    def _drop(self, key: bytes) -> None:
        kept = self._rows.pop(key, None)
        self._size -= 0 if kept is None else kept[0].size
