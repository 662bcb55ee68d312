"""Store blobs as files: write to a temporary file, sync, rename, sync the directory."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, Final

from cacheness import platform
from cacheness.blobs.names import UNFINISHED, checked
from cacheness.buffers import allocate, read_into
from cacheness.deadlines import Limits
from cacheness.errors import (
    BlobMissing,
    CachenessError,
    ConfigError,
    CorruptEntry,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)
from cacheness.protocols import Buffer, DiskBlobStore
from cacheness.records import BlobInfo, Upload
from cacheness.transfers import failures_of

_ASIDE: Final = rf"(?s)(?P<name>.+)\.[0-9a-f]{{16}}{re.escape(UNFINISHED)}"
#: A symbolic link at a blob's path is not a blob of this store.
_NOT_THERE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_PIECE: Final = 2 << 20  #: bytes that the disk starts to write as soon as they are copied
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED: Final = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR)
# Opening a named pipe without O_NONBLOCK would wait for ever.
_READ_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class LocalBlobStore:
    """Files below one directory on a local disk of this machine.

    The directory may hold files of other programs: `scan` lists them, and nothing else here touches
    them. Names are relative, so the directory may be moved. It is created only when the store is
    opened; a store whose directory was moved away therefore raises an error.
    """

    def __init__(self, root: str | Path, *, limits: Limits) -> None:
        self._root = os.path.abspath(root)
        self._durable: set[str] = set()  # directories whose entry in the parent is known to be on disk
        self._make_root()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._root!r})"

    def write(self, name: str, buffers: Sequence[Buffer]) -> None:
        """Write to a temporary file, sync it, and rename it."""
        with self.writing(name, buffers):
            pass

    @contextlib.contextmanager
    def writing(self, name: str, buffers: Sequence[Buffer]) -> Iterator[None]:
        """Write to a temporary file; after the block, sync it, and rename it."""
        path = self._path(name)
        aside = f"{path}.{os.urandom(8).hex()}{UNFINISHED}"
        try:
            descriptor = self._create(aside, os.path.dirname(path))
            with open(descriptor, "wb") as file:
                _write_whole(file, buffers)
                yield
                platform.sync(descriptor)
            os.rename(aside, path)
            platform.sync_directory(os.path.dirname(path))
        except BaseException as error:
            _remove(aside)
            if isinstance(error, OSError):
                raise self._translated(error, "write", name) from error
            raise

    def read(self, name: str, size: int) -> Buffer:
        """Return a copy of the file's bytes, so that later changes of the file do not matter."""
        try:
            descriptor = os.open(self._path(name), _READ_FLAGS)
            try:
                found = os.fstat(descriptor)
                if stat.S_ISREG(found.st_mode):
                    return _read_whole(descriptor, name, found.st_size, size)
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise self._translated(error, "read", name) from error
            self._insist_on_root()
        raise BlobMissing(f"there is no blob {name} in {self._root}")

    def stat(self, name: str) -> BlobInfo | None:
        """Return one file's name and size, or None."""
        try:
            found = os.lstat(self._path(name))
        except OSError as error:
            if error.errno in _NOT_THERE:
                self._insist_on_root()
                return None
            raise self._translated(error, "look at", name) from error
        return BlobInfo(name, found.st_size) if stat.S_ISREG(found.st_mode) else None

    def delete(self, name: str) -> None:
        """Delete one file. Its directory stays, because removing it would race with a writer."""
        self._unlink(checked(name), name)

    def delete_many(self, names: Collection[str]) -> dict[str, CachenessError]:
        """Delete files; return the error of each that may still be there."""
        return failures_of(self.delete, names, side_by_side=False)

    def scan(self, prefix: str = "", *, after: str = "") -> Iterator[BlobInfo]:
        """List every file below the root, other programs' too, with one directory in memory at a time."""
        for name, size in self._walk("", prefix, after):
            if name.startswith(prefix) and not re.fullmatch(_ASIDE, name):
                yield BlobInfo(name, size)

    def uploads(self, prefix: str = "") -> Iterator[Upload]:
        """List temporary files, of running writers and of killed ones."""
        for path, _ in self._walk("", prefix, ""):
            aside = re.fullmatch(_ASIDE, path)
            if aside and aside["name"].startswith(prefix):
                yield Upload(aside["name"], path)

    def abort(self, upload: Upload) -> None:
        """Delete a temporary file."""
        aside = re.fullmatch(_ASIDE, upload.handle)
        if not aside or aside["name"] != upload.name:
            raise ConfigError(f"{upload.handle!r} is not an unfinished upload of {upload.name!r}")
        checked(upload.name)
        self._unlink(upload.handle, upload.name)

    def close(self) -> None:
        """Do nothing: no file is open between two calls."""

    def _path(self, name: str) -> str:
        return os.path.join(self._root, checked(name))

    def _make_root(self) -> None:
        missing = []
        path = self._root
        while not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path)
        for path in reversed(missing):
            try:
                os.mkdir(path)
                platform.sync_directory(os.path.dirname(path))
            except FileExistsError:
                if not os.path.isdir(path):
                    raise ConfigError(f"{path} is a file, where a directory for blobs should be") from None
            except OSError as error:
                raise self._translated(error, "make a directory for", path) from error

    def _insist_on_root(self) -> None:
        # A missing file on a disk that is not mounted must raise an error, not count as "not there".
        if not os.path.isdir(self._root):
            raise StoreUnavailable(f"the directory {self._root} of the blob store is gone: moved, or not mounted")

    def _create(self, aside: str, directory: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        if directory in self._durable:
            with contextlib.suppress(FileNotFoundError):  # another program deleted it
                return os.open(aside, flags, 0o666)
        self._make_durable(directory)
        return os.open(aside, flags, 0o666)

    def _make_durable(self, directory: str) -> None:
        # The process that created the directory may not have synced the parent yet. Without this
        # sync, a power cut could lose the directory together with a file that we have acknowledged.
        if directory == self._root:
            return
        parent = os.path.dirname(directory)
        self._make_durable(parent)
        try:
            os.mkdir(directory)
        except FileExistsError:
            pass
        except FileNotFoundError:
            self._insist_on_root()
            raise
        platform.sync_directory(parent)
        self._durable.add(directory)

    def _unlink(self, path: str, name: str) -> None:
        try:
            os.unlink(f"{self._root}/{path}")
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise self._translated(error, "delete", name) from error
            self._insist_on_root()

    def _walk(self, directory: str, prefix: str, after: str) -> Iterator[tuple[str, int]]:
        # `scan` orders by whole names, so "a.b" comes before "a/b": a directory sorts as "a/".
        for key, item in self._listing(directory):
            name = directory + key
            if key.endswith("/"):
                if (name.startswith(prefix) or prefix.startswith(name)) and (name > after or after.startswith(name)):
                    yield from self._walk(name, prefix, after)
            elif name.startswith(prefix) and name > after:
                with contextlib.suppress(FileNotFoundError):  # deleted since it was listed
                    yield name, item.stat(follow_symlinks=False).st_size

    def _listing(self, directory: str) -> list[tuple[str, os.DirEntry[str]]]:
        try:
            with os.scandir(f"{self._root}/{directory}") as items:
                # Links are never followed: they belong to other programs, or lead out of the root.
                found = [(item.name + "/" * item.is_dir(follow_symlinks=False), item) for item in items]
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise self._translated(error, "list", directory) from error
            self._insist_on_root()
            return []
        found.sort(key=lambda pair: pair[0])
        return found

    def _translated(self, error: OSError, verb: str, name: str) -> Exception:
        where = f"cannot {verb} {name} in {self._root}: {error.strerror or error}"
        if error.errno in _FULL:
            return StoreFull(f"{where}. Nothing was stored; free space or raise the limit")
        if error.errno in _REFUSED:
            return StoreRefused(f"{where}. Check the owner and the mode of the directory, and how it is mounted")
        return StoreUnavailable(where)


def _write_whole(file: IO[bytes], buffers: Sequence[Buffer]) -> None:
    """Write the buffers. The disk starts with a large file while its rest is copied, so the sync waits less."""
    done = begun = 0
    size = sum(map(len, buffers))
    if size > _PIECE:
        platform.expect(file.fileno(), size)
    for buffer in buffers:
        view = memoryview(buffer)
        for at in range(0, len(view), _PIECE):
            done += file.write(view[at : at + _PIECE])
            if done - begun >= _PIECE:
                platform.begin_sync(file.fileno(), begun)
                begun = done
    file.flush()


def _read_whole(descriptor: int, name: str, found: int, size: int) -> Buffer:
    if found != size:
        raise CorruptEntry(f"blob {name} has {found} bytes where its row has {size}")
    buffer = allocate(size)
    done = read_into(buffer, descriptor)
    if done < size:
        raise CorruptEntry(f"blob {name} ends after {done} bytes where its row has {size}")
    return buffer


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


_conforms: type[DiskBlobStore] = LocalBlobStore
