"""Reserve space on a disk, so that entries can be deleted when it is full."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Final

from cacheness import platform

RESERVE: Final = 2 << 20  #: bytes; many times what the deletion of a few entries writes
_SHARE: Final = 4  #: at most this fraction (1/n) of a small disk
#: With this many free bytes a disk counts as far from full.
PLENTY: Final = 64 << 20
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)


class Reserve:
    """An unused file next to a database. A deletion that finds the disk full removes it."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(database.name + "-reserve")
        self._directory = database.parent
        self._is_kept = self._is_used = False

    def is_roomy(self, size: int) -> bool:
        """Return True when `size` more bytes leave the disk far from full, and the reserve exists."""
        return self._is_kept and free_bytes(self._directory) > PLENTY + size

    def keep(self) -> bool:
        """Create the file if it is missing. Return False if the disk is too full for it."""
        self._is_kept = self._take(_size_on(self._directory))
        return self._is_kept

    def give_up(self) -> None:
        """Remove the file, so that its space can be used."""
        self._is_kept, self._is_used = False, True
        with contextlib.suppress(OSError):
            self._path.unlink()

    def restore(self) -> None:
        """Create the file again if this process has removed it; a smaller one if there is less space."""
        if self._is_used:
            size = _size_on(self._directory)
            taken = next((part for part in (1, 2, 4, 8) if self._take(size // part)), 0)
            self._is_used = taken != 1

    def _take(self, size: int) -> bool:
        try:
            if not self._path.exists() or self._path.stat().st_size < size:
                _allocate(self._path, size)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._path.unlink()
            # If the file cannot be created, or not at this size, the next write fails with its own error, or succeeds.
            return error.errno not in _NO_ROOM
        return True


def free_bytes(directory: Path) -> int:
    """Return how many bytes this user may still write there; a quota of the user is not visible."""
    found = os.statvfs(directory)
    return found.f_frsize * (found.f_bavail if os.geteuid() else found.f_bfree)


def _size_on(directory: Path) -> int:
    disk = os.statvfs(directory)
    return min(RESERVE, disk.f_blocks * disk.f_frsize // _SHARE)


def _allocate(path: Path, size: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        platform.reserve(descriptor, size)
    finally:
        os.close(descriptor)
