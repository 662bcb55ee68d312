"""Store blobs in any filesystem that fsspec supports, S3 through `s3fs_store` included."""

from __future__ import annotations

import contextlib
import errno
import inspect
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import fsspec  # type: ignore[import-untyped]
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem  # type: ignore[import-untyped]

from cacheness import threads
from cacheness.blobs.names import checked
from cacheness.blobs.s3_shared import PART, parse_query
from cacheness.buffers import allocate, views_of
from cacheness.circuit import Guard
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
from cacheness.protocols import BlobStore, Buffer
from cacheness.records import BlobInfo, Upload
from cacheness.transfers import failures_of

T = TypeVar("T")

CHUNK: Final = 1 << 20
_NOT_THERE: Final = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
#: Errors in our program or the caller's, not failures of the store.
_MISTAKES: Final = (TypeError, ValueError, AttributeError, LookupError, AssertionError, MemoryError)


class FilesystemStore:
    """Files below one directory of a filesystem that publishes a file only when it is complete.

    In fsspec such a filesystem opens files with `autocommit=False`: object stores, local and remote
    disks do. fsspec has no call that lists unfinished uploads.
    """

    def __init__(self, filesystem: AbstractFileSystem, root: str, *, limits: Limits) -> None:
        self._filesystem = filesystem
        self._root = root.rstrip("/")
        self._limits = limits
        self._place = f"{type(filesystem).__name__} {self._root}"
        self._guard = Guard(self._place, limits)

    @classmethod
    def from_url(cls, url: str, *, limits: Limits) -> BlobStore:
        """Open a URL; its options are the parameters of fsspec's class for the scheme."""
        parts = urlsplit(url)
        if parts.scheme == "s3":
            from cacheness.blobs.s3fs_store import S3fsStore

            return S3fsStore.from_url(url, limits=limits)
        try:
            kind = fsspec.get_filesystem_class(parts.scheme)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"blobs cannot be kept at {parts.scheme}://: {error}") from error
        options = parse_query(parts.query, _options_of(kind))
        bare = parts._replace(query="").geturl()
        filesystem, root = fsspec.url_to_fs(
            bare, use_listings_cache=False, skip_instance_cache=True, **_booleans(options)
        )
        return cls(filesystem, root, limits=limits)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._place!r})"

    def write(self, name: str, buffers: Sequence[Buffer]) -> None:
        """Write a file, which becomes visible when it is complete."""
        views, size = views_of(buffers)
        path = self._path(name)
        self._call(f"write {name}", size, lambda given_up: self._write(path, views, given_up))

    def read(self, name: str, size: int) -> Buffer:
        """Read a file into one buffer."""
        path = self._path(name)
        return self._call(f"read {name}", size, lambda _: self._read(name, path, size))

    def stat(self, name: str) -> BlobInfo | None:
        """Return one file's name and size, or None."""
        path = self._path(name)
        try:
            found = self._call(f"look at {name}", 0, lambda _: self._filesystem.info(path))
        except BlobMissing:
            return None
        return BlobInfo(name, found["size"]) if found["type"] == "file" else None

    def delete(self, name: str) -> None:
        """Delete one file, if it is there."""
        path = self._path(name)
        with contextlib.suppress(BlobMissing):
            self._call(f"delete {name}", 0, lambda _: self._filesystem.rm_file(path))

    def delete_many(self, names: Collection[str]) -> dict[str, CachenessError]:
        """Delete files in parallel; return the error of each that may still be there."""
        return failures_of(self.delete, names)

    def scan(self, prefix: str = "", *, after: str = "") -> Iterator[BlobInfo]:
        """List every file below the root, sorted by name, with one directory in memory at a time."""
        return self._walk("", prefix, after)

    def uploads(self, prefix: str = "") -> Iterator[Upload]:
        """Return nothing: fsspec cannot list unfinished uploads."""
        yield from ()

    def abort(self, upload: Upload) -> None:
        """Do nothing: there are no unfinished uploads to delete."""

    def close(self) -> None:
        """Do nothing: fsspec closes connections when they are collected."""

    def _path(self, name: str) -> str:
        return f"{self._root}/{checked(name)}"

    def _write(self, path: str, views: list[memoryview], given_up: threading.Event) -> None:
        if isinstance(self._filesystem, MemoryFileSystem):
            # This filesystem publishes a file when it is opened, but accepts a whole file in one call.
            self._filesystem.pipe_file(path, b"".join(views))
            return
        create = partial(self._filesystem.open, path, "wb", autocommit=False, block_size=PART)
        file = self._in_directory(path, create)
        try:
            for view in views:
                for start in range(0, len(view), PART):
                    file.write(view[start : start + PART])
                    _check(given_up)
            file.close()
            _check(given_up)
            self._in_directory(path, file.commit)
        except BaseException:
            if isinstance(file, AbstractBufferedFile):
                file.closed = True  # otherwise its finaliser publishes the incomplete file
            with contextlib.suppress(OSError):
                file.discard()
            raise

    def _in_directory(self, path: str, action: Callable[[], T]) -> T:
        try:
            return action()
        except FileNotFoundError:  # only where directories are real, not just prefixes of names
            self._filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
            return action()

    def _read(self, name: str, path: str, size: int) -> Buffer:
        found = self._filesystem.info(path)
        if found["type"] != "file":
            raise FileNotFoundError(path)
        if found["size"] != size:
            raise CorruptEntry(f"blob {name} has {found['size']} bytes where its row has {size}")
        buffer = allocate(size)
        with memoryview(buffer) as view, self._filesystem.open(path, "rb", cache_type="none") as file:
            done = 0
            while done < size:
                chunk = file.read(min(CHUNK, size - done))
                if not chunk:
                    raise CorruptEntry(f"blob {name} ends after {done} bytes where its row has {size}")
                view[done : done + len(chunk)] = chunk
                done += len(chunk)
        return buffer

    def _walk(self, directory: str, prefix: str, after: str) -> Iterator[BlobInfo]:
        # Whole names are compared, so "a.b" comes before "a/b": a directory sorts as "a/".
        for name, size in self._call("list blobs", 0, lambda _: self._listing(directory)):
            if name.endswith("/"):
                if (name.startswith(prefix) or prefix.startswith(name)) and (name > after or after.startswith(name)):
                    yield from self._walk(name, prefix, after)
            elif name.startswith(prefix) and name > after:
                yield BlobInfo(name, size)

    def _listing(self, directory: str) -> list[tuple[str, int]]:
        path = f"{self._root}/{directory}".rstrip("/")
        self._filesystem.invalidate_cache(path)
        try:
            found = self._filesystem.ls(path, detail=True)
        except _NOT_THERE:
            return []
        named = [(str(item["name"]).rstrip("/").rpartition("/")[2], item) for item in found]
        return sorted(
            (directory + name + "/" * (item["type"] == "directory"), int(item["size"] or 0))
            for name, item in named
            if name
        )

    def _call(self, what: str, size: int, request: Callable[[threading.Event], T]) -> T:
        seconds = self._limits.transfer(size)

        def attempt() -> T:
            try:
                return _in_time(request, seconds)
            except (CachenessError, *_MISTAKES):
                raise
            except Exception as error:  # each filesystem raises different exceptions
                raise _translated(error, f"cannot {what} in {self._place}") from error

        return self._guard.call(attempt)


