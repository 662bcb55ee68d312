"""Keep copies of remote blobs on a local disk: a blob store in front of another.

A blob's name is used once, so a copy is never out of date: the row decides which blob is read, and
its digest verifies the bytes. A failure of the disk logs a warning, and the remote blob store is
used.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import struct
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

from cacheness import forks, platform
from cacheness.blobs.names import UNFINISHED
from cacheness.buffers import LARGE, allocate, read_into, views_of
from cacheness.config import near_directory
from cacheness.errors import CachenessError
from cacheness.file_locks import FileLocks
from cacheness.file_systems import CACHE_TAG, is_local, tag_cache
from cacheness.jitter import below, between, chosen
from cacheness.lazy_dataclass import dataclass
from cacheness.logs import logger_of
from cacheness.protocols import BlobStore, Buffer
from cacheness.records import OBJECT_NAME, BlobInfo, Upload

_log = logger_of(__name__)

FORMAT: Final = "1"  #: the directory of all copies in this format
SHARDS: Final = 256
LARGEST_PART: Final = 4  #: a blob larger than this fraction (1/n) of the quota is not copied
FULL_TO: Final = 0.95  #: of the quota, when space is freed
SAMPLE: Final = 16  #: shards from which the oldest copies are deleted
ROUNDS: Final = 64  #: shards that one copy may sample to free space
FETCH_PATIENCE: Final = 5.0  #: seconds to wait for another process that fetches the same blob
FETCH_PAUSES: Final = (0.005, 0.1)  #: seconds between two checks for its copy
USE_GRAIN: Final = 3600.0  #: seconds; a copy's last use is its file's mtime, which is updated no more often than this
SWEEP_EVERY: Final = 60.0  #: seconds until one shard is counted again
ABANDONED: Final = 3600.0  #: seconds after which an unfinished copy counts as abandoned
PAUSE_AFTER_ERROR: Final = 60.0  #: seconds during which no copies are made after a failure
_COUNTERS: Final = "sizes"
_FETCHES: Final = "fetching"
_COUNTER: Final = struct.Struct("<q")
_COUNT_TRIES: Final = 20
_MOST_SPOILT: Final = 10_000
_READ_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class _PlaceOfCopy:
    """Return the path of a blob's copy."""

    shard: int
    leaf: str
    path: str


@dataclass(frozen=True, slots=True)
class _KeptCopy:
    """One copy, as listed."""

    used: float
    size: int
    path: str


