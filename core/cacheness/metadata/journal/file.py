"""Read the journal's file as it grows, append under a lock, and rewrite it when most lines are dead."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from cacheness import platform
from cacheness.errors import CommitUnanswered, ConfigError, SchemaMismatch, StoreFull, StoreRefused, StoreUnavailable
from cacheness.logs import logger_of
from cacheness.metadata.journal.lines import line_of, record_of

_log = logger_of(__name__)

#: The version of the lines' format, and the oldest library that can read it.
JOURNAL_VERSION: Final = 2
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_OURS: Final = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EBADF,
    errno.EINVAL,
    errno.EEXIST,
)
_BLOCK: Final = 1 << 20


class JournalFile:
    """Lines that are only appended. Not safe for threads."""

    def __init__(self, path: Path, *, reads_older: bool = False) -> None:
        self.path = path
        self._reads_older = reads_older
        self.header: dict[str, Any] = {}
        self.size = 0  #: offset up to which the file has been read
        self._descriptor = -1

    def is_missing(self) -> bool:
        """Return True when there is no journal here yet."""
        return not self.path.exists()

    def create(self) -> None:
        """Write an empty journal. The caller holds the lock."""
        header = {"cacheness": JOURNAL_VERSION, "min_reader": JOURNAL_VERSION}
        self.replace([{**header, "store": os.urandom(16).hex(), "epoch": os.urandom(16).hex()}])

    def was_replaced(self) -> bool:
        """Return True when the path names another file than before; it is then read from its start."""
        if not self._is_elsewhere():
            return False
        self._open()
        return True

    def _is_elsewhere(self) -> bool:
        try:
            now = os.stat(self.path)
        except OSError as error:
            self.refuse(error)
        if self._descriptor < 0:
            return True
        # The old file is kept open, so its inode number cannot have been reused for the new one.
        held = os.fstat(self._descriptor)
        return (held.st_dev, held.st_ino) != (now.st_dev, now.st_ino)

    def news(self) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Return the complete records added since the last call: offset, length, record.

        A line with "more" belongs to the next one. Lines after the last complete group are skipped:
        they are being written, or were torn by a crash.
        """
        group: list[tuple[int, int, dict[str, Any]]] = []
        offset = self.size
        for line in self._lines():
            record = self._parse(line, offset)
            group.append((offset, len(line), record))
            offset += len(line)
            if not record.get("more"):
                self.size = offset
                yield from group
                group = []

    def _lines(self) -> Iterator[bytes]:
        start, pending = self.size, b""
        while data := os.pread(self._descriptor, _BLOCK, start + len(pending)):
            whole, line_break, pending = (pending + data).rpartition(b"\n")
            start += len(whole) + len(line_break)
            yield from (whole + line_break).splitlines(keepends=True)

    def _parse(self, line: bytes, offset: int) -> dict[str, Any]:
        try:
            return record_of(line)
        except ValueError:
            _log.warning("%s: the line at byte %d is damaged and is ignored", self.path, offset)
            return {}

    def read(self, offset: int, length: int) -> dict[str, Any] | None:
        """Read one line again; None if it is incomplete, because another file has replaced this one."""
        data = os.pread(self._descriptor, length, offset)
        return record_of(data) if len(data) == length else None

    def is_cut(self) -> bool:
        """Return True when the file is shorter than what was read."""
        return os.fstat(self._descriptor).st_size < self.size

    def cut_replaced(self) -> None:
        """Truncate a replaced file, because other processes may keep it open for long."""
        try:
            os.ftruncate(self._descriptor, 0)
        except OSError as error:
            _log.debug("%s: the replaced file is deleted when no process has it open: %s", self.path, error)

    def append(self, records: Sequence[dict[str, Any]], *, durable: bool = True) -> None:
        """Append records: all durably, or none. The caller holds the lock, and has read all new records."""
        lines = [line_of({**record, "more": True}) for record in records[:-1]] + [line_of(records[-1])]
        try:
            # A line torn by a crash ends where the next one begins.
            os.ftruncate(self._descriptor, self.size)
            _write(self._descriptor, b"".join(lines), self.size)
        except OSError as error:
            self._cut()
            self.refuse(error)
        try:
            if durable:
                platform.sync(self._descriptor)
        except OSError as error:
            raise CommitUnanswered(f"the journal {self.path} could not be synced to disk: {error}") from error

    def replace(self, records: Iterable[dict[str, Any]]) -> None:
        """Replace the journal by one with these records, atomically. The caller holds the lock."""
        aside = self.path.with_name(self.path.name + ".new")
        try:
            with open(aside, "wb") as file:
                file.writelines(map(line_of, records))
                file.flush()
                platform.sync(file.fileno())
            os.replace(aside, self.path)
            platform.sync_directory(self.path.parent)
        except OSError as error:
            aside.unlink(missing_ok=True)
            self.refuse(error)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> None:
        self.close()
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            # The file may be read-only for this user: hits are served then, and an append raises an error.
            self._open_to_read()
        self.size = 0
        first = next(self.news(), (0, 0, {}))
        self.header = first[2]
        if not self.header and self._is_elsewhere():
            self._open()
            return
        try:
            self._check_header()
        except ConfigError:
            self.close()  # so that the next call reads the header again, and writes nothing either
            raise

    def _open_to_read(self) -> None:
        try:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            self.refuse(error)

    def _check_header(self) -> None:
        if "cacheness" not in self.header:
            raise ConfigError(
                f"{self.path} is not a journal of a cache. Move it away, or set cache_dir to another directory"
            )
        if self.header["cacheness"] < JOURNAL_VERSION and not self._reads_older:
            raise SchemaMismatch(
                f"{self.path} was written by an older version of cacheness, whose entries this one does not read. Run"
                " `cacheness migrate` once"
            )
        if self.header["min_reader"] > JOURNAL_VERSION:
            raise SchemaMismatch(
                f"{self.path} was written by a newer version of cacheness, which this version cannot read. Upgrade"
                " cacheness on this machine"
            )

    def _cut(self) -> None:
        try:
            os.ftruncate(self._descriptor, self.size)
        except OSError as error:
            _log.debug("%s: a torn line is left for the next writer: %s", self.path, error)

    def refuse(self, error: OSError) -> NoReturn:
        """Raise our error for a system call's error."""
        if error.errno in _NO_ROOM:
            raise StoreFull(
                f"the disk that holds the journal {self.path} is full ({error.strerror}). Nothing was stored and"
                " nothing was lost: free space, or delete entries (clear, invalidate, or evict with less max_bytes)"
            ) from error
        if error.errno in _NOT_OURS:
            raise StoreRefused(
                f"the journal {self.path} cannot be opened or written ({error.strerror}). Check that the directory"
                " exists and that this user may write to it, or set cache_dir to another one"
            ) from error
        raise StoreUnavailable(f"the journal {self.path} failed: {error}") from error


def _write(descriptor: int, data: bytes, offset: int) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(descriptor, memoryview(data)[written:], offset + written)
