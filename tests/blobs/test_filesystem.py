from __future__ import annotations

import errno
import secrets
import threading

import pytest
from fsspec.implementations.local import LocalFileSystem

from cacheness.blobs.filesystem import FilesystemStore
from cacheness.deadlines import Limits
from cacheness.errors import StoreFull, StoreRefused, StoreUnavailable
from cacheness.testing.contracts.blobs import BlobStoreContract


class TestFsspecMemory(BlobStoreContract):
    @pytest.fixture
    def store(self):
        return FilesystemStore.from_url(f"memory://{secrets.token_hex(8)}", limits=Limits())


class TestFsspecLocal(BlobStoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        return FilesystemStore.from_url(f"local://{tmp_path}/blobs", limits=Limits())


class TestS3fs(BlobStoreContract):
    breaks_off = True

    @pytest.fixture
    def store(self, s3_url):
        store = FilesystemStore.from_url(s3_url + "&engine=s3fs", limits=Limits())
        yield store
        store.close()

    def handle_of_nothing(self) -> str:
        return "00000000-0000-0000-0000-000000000000"


class Troubled(LocalFileSystem):
    """A filesystem with whatever trouble a test asks for."""

    cachable = False
    trouble = None

    def _trouble(self) -> None:
        if isinstance(self.trouble, Exception):
            raise self.trouble
        if self.trouble is not None:
            self.trouble()

    def info(self, path, **kwargs):
        self._trouble()
        return super().info(path, **kwargs)

    def ls(self, path, detail=True, **kwargs):
        self._trouble()
        return super().ls(path, detail=detail, **kwargs)

    def rm_file(self, path):
        self._trouble()
        return super().rm_file(path)

    def _open(self, path, mode="rb", **kwargs):
        file = super()._open(path, mode, **kwargs)
        if mode == "rb":
            return file
        commit = file.commit

        def troubled() -> None:
            self._trouble()
            commit()

        file.commit = troubled
        return file


class UnknownDriverError(Exception):
    pass


CALLS = {
    "write": lambda store: store.write("a/new", [b"new"]),
    "read": lambda store: store.read("a/b", 3),
    "stat": lambda store: store.stat("a/b"),
    "delete": lambda store: store.delete("a/b"),
    "scan": lambda store: list(store.scan()),
}


@pytest.fixture
def filesystem():
    return Troubled()


@pytest.fixture
def troubled(filesystem, tmp_path):
    store = FilesystemStore(filesystem, str(tmp_path), limits=Limits(stall=0.3, total=0.5, cooldown=60))
    store.write("a/b", [b"old"])
    return store


@pytest.mark.parametrize("what", CALLS)
@pytest.mark.parametrize(
    ("trouble", "expected"),
    [
        (UnknownDriverError("what?"), StoreUnavailable),
        (OSError(errno.ECONNRESET, "reset"), StoreUnavailable),
        (PermissionError(errno.EACCES, "no"), StoreRefused),
        (OSError(errno.EROFS, "read-only"), StoreRefused),
        (OSError(errno.ENOSPC, "full"), StoreFull),
        (OSError(errno.EDQUOT, "quota"), StoreFull),
    ],
)
def test_no_driver_s_exception_gets_through(troubled, filesystem, what, trouble, expected) -> None:
    filesystem.trouble = trouble
    with pytest.raises(expected) as caught:
        CALLS[what](troubled)
    assert type(caught.value) is expected
    filesystem.trouble = None
    assert not filesystem.exists(troubled._path("a/new"))


@pytest.mark.parametrize("what", CALLS)
def test_a_filesystem_that_hangs_is_left_behind_after_its_deadline(troubled, filesystem, what) -> None:
    woken = threading.Event()
    filesystem.trouble = lambda: woken.wait(60)
    with pytest.raises(StoreUnavailable):
        CALLS[what](troubled)
    with pytest.raises(StoreUnavailable, match="not called again"):
        troubled.stat("a/b")
    woken.set()


def test_a_write_that_was_given_up_publishes_nothing_later(troubled, filesystem) -> None:
    woken, opened = threading.Event(), threading.Event()
    slow_open = filesystem._open

    def late(*args, **kwargs):
        file = slow_open(*args, **kwargs)
        opened.set()
        woken.wait(60)
        return file

    filesystem._open = late
    with pytest.raises(StoreUnavailable):
        troubled.write("a/new", [b"new"])
    assert opened.is_set()
    woken.set()
    for thread in threading.enumerate():
        if thread.name == "cacheness-blob":
            thread.join(10)
    filesystem._open = slow_open
    assert not filesystem.exists(troubled._path("a/new"))