class NearBlobStore:
    """A blob store with copies of its blobs in a local directory, shared by the processes of one user.

    All methods but `read` call the remote store; a copy is written after the remote store has the blob.
    """

    def __init__(self, far: BlobStore, directory: str | Path, most: int) -> None:
        self.far = far
        self.near_reads = self.far_reads = 0
        self.directory = near_directory(os.fspath(directory))
        self._root = os.path.join(self.directory, FORMAT)
        self.most = most
        self._swept = time.monotonic()
        self._paused_until = self._unread_until = float("-inf")  #: before this time no copies are made or read
        self._has_warned = False
        self._locks = FileLocks(Path(self._root, _FETCHES))
        self._mode = 0o700
        self._spoilt: set[str] = set()  #: the last path components of copies whose bytes do not match the signature
        self._beside: set[threading.Thread] = set()  #: each writes one large copy
        self._begin()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.far!r}, {self._root!r})"

    # operations of the store

    def write(self, name: str, buffers: Sequence[Buffer]) -> None:
        """Write the blob to the remote store, and a copy; a large copy is written in parallel."""
        views, size = views_of(buffers)
        place = self._place(name)
        if place is None or size < LARGE:
            self.far.write(name, views)
            if place is not None:
                self._keep(place, views, size)
            return
        wait = self._keep_beside(place, views, size)
        try:
            self.far.write(name, views)
        except BaseException:
            wait()
            self._drop(place)  # the caller does not wait for it
            raise
        wait()

    def read(self, name: str, size: int) -> Buffer:
        """Return the blob's bytes, from the copy or from the remote store."""
        return self.read_near(name, size)[0]

    def read_near(self, name: str, size: int) -> tuple[Buffer, bool]:
        """Return the blob's bytes, and whether they come from the copy."""
        place = self._place(name)
        if place is None:
            return self.far.read(name, size), False
        found = self._copy(place, size)
        return self._fetch(place, name, size) if found is None else (found, True)

    def drop_copy(self, name: str) -> None:
        """Delete a copy whose bytes do not match the digest in its row."""
        place = self._place(name)
        if place is not None:
            if len(self._spoilt) >= _MOST_SPOILT:
                self._spoilt.clear()
            self._spoilt.add(place.leaf)
            self._drop(place)

    def stat(self, name: str) -> BlobInfo | None:
        """Return the name and size of one blob in the remote store, or None."""
        return self.far.stat(name)

    def delete(self, name: str) -> None:
        """Delete the copy, and the blob in the remote store."""
        self._drop_all([name])
        self.far.delete(name)

    def delete_many(self, names: Collection[str]) -> dict[str, CachenessError]:
        """Delete the copies and the remote blobs; return the error of each that may still be there."""
        self._drop_all(names)
        return self.far.delete_many(names)

    def _drop_all(self, names: Collection[str]) -> None:
        for place in filter(None, map(self._place, names)):
            self._drop(place)

    def scan(self, prefix: str = "", *, after: str = "") -> Iterator[BlobInfo]:
        """List the blobs of the remote store."""
        return self.far.scan(prefix, after=after)

    def uploads(self, prefix: str = "") -> Iterator[Upload]:
        """List the unfinished uploads of the remote store."""
        return self.far.uploads(prefix)

    def abort(self, upload: Upload) -> None:
        """Delete an unfinished upload of the remote store."""
        self.far.abort(upload)

    @property
    def is_in_use(self) -> bool:
        """Return True when copies are made; after a failure of the disk they are not, for a while."""
        return time.monotonic() >= self._paused_until

    def size(self) -> int:
        """Return the bytes of all copies, as counted."""
        return sum(self._counters())

    def stats(self) -> dict[str, int]:
        """Return the bytes of all copies, and counts of blobs read from copies and from the remote store."""
        return {"bytes": self.size(), "near_reads": self.near_reads, "far_reads": self.far_reads}

    def close(self) -> None:
        """Cancel fetches, and close the remote store."""
        for thread in list(self._beside):
            thread.join(FETCH_PATIENCE)
        self._locks.close()
        self.far.close()

    # copies

    def _begin(self) -> None:
        if not is_local(self._root):
            where = OSError(0, "it is on a network file system, or on one that a process serves")
            self._pass_by(where, float("inf"), reads=False)
            return
        try:
            self._make_directory()
        except OSError as error:
            self._pass_by(error, float("inf"))

    def _make_directory(self) -> None:
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        # The owner made the directory for a group, so the group must be able to read the copies.
        self._mode = stat.S_IMODE(os.stat(self.directory).st_mode) | 0o700
        for folder in (self._root, os.path.join(self._root, _FETCHES)):
            self._make(folder)
        if not os.path.exists(os.path.join(self.directory, CACHE_TAG)):
            tag_cache(self.directory, "Copies of blobs that are stored elsewhere; may be deleted.")

    def _make(self, folder: str) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, self._mode)
            os.chmod(folder, self._mode)  # independent of the umask

    def _create(self, path: str, flags: int) -> int:
        """Create a file of this store if it is missing, for the same users as the directory, whatever the umask is."""
        mode, flags = self._mode & 0o666, flags | os.O_CLOEXEC | os.O_NOFOLLOW
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, mode)
            os.fchmod(descriptor, mode)
            return descriptor
        return os.open(path, flags)

    def _place(self, name: str) -> _PlaceOfCopy | None:
        """Return None for names that are used more than once (the marker), and while copies cannot be read."""
        match = re.fullmatch(OBJECT_NAME, name)
        if match is None or time.monotonic() < self._unread_until:
            return None
        leaf = f"{match['namespace']}.{name.rpartition('/')[2]}"
        return _PlaceOfCopy(int(match["shard"], 16), leaf, os.path.join(self._root, match["shard"], leaf))

    def _copy(self, place: _PlaceOfCopy, size: int) -> Buffer | None:
        """Return a copy of the file's bytes, so that later changes of the file do not matter."""
        try:
            descriptor = os.open(place.path, _READ_FLAGS)
            try:
                found = os.fstat(descriptor)
                data = _read_whole(descriptor, size) if stat.S_ISREG(found.st_mode) and found.st_size == size else None
                # After a clock was set back, the file's mtime lies in the future.
                if data is not None and not 0 <= time.time() - found.st_mtime < USE_GRAIN:
                    with contextlib.suppress(OSError):  # owned by another user, or on a read-only disk
                        os.utime(descriptor)
            finally:
                os.close(descriptor)
        except (FileNotFoundError, PermissionError):
            return None
        except OSError as error:
            if error.errno != errno.ELOOP:
                self._pass_by(error, reads=False)
                return None
            data = None  # a symbolic link is not a copy
        if data is None:
            self._drop(place)
        else:
            self.near_reads += 1
        return data

    def _fetch(self, place: _PlaceOfCopy, name: str, size: int) -> tuple[Buffer, bool]:
        """Read from the remote store, or wait a while for another process that fetches the same blob."""
        if not self._is_kept(size):
            return self._counted(name, size), False  # no copy will appear
        give_up, pause = time.monotonic() + FETCH_PATIENCE, FETCH_PAUSES[0]
        while not self._takes(place):
            if time.monotonic() >= give_up or not self.is_in_use:
                return self._counted(name, size), False
            time.sleep(pause * between(0.5, 1.0))
            pause = min(2 * pause, FETCH_PAUSES[1])
            if (found := self._copy(place, size)) is not None:
                return found, True
        is_kept_beside = False
        try:
            if (found := self._copy(place, size)) is not None:  # fetched since the first check
                return found, True
            data = self._counted(name, size)
            if size < LARGE or place.leaf in self._spoilt:
                self._keep(place, [memoryview(data)], size)
                self._spoilt.discard(place.leaf)
            else:
                # Not waited for. If the value changes during the write, the copy is wrong and its
                # digest shows it; the copy that replaces it is waited for.
                is_kept_beside = True
                self._keep_beside(place, [memoryview(data)], size, last=lambda: self._let_go(place))
            return data, False
        finally:
            if not is_kept_beside:
                self._let_go(place)

    def _let_go(self, place: _PlaceOfCopy) -> None:
        with contextlib.suppress(OSError):
            self._locks.remove(place.leaf)

    def _takes(self, place: _PlaceOfCopy) -> bool:
        try:
            try:
                return self._locks.take(place.leaf)
            except FileNotFoundError:
                self._make_directory()
                return self._locks.take(place.leaf)
        except PermissionError:
            return True  # the lock is another user's, so it does not show whether that process still fetches
        except OSError as error:
            self._pass_by(error)
            return False

    def _counted(self, name: str, size: int) -> Buffer:
        data = self.far.read(name, size)
        self.far_reads += 1
        return data

    def _keep_beside(
        self, place: _PlaceOfCopy, views: Sequence[memoryview], size: int, last: Callable[[], None] = lambda: None
    ) -> Callable[[], None]:
        """Write a copy in a thread, which calls `last` at its end; return an object to wait for it."""

        def keep() -> None:
            try:
                self._keep(place, views, size)
            finally:
                last()
                self._beside.discard(thread)

        thread = threading.Thread(target=keep, name="cacheness-copy", daemon=True)
        self._beside.add(thread)
        try:
            thread.start()
        except RuntimeError:  # no more threads can be started, or the interpreter is shutting down
            keep()
            return lambda: None
        return thread.join

    def _keep(self, place: _PlaceOfCopy, views: Sequence[memoryview], size: int) -> None:
        if not self._is_kept(size):
            return
        folder = os.path.dirname(place.path)
        aside = os.path.join(folder, f"{os.urandom(8).hex()}{UNFINISHED}")
        try:
            self._make_room(size)
            try:
                self._make(folder)
            except FileNotFoundError:  # another program deleted the whole directory
                self._make_directory()
                self._make(folder)
            with open(self._create(aside, os.O_WRONLY), "wb") as file:
                file.writelines(views)
            # Not synced: after a power cut the bytes do not match the signature, and are fetched again.
            before = _size_of(place.path)
            os.rename(aside, place.path)
            self._count(place.shard, size - before)
            if time.monotonic() - self._swept > SWEEP_EVERY:
                self._swept = time.monotonic()
                self._sweep(below(SHARDS))
        except OSError as error:
            self._pass_by(error)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(aside)

    def _is_kept(self, size: int) -> bool:
        return size <= self.most // LARGEST_PART and self.is_in_use

    def _drop(self, place: _PlaceOfCopy) -> None:
        try:
            size = _size_of(place.path)
            os.unlink(place.path)
        except FileNotFoundError:
            return
        except OSError as error:
            self._pass_by(error, reads=False)  # otherwise the bad copy would be read again
            return
        try:
            self._count(place.shard, -size)
        except OSError as error:
            self._pass_by(error)

    def _pass_by(self, error: OSError, seconds: float = PAUSE_AFTER_ERROR, *, reads: bool = True) -> None:
        """Make no copies for a while, read none either unless `reads`, and log this once."""
        until = time.monotonic() + seconds
        self._paused_until = max(self._paused_until, until)
        if not reads:
            self._unread_until = max(self._unread_until, until)
        if not self._has_warned:
            self._has_warned = True
            _log.warning(
                "no copies of blobs are kept%s in %s for now: %s. Blobs are read from the store itself%s",
                "" if reads else " or read",
                self._root,
                error.strerror or error,
                ", unless there is a copy" if reads else "",
            )

    # quota

    def _make_room(self, size: int) -> None:
        total = self.size()
        if total + size <= self.most:
            return
        wanted = int(self.most * FULL_TO) - size
        for _ in range(ROUNDS):
            shards = [shard for shard, held in enumerate(self._counters()) if held > 0]
            copies = sorted(
                ((copy, shard) for shard in chosen(shards, SAMPLE) for copy in self._sweep(shard)),
                key=lambda item: item[0].used,
            )
            total = self.size()
            for copy, shard in copies[: max(1, len(copies) // 4)]:
                if total <= wanted:
                    return
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(copy.path)
                    self._count(shard, -copy.size)
                total -= copy.size
            if total <= wanted:
                return

    def _sweep(self, shard: int) -> list[_KeptCopy]:
        """Count the copies of a shard again; delete unfinished copies of killed processes."""
        copies = []
        with contextlib.suppress(FileNotFoundError), os.scandir(os.path.join(self._root, f"{shard:02x}")) as items:
            for item in items:
                with contextlib.suppress(FileNotFoundError):
                    found = item.stat(follow_symlinks=False)
                    if not item.name.endswith(UNFINISHED):
                        copies.append(_KeptCopy(found.st_mtime, found.st_size, item.path))
                    elif abs(time.time() - found.st_mtime) > ABANDONED:
                        os.unlink(item.path)
        self._count(shard, sum(copy.size for copy in copies), afresh=True)
        return copies

    def _counters(self) -> list[int]:
        try:
            with open(os.open(os.path.join(self._root, _COUNTERS), _READ_FLAGS), "rb") as file:
                text = file.read(SHARDS * _COUNTER.size)
        except OSError:
            return []
        return [max(0, held) for (held,) in _COUNTER.iter_unpack(text[: len(text) // 8 * 8])]

    def _count(self, shard: int, change: int, *, afresh: bool = False) -> None:
        """Change a counter. While other processes hold its lock nothing is counted, until a sweep counts again."""
        at = shard * _COUNTER.size
        with forks.no_fork():  # a forked child would inherit this lock locked
            descriptor = self._create(os.path.join(self._root, _COUNTERS), os.O_RDWR)
            try:
                if _lock_soon(descriptor):
                    held = 0 if afresh else _COUNTER.unpack(os.pread(descriptor, _COUNTER.size, at).ljust(8, b"\0"))[0]
                    os.pwrite(descriptor, _COUNTER.pack(max(0, held + change)), at)
                    platform.unlock(descriptor)
            finally:
                os.close(descriptor)


def _lock_soon(descriptor: int) -> bool:
    for _ in range(_COUNT_TRIES):
        if platform.lock(descriptor):
            return True
        time.sleep(between(0.0, 0.002))
    return False


def _size_of(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except FileNotFoundError:
        return 0


def _read_whole(descriptor: int, size: int) -> Buffer | None:
    buffer = allocate(size)
    return buffer if read_into(buffer, descriptor) == size else None


_conforms: type[BlobStore] = NearBlobStore
