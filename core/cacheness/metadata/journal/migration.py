"""Migrate a journal of an older version of cacheness to this one.

Entries in journals of version 1 can no longer be read. They are left out, and their blobs become tombstones.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cacheness.deadlines import Limits, waiting
from cacheness.errors import StoreBusy
from cacheness.file_locks import FileLocks
from cacheness.jitter import between
from cacheness.metadata.journal.file import JOURNAL_VERSION, JournalFile


def upgrade(path: Path, *, limits: Limits) -> tuple[int, int, int]:
    """Replace an older journal by one of this version, atomically.

    Returns the version before, the version after, and the number of entries that were dropped.
    """
    with _locked(path, limits):
        old = _Old(path)
        if old.version >= JOURNAL_VERSION:
            return old.version, old.version, 0
        old.replace()
        return old.version, JOURNAL_VERSION, len(old.blobs)


def versions(path: Path) -> tuple[int, int]:
    """Return the version of a journal, and the one that an upgrade would bring it to."""
    version = _Old(path).version
    return version, max(version, JOURNAL_VERSION)


def old_entries(path: Path) -> int:
    """Return how many entries an upgrade drops."""
    old = _Old(path)
    return len(old.blobs) if old.version < JOURNAL_VERSION else 0


class _Old:
    """The contents of a journal of version 1, as far as they are still used."""

    def __init__(self, path: Path) -> None:
        self._file = JournalFile(path, reads_older=True)
        self._file.was_replaced()
        self._epoch: str = self._file.header["epoch"]
        self.version: int = self._file.header["cacheness"]
        self.blobs: dict[tuple[str, str], str | None] = {}  #: of the live entries, None where the bytes are inline
        self._tombstones: set[str] = set()
        if self.version < JOURNAL_VERSION:
            for _, _, record in self._file.news():
                self._apply(record)
        self._file.close()

    def replace(self) -> None:
        """Write the new journal."""
        header = {**self._file.header, "cacheness": JOURNAL_VERSION, "min_reader": JOURNAL_VERSION}
        names = self._tombstones.union(name for name in self.blobs.values() if name is not None)
        self._file.replace([{**header, "epoch": self._epoch}, *([{"bury": sorted(names)}] if names else [])])

    def _apply(self, record: dict[str, Any]) -> None:
        self._epoch = record.get("epoch", self._epoch)
        if "put" in record:
            entry = record["put"]
            self.blobs[entry["namespace"], entry["key"]] = entry["object"]
        for namespace, key in record.get("delete", []):
            self.blobs.pop((namespace, key), None)
        self._tombstones.update(record.get("bury", []))
        self._tombstones.difference_update(record.get("unbury", []))


@contextmanager
def _locked(path: Path, limits: Limits) -> Iterator[None]:
    """Lock out every writer, as a store of this journal does."""
    locks, name = FileLocks(path.parent), path.name + ".lock"
    with waiting(limits.busy) as deadline:
        while not locks.take(name):
            if time.monotonic() > deadline:
                raise StoreBusy(f"another process kept the journal {path} locked for longer than this call may wait")
            time.sleep(between(0.001, 0.01))
    try:
        yield
    finally:
        locks.release(name)