def _in_time(request: Callable[[threading.Event], T], seconds: float) -> T:
    """Run a request in a new thread, and wait at most this long for it.

    Few filesystems accept a deadline. A request that hangs keeps its thread; the circuit limits how
    many. A pool will not do, because Python waits for a pool's threads before it exits. Where no
    thread can be started, there is no deadline.
    """
    outcome: Future[T] = Future()
    given_up = threading.Event()

    def run() -> None:
        try:
            outcome.set_result(request(given_up))
        except BaseException as error:  # noqa: BLE001 - raised again by result()
            outcome.set_exception(error)

    if not threads.started(run, "cacheness-blob"):
        run()
    try:
        return outcome.result(seconds)
    except BaseException:
        given_up.set()
        raise


def _check(given_up: threading.Event) -> None:
    if given_up.is_set():
        raise StoreUnavailable("the caller no longer waits for this")


def _translated(error: Exception, text: str) -> CachenessError:
    text = f"{text}: {type(error).__name__}: {error}"
    if isinstance(error, _NOT_THERE):
        return BlobMissing(text)
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreFull(f"{text}. Nothing was stored; free space or raise the limit")
    if isinstance(error, PermissionError) or number == errno.EROFS:
        return StoreRefused(f"{text}. Check the credentials, and what they may do")
    return StoreUnavailable(text)


def _options_of(kind: type[AbstractFileSystem]) -> list[str]:
    # fsspec's classes accept any keyword and ignore unknown ones.
    parameters = inspect.signature(kind.__init__).parameters.values()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [parameter.name for parameter in parameters if parameter.kind in named and parameter.name != "self"]


def _booleans(options: dict[str, str]) -> dict[str, Any]:
    words = {"true": True, "false": False}
    return {name: words.get(value, value) for name, value in options.items()}


_conforms: type[BlobStore] = FilesystemStore
