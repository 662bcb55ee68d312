from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import traceback
import warnings
from pathlib import Path

import pytest

from cacheness.blobs import local
from cacheness.blobs.local import LocalBlobStore
from cacheness.deadlines import Limits
from cacheness.errors import BlobMissing, ConfigError, StoreFull, StoreRefused, StoreUnavailable
from cacheness.records import BlobInfo, Upload
from cacheness.testing.contracts.blobs import NAME, BlobStoreContract


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "blobs"


@pytest.fixture
def store(root) -> LocalBlobStore:
    return LocalBlobStore(root, limits=Limits())


class TestLocalBlobStore(BlobStoreContract):
    @pytest.fixture
    def store(self, root):
        return LocalBlobStore(root, limits=Limits())


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


def fork() -> int:
    with warnings.catch_warnings():  # newer Pythons warn of threads; the child here starts none and needs none
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


# a write is durable before it is visible


def test_file_and_directories_are_synced_around_the_rename(store, root, monkeypatch) -> None:
    steps = []

    def record(name: str, real):
        def call(first, *rest):
            path = os.readlink(f"/proc/self/fd/{first}") if isinstance(first, int) else first
            steps.append((name, path.replace(str(root), "").partition(".")[0] or "/"))
            return real(first, *rest)

        monkeypatch.setattr(local.os, name, call)

    for name in ("mkdir", "fsync", "rename"):
        record(name, getattr(os, name))
    store.write("ns/ab/key.x", [b"value"])
    assert steps == [
        ("mkdir", "/ns"),
        ("fsync", "/"),
        ("mkdir", "/ns/ab"),
        ("fsync", "/ns"),
        ("fsync", "/ns/ab/key"),
        ("rename", "/ns/ab/key"),
        ("fsync", "/ns/ab"),
    ]


def test_the_disk_starts_with_a_large_file_while_the_rest_is_copied(store, root, monkeypatch) -> None:
    steps = []
    monkeypatch.setattr(local, "_PIECE", 1 << 16)
    monkeypatch.setattr(local.platform, "begin_sync", lambda descriptor, start: steps.append((start, size(descriptor))))
    monkeypatch.setattr(local.platform, "sync", lambda descriptor: steps.append(("sync", size(descriptor))))
    buffers = [b"header", os.urandom(150_000), b"", memoryview(os.urandom(1 << 16)), bytearray(os.urandom(70_001))]
    content = b"".join(buffers)
    store.write("large", buffers)
    assert bytes(store.read("large", len(content))) == content
    starts, (last, whole) = steps[:-2], steps[-2]
    assert (last, whole) == ("sync", len(content))
    assert starts
    for (start, _), (following, written) in zip([(0, 0), *starts], starts, strict=False):
        assert start <= following < written <= len(content)


def test_a_blob_is_there_only_after_the_block_that_writes_it(store, root) -> None:
    with store.writing(NAME, [b"one"]):
        assert store.stat(NAME) is None
        assert list(store.scan()) == []
        assert [upload.name for upload in store.uploads()] == [NAME]
    assert bytes(store.read(NAME, 3)) == b"one"
    with pytest.raises(ZeroDivisionError), store.writing(NAME, [b"two"]):
        1 / 0  # noqa: B018
    assert files(root) == [NAME]
    assert bytes(store.read(NAME, 3)) == b"one"


def size(descriptor: int) -> int:
    return os.fstat(descriptor).st_size


def test_a_directory_that_somebody_else_made_is_synced_once_too(store, root, monkeypatch) -> None:
    (root / "ns").mkdir()
    synced = []
    real = os.fsync
    monkeypatch.setattr(local.os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")) or real(fd))
    store.write("ns/a", [b"value"])
    assert str(root) in synced
    synced.clear()
    store.write("ns/b", [b"value"])
    assert str(root) not in synced


# dying in a write

KILLED = """
import os, signal, sys
from cacheness.blobs.local import LocalBlobStore
from cacheness.deadlines import Limits

class Parts:
    def __iter__(self):
        yield bytes(10_000_000)
        os.kill(os.getpid(), signal.SIGKILL)

LocalBlobStore(sys.argv[1], limits=Limits()).write(sys.argv[2], Parts())
"""


def test_a_writer_killed_half_way_leaves_an_upload_that_can_be_aborted(store, root) -> None:
    store.write(NAME, [b"old"])
    killed = subprocess.run([sys.executable, "-c", KILLED, str(root), NAME], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert list(store.scan()) == [BlobInfo(NAME, 3)]
    assert bytes(store.read(NAME, 3)) == b"old"
    (upload,) = store.uploads()
    assert upload.name == NAME
    assert list(store.uploads("default/ab/")) == [upload]
    assert list(store.uploads("other/")) == []
    store.abort(upload)
    store.abort(upload)
    assert list(store.uploads()) == []
    assert files(root) == [NAME]


class Interrupted(BaseException):
    """No handler of the store's may hide this."""


# Between opening a file and entering its `with` block there is a moment in which only the collector closes it.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interruption_at_any_moment_leaves_the_old_blob_or_the_new_one(store, root) -> None:
    def interrupt(number, frame) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        store.write(NAME, [b"0"])
        delay, finished = 20e-6, 0
        while finished < 3:  # later and later, until writes pass untouched
            new = b"x" * 200_000
            try:
                signal.setitimer(signal.ITIMER_REAL, delay)
                store.write(NAME, [new])
                signal.setitimer(signal.ITIMER_REAL, 0)
                finished += 1
            except Interrupted:
                finished = 0
            assert files(root) == [NAME]
            size = store.stat(NAME).size
            assert bytes(store.read(NAME, size)) in (b"0", new)
            store.write(NAME, [b"0"])
            delay *= 1.2
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.collect()


# 34, 35: a full disk, a limited file


def run_limited(script: str, root: Path, *, mount: str = "") -> None:
    """Run a script on a file system of its own, or else with files of at most 1 MiB."""
    limit = "" if mount else "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))"
    prelude = """
        import errno, os, resource, signal, sys
        from cacheness.blobs.local import LocalBlobStore
        from cacheness.deadlines import Limits
        from cacheness.errors import StoreFull, StoreRefused
        root = sys.argv[1]
    """
    code = textwrap.dedent(prelude) + limit + textwrap.dedent(script)
    command = [sys.executable, "-c", code, str(root)]
    if mount:
        shell = f'mount {mount} "$1" && shift && exec "$@"'
        command = ["unshare", "-Urm", "sh", "-c", shell, "sh", str(root), *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def can_mount() -> bool:
    return not subprocess.run(["unshare", "-Urm", "true"], capture_output=True, check=False).returncode


FULL = """
    store = LocalBlobStore(root, limits=Limits())
    store.write("a/old", [b"x" * 1000])
    for name in ("a/old", "a/new"):
        try:
            store.write(name, [bytes(700_000), bytes(700_000)])
        except StoreFull as error:
            assert "free space" in str(error)
        else:
            raise AssertionError("the write went through")
    assert os.listdir(os.path.join(root, "a")) == ["old"], os.listdir(root + "/a")
    assert bytes(store.read("a/old", 1000)) == b"x" * 1000
    store.write("a/new", [b"small"])
"""


def test_a_full_disk_refuses_the_write_and_keeps_what_was_there(tmp_path) -> None:
    # A kernel that forbids mounts to us still limits files: the same refusal by another number.
    run_limited(FULL, tmp_path, mount="-t tmpfs -o size=1m tmpfs" if can_mount() else "")


def test_a_file_larger_than_the_limit_is_refused_and_removed(tmp_path) -> None:
    run_limited(FULL, tmp_path)


@pytest.mark.parametrize("number", ["ENOSPC", "EDQUOT", "EFBIG"])
@pytest.mark.parametrize("step", ["fsync", "rename", "open"])
def test_a_disk_may_turn_out_full_at_any_step(store, root, monkeypatch, step, number) -> None:
    store.write(NAME, [b"old"])
    code = getattr(local.errno, number)

    def full(*arguments):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(local.os, step, full)
        with pytest.raises(StoreFull):
            store.write(NAME, [b"new"])
    assert files(root) == [NAME]
    assert bytes(store.read(NAME, 3)) == b"old"


# 36: read-only


@pytest.fixture
def read_only_root():
    """Outside of pytest's own folder, which is closed to everybody but its owner."""
    root = Path(tempfile.mkdtemp())
    LocalBlobStore(root, limits=Limits()).write(NAME, [b"old"])
    directories = [root, *(path for path in root.rglob("*") if path.is_dir())]
    for path in directories:
        path.chmod(0o555)
    yield root
    for path in directories:
        path.chmod(0o755)
    shutil.rmtree(root)


def test_a_read_only_directory_refuses_writes_and_still_serves(read_only_root) -> None:
    assert in_child_as_nobody(lambda: use_read_only(read_only_root)) == 0


@pytest.mark.slow
def test_a_read_only_mount_refuses_writes_and_still_serves(read_only_root) -> None:
    if not can_mount():
        assert in_child_as_nobody(lambda: use_read_only(read_only_root)) == 0
        return
    script = f"""
        store = LocalBlobStore(root, limits=Limits())
        assert bytes(store.read({NAME!r}, 3)) == b"old"
        assert [info.name for info in store.scan()] == [{NAME!r}]
        for use in (lambda: store.write("x", [b"new"]), lambda: store.delete({NAME!r})):
            try:
                use()
            except StoreRefused:
                continue
            raise AssertionError("it went through")
    """
    run_limited(script, read_only_root, mount=f"--bind -o ro {read_only_root}")


def use_read_only(root: Path) -> None:
    store = LocalBlobStore(root, limits=Limits())
    assert bytes(store.read(NAME, 3)) == b"old"
    assert list(store.scan()) == [BlobInfo(NAME, 3)]
    for use in (lambda: store.write(NAME, [b"new"]), lambda: store.write("x/y", [b"new"]), lambda: store.delete(NAME)):
        with pytest.raises(StoreRefused):
            use()


def in_child_as_nobody(work) -> int:
    """Run in a child that is not root; returns its exit code."""
    child = fork()
    if child == 0:
        code = 1
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setuid(65534)
            work()
            code = 0
        except BaseException:  # noqa: BLE001 - the child ends here
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# 37: directories that move, other people's files


def test_a_renamed_directory_is_a_store_under_its_new_name(store, root) -> None:
    store.write(NAME, [b"old"])
    moved = root.rename(root.with_name("moved"))
    assert bytes(LocalBlobStore(moved, limits=Limits()).read(NAME, 3)) == b"old"


def test_a_store_whose_directory_was_moved_away_says_so_and_does_not_begin_a_new_one(store, root) -> None:
    store.write(NAME, [b"old"])
    root.rename(root.with_name("moved"))
    for use in (
        lambda: store.write(NAME, [b"new"]),
        lambda: store.write("other/x", [b"new"]),
        lambda: store.read(NAME, 3),
        lambda: store.stat(NAME),
        lambda: store.delete(NAME),
        lambda: list(store.scan()),
        lambda: list(store.uploads()),
    ):
        with pytest.raises(StoreUnavailable, match="is gone"):
            use()
    assert not root.exists()


def test_a_symlink_and_a_relative_path_lead_to_the_same_store(store, root, tmp_path, monkeypatch) -> None:
    store.write(NAME, [b"old"])
    (tmp_path / "link").symlink_to(root)
    monkeypatch.chdir(tmp_path)
    for path in ("link", "blobs", "./blobs/../link/"):
        other = LocalBlobStore(path, limits=Limits())
        assert list(other.scan()) == [BlobInfo(NAME, 3)]
        monkeypatch.chdir("/")
        assert bytes(other.read(NAME, 3)) == b"old"
        monkeypatch.chdir(tmp_path)


def test_other_people_s_files_are_listed_and_never_followed(store, root, tmp_path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    store.write(NAME, [b"old"])
    (root / "notes.txt").write_text("mine")
    (root / "ns").mkdir()
    (root / "ns" / "link").symlink_to(outside / "secret")
    (root / "ns" / "folder").symlink_to(outside)
    (root / "film.part").write_text("half a film")
    os.mkfifo(root / "pipe")
    names = [info.name for info in store.scan()]
    assert names == sorted([NAME, "notes.txt", "ns/folder", "ns/link", "film.part", "pipe"])
    assert list(store.uploads()) == []
    for name in ("ns/link", "ns/folder", "pipe"):
        assert store.stat(name) is None
        with pytest.raises(BlobMissing):
            store.read(name, 6)


@pytest.mark.parametrize(
    "handle",
    ["notes.txt", "../outside", f"../x.{'0' * 16}.part", f"{NAME}.part", f"other.{'0' * 16}.part", f"{NAME}.zz.part"],
)
def test_only_unfinished_uploads_can_be_aborted(store, root, tmp_path, handle) -> None:
    (root / "notes.txt").write_text("mine")
    (tmp_path / "outside").write_text("mine")
    with pytest.raises(ConfigError):
        store.abort(Upload(NAME, handle))
    assert (root / "notes.txt").exists()
    assert (tmp_path / "outside").exists()


def test_a_directory_tidied_away_is_made_again(store, root) -> None:
    store.write("ns/ab/1", [b"x"])
    store.delete("ns/ab/1")
    (root / "ns" / "ab").rmdir()
    (root / "ns").rmdir()
    store.write("ns/ab/2", [b"x"])
    assert files(root) == ["ns/ab/2"]


def test_a_file_in_the_directory_s_place_is_a_configuration_error(tmp_path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError):
            LocalBlobStore(path, limits=Limits())


# what a reader holds


def test_a_buffer_survives_the_truncation_of_its_file(store, root) -> None:
    store.write(NAME, [bytes(range(256)) * (8 << 12)])
    buffer = store.read(NAME, 8 << 20)
    os.truncate(root / NAME, 0)
    assert bytes(buffer) == bytes(range(256)) * (8 << 12)


def test_a_forked_child_does_not_write_into_its_parent_s_buffer(store) -> None:
    store.write(NAME, [bytes(8 << 20)])
    view = memoryview(store.read(NAME, 8 << 20))
    child = fork()
    if child == 0:
        view[0] = 1
        os._exit(0)
    os.waitpid(child, 0)
    assert view[0] == 0
