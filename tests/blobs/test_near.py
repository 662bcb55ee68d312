"""Copies on this machine's disk: a blob store like any other, and trouble with the disk costs a warning."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cacheness import Config, UnifiedCache, platform
from cacheness.blobs import near
from cacheness.blobs.memory import MemoryBlobStore
from cacheness.blobs.near import NearBlobStore
from cacheness.blobs.object_store import ObjectStore
from cacheness.deadlines import Limits
from cacheness.errors import BlobMissing, ConfigError, StoreUnavailable
from cacheness.protocols import BlobStore, Buffer
from cacheness.testing.contracts.blobs import NAME, BlobStoreContract
from cacheness.testing.proxy import Proxy
from tests.conftest import SIGNING_KEY
from tests.metadata.programs import in_namespace

MOST = 10_000


class Far(MemoryBlobStore):
    """A store that counts what is read of it."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.seconds = 0.0

    def read(self, name: str, size: int) -> Buffer:
        self.reads += 1
        time.sleep(self.seconds)
        return super().read(name, size)


def name_of(number: int, shard: int = 0xAB) -> str:
    return f"default/{shard:02x}/{shard:02x}{number:062d}.0123456789abcdef.fedcba9876543210"


@pytest.fixture
def far() -> Far:
    return Far()


@pytest.fixture
def store(far: Far, tmp_path: Path) -> Iterator[NearBlobStore]:
    store = NearBlobStore(far, tmp_path / "near", MOST)
    yield store
    store.close()


def copies(folder: Path) -> list[Path]:
    return [path for path in folder.glob("near/1/[0-9a-f][0-9a-f]/*") if not path.name.endswith(".part")]


class TestNearBlobStore(BlobStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[NearBlobStore]:
        store = NearBlobStore(MemoryBlobStore(), tmp_path, 1 << 30)
        yield store
        store.close()


def test_what_was_written_or_read_is_read_without_the_store_behind(far: Far, tmp_path: Path) -> None:
    one = NearBlobStore(far, tmp_path / "near", MOST)
    one.write(NAME, [b"one"])
    assert (bytes(one.read(NAME, 3)), far.reads) == (b"one", 0)
    other = NearBlobStore(far, tmp_path / "elsewhere", MOST)
    assert [bytes(other.read(NAME, 3)) for _ in range(3)] == [b"one"] * 3
    assert far.reads == 1
    assert other.stats() == {"bytes": 3, "near_reads": 2, "far_reads": 1}


def test_what_is_no_blob_of_an_entry_is_never_copied(store: NearBlobStore, far: Far, tmp_path: Path) -> None:
    store.write("cacheness-store.json", [b"marker"])
    for reads in (1, 2):
        assert (bytes(store.read("cacheness-store.json", 6)), far.reads) == (b"marker", reads)
    assert copies(tmp_path) == []


def test_a_deleted_blob_and_its_copy_are_gone(store: NearBlobStore, tmp_path: Path) -> None:
    for delete in (lambda: store.delete(NAME), lambda: store.delete_many([NAME])):
        store.write(NAME, [b"one"])
        delete()
        assert copies(tmp_path) == []
        assert store.size() == 0
        with pytest.raises(BlobMissing):
            store.read(NAME, 3)


def test_the_copies_take_no_more_than_they_may_and_the_oldest_go(store: NearBlobStore, tmp_path: Path) -> None:
    for number in range(100):
        store.write(name_of(number, number % 8), [bytes(500)])
        for path in copies(tmp_path):
            os.utime(path, (path.stat().st_mtime - 10,) * 2)  # so that each is older than the next
        held = sum(path.stat().st_size for path in copies(tmp_path))
        assert held <= MOST
        assert store.size() == held
    kept = sorted(int(path.name.split(".")[1][-8:]) for path in copies(tmp_path))
    assert len(kept) >= 15
    assert min(kept) >= 70


@pytest.mark.parametrize("size", [MOST // 4 + 1, MOST, 10 * MOST])
def test_a_blob_that_is_large_beside_the_room_is_not_copied(store: NearBlobStore, tmp_path: Path, size: int) -> None:
    store.write(NAME, [bytes(size)])
    assert bytes(store.read(NAME, size)) == bytes(size)
    assert copies(tmp_path) == []


def test_a_sweep_puts_the_counters_right_and_removes_what_the_dead_left(store: NearBlobStore, tmp_path: Path) -> None:
    store.write(NAME, [bytes(1000)])
    (tmp_path / "near/1/sizes").write_bytes(b"\xff" * 100)
    left, fresh = (tmp_path / "near/1/ab" / f"{n}.part" for n in ("old", "new"))
    for path, age in ((left, 7200), (fresh, 0)):
        path.write_bytes(b"x")
        os.utime(path, (time.time() - age,) * 2)
    store._sweep(0xAB)
    assert store._counters()[0xAB] == 1000
    assert (left.exists(), fresh.exists()) == (False, True)


def test_a_use_is_noted_once_an_hour(store: NearBlobStore, tmp_path: Path) -> None:
    store.write(NAME, [b"one"])
    (path,) = copies(tmp_path)
    for age, is_noted in ((10, False), (7200, True), (-7200, True)):
        at = time.time() - age
        os.utime(path, (at, at))
        store.read(NAME, 3)
        assert (abs(path.stat().st_mtime - at) > 60) == is_noted


def test_the_directory_is_its_user_s_and_a_cache(store: NearBlobStore, tmp_path: Path) -> None:
    store.write(NAME, [b"one"])
    for folder in ("near", "near/1", "near/1/ab"):
        assert (tmp_path / folder).stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in copies(tmp_path)] == [0o600]
    assert (tmp_path / "near/CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55\n")


def test_a_directory_that_was_made_for_a_group_stays_the_group_s(far: Far, tmp_path: Path) -> None:
    (tmp_path / "near").mkdir()
    (tmp_path / "near").chmod(0o770)
    NearBlobStore(far, tmp_path / "near", MOST).write(NAME, [b"one"])
    assert (tmp_path / "near/1/ab").stat().st_mode & 0o777 == 0o770
    files = [*copies(tmp_path), tmp_path / "near/1/sizes"]
    assert [path.stat().st_mode & 0o777 for path in files] == [0o660] * 2  # whatever the umask is


# trouble


@pytest.mark.parametrize("spoil", [b"", b"on", b"onto", b"long" * 100])
def test_a_copy_of_another_size_is_fetched_again(store: NearBlobStore, far: Far, tmp_path: Path, spoil: bytes) -> None:
    store.write(NAME, [b"one"])
    (path,) = copies(tmp_path)
    path.write_bytes(spoil)
    assert [bytes(store.read(NAME, 3)) for _ in range(2)] == [b"one"] * 2
    assert far.reads == 1


def test_a_directory_that_is_deleted_in_use_is_made_again(
    store: NearBlobStore, far: Far, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.write(NAME, [b"one"])
    shutil.rmtree(tmp_path / "near")
    assert [bytes(store.read(NAME, 3)) for _ in range(2)] == [b"one"] * 2
    assert far.reads == 1
    shutil.rmtree(tmp_path / "near")
    store.write(name_of(2), [b"two"])
    assert len(copies(tmp_path)) == 1
    assert (tmp_path / "near/CACHEDIR.TAG").exists()
    assert caplog.text == ""


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_copies_that_this_user_may_only_read_are_read(
    store: NearBlobStore,
    far: Far,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
) -> None:
    store.write(NAME, [b"one"])
    place, opened = store._place(NAME), os.open
    assert place is not None
    os.utime(place.path, (1, 1))  # so that a use would be noted
    far.write(name_of(2), [b"two"])

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    def reading(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        return refuse() if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR) else opened(path, flags, *rest, **more)

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(os, "open", reading)
    monkeypatch.setattr(store._locks, "take", refuse)
    for _ in range(3):
        assert bytes(store.read(name_of(2), 3)) == b"two"
        assert bytes(store.read(NAME, 3)) == b"one"
    assert far.reads == 3
    assert len(caplog.records) == 1
    assert "unless there is a copy" in caplog.text


def test_a_spoilt_copy_that_cannot_be_removed_is_read_once(
    store: NearBlobStore, far: Far, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    store.write(NAME, [b"one"])
    copies(tmp_path)[0].write_bytes(b"two")
    assert store.read_near(NAME, 3) == (b"two", True)
    monkeypatch.setattr(os, "unlink", refuse)
    store.drop_copy(NAME)
    assert store.read_near(NAME, 3) == (b"one", False)


def test_a_link_in_place_of_a_copy_is_removed_and_one_of_the_counters_is_not_followed(
    store: NearBlobStore, far: Far, tmp_path: Path
) -> None:
    store.write(NAME, [b"one"])
    (path,) = copies(tmp_path)
    (tmp_path / "other").write_bytes(b"two")
    path.unlink()
    path.symlink_to(tmp_path / "other")
    assert [bytes(store.read(NAME, 3)) for _ in range(2)] == [b"one"] * 2
    assert (far.reads, path.is_symlink()) == (1, False)
    (tmp_path / "near/1/sizes").unlink()
    (tmp_path / "near/1/sizes").symlink_to(tmp_path / "other")
    store.write(name_of(2), [b"new"])
    assert (tmp_path / "other").read_bytes() == b"two"


def test_nobody_waits_for_a_blob_that_is_too_large_to_be_copied(store: NearBlobStore, far: Far) -> None:
    far.write(NAME, [bytes(MOST)])
    together = threading.Barrier(4, timeout=30)

    def read(name: str, size: int) -> Buffer:
        together.wait()
        return bytes(size)

    far.read = read  # type: ignore[method-assign]
    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(lambda _: store.read(NAME, MOST), range(4)))) == 4


@pytest.mark.parametrize("kind", ["sqlite", "json"])
@pytest.mark.parametrize("near_directory", ["one/cache", "one", "one/cache/../../one/", "."])
def test_the_directory_of_a_cache_is_no_directory_of_copies(tmp_path: Path, near_directory: str, kind: str) -> None:
    directory, apart = tmp_path / "one/cache", {"metadata_backend": "postgresql://there/db"}
    with pytest.raises(ConfigError, match="a separate directory"):
        Config(cache_dir=str(directory), near=str(tmp_path / near_directory), metadata_backend=kind)
    assert Config(cache_dir=str(directory), near=str(directory / "near"), metadata_backend=kind).near
    assert Config(cache_dir=str(directory), near=str(tmp_path / near_directory), **apart).near
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["nfs4", "fuse.sshfs", "fuse", "lustre", "cifs"])
def test_a_network_file_system_is_passed_by(
    far: Far, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    (tmp_path / "mounts").write_text(f"/dev/sda / ext4 rw 0 0\nserver:/x {tmp_path}/share {kind} rw 0 0\n")
    monkeypatch.setattr(platform, "_MOUNTS", tmp_path / "mounts")
    store = NearBlobStore(far, tmp_path / "share/near", MOST)
    store.write(NAME, [b"one"])
    assert [bytes(store.read(NAME, 3)) for _ in range(3)] == [b"one"] * 3
    assert far.reads == 3
    assert not (tmp_path / "share").exists()
    assert len(caplog.records) == 1
    assert "network file system" in caplog.text


def test_a_directory_that_cannot_be_used_costs_one_warning(
    far: Far, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    store = NearBlobStore(far, tmp_path / "file" / "near", MOST)
    for number in range(3):
        store.write(name_of(number), [b"one"])
        assert bytes(store.read(name_of(number), 3)) == b"one"
    assert far.reads == 3
    assert len(caplog.records) == 1


def test_a_full_disk_costs_one_warning_and_is_tried_again(
    store: NearBlobStore, far: Far, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", full)
        for number in range(3):
            store.write(name_of(number), [b"one"])
            assert bytes(store.read(name_of(number), 3)) == b"one"
    assert [record.getMessage() for record in caplog.records if "No space left" not in record.getMessage()] == []
    assert len(caplog.records) == 1
    assert list((tmp_path / "near/1/ab").iterdir()) == []
    store._paused_until = 0.0
    store.write(NAME, [b"one"])
    assert len(copies(tmp_path)) == 1


@pytest.mark.parametrize("stores", [1, 16])
def test_of_many_that_want_one_blob_one_fetches_it(far: Far, tmp_path: Path, stores: int) -> None:
    far.write(NAME, [bytes(1000)])
    far.seconds = 0.05
    # Their locks are those of open files, so that stores keep each other out as processes do.
    near_stores = [NearBlobStore(far, tmp_path / "near", MOST) for _ in range(stores)]
    with ThreadPoolExecutor(16) as pool:
        read = pool.map(lambda number: near_stores[number % stores].read(NAME, 1000), range(16))
        assert {bytes(data) for data in read} == {bytes(1000)}
    assert far.reads == 1


def test_who_waits_too_long_for_another_fetches_itself(
    store: NearBlobStore, far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near, "FETCH_PATIENCE", 0.05)
    far.write(NAME, [b"one"])
    place = store._place(NAME)
    assert place is not None
    assert store._locks.take(place.leaf)
    assert (bytes(store.read(NAME, 3)), far.reads) == (b"one", 1)


def test_when_a_fetch_fails_the_next_one_fetches(store: NearBlobStore, far: Far) -> None:
    def down(name: str, size: int) -> Buffer:
        raise StoreUnavailable("it is down")

    far.read = down  # type: ignore[method-assign]
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            store.read(NAME, 3)
    del far.read
    far.write(NAME, [b"one"])
    assert bytes(store.read(NAME, 3)) == b"one"


# large ones, whose copies are written in threads


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "LARGE", 2)


@pytest.mark.usefixtures("large")
class TestNearBlobStoreWithLargeBlobs(TestNearBlobStore):
    pass


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("stores", [1, 16])
def test_of_many_that_want_one_large_blob_one_fetches_it(far: Far, tmp_path: Path, stores: int) -> None:
    test_of_many_that_want_one_blob_one_fetches_it(far, tmp_path, stores)


@pytest.mark.usefixtures("large")
def test_who_changes_large_values_in_place_spoils_one_copy_and_not_the_next(
    store: NearBlobStore, far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiling(place: Any, views: Any, size: int, last: Any) -> Any:
        store._keep(place, [bytes(size)], size)
        last()

    far.write(NAME, [b"one"])
    monkeypatch.setattr(store, "_keep_beside", spoiling)
    assert store.read_near(NAME, 3) == (b"one", False)
    assert store.read_near(NAME, 3) == (bytes(3), True)
    store.drop_copy(NAME)
    assert [store.read_near(NAME, 3) for _ in range(2)] == [(b"one", False), (b"one", True)]


@pytest.mark.usefixtures("large")
def test_the_copy_of_a_large_blob_is_there_when_the_store_is_closed(far: Far, tmp_path: Path) -> None:
    for blob in (b"one", b"four"):
        far.write(NAME, [blob])
        store = NearBlobStore(far, tmp_path / str(len(blob)) / "near", MOST)
        assert bytes(store.read(NAME, len(blob))) == blob
        store.close()
        (copy,) = copies(tmp_path / str(len(blob)))
        assert copy.read_bytes() == blob


@pytest.mark.usefixtures("large")
def test_a_large_blob_that_could_not_be_written_leaves_no_copy(
    store: NearBlobStore, far: Far, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(name: str, buffers: object) -> None:
        raise StoreUnavailable("it is full")

    monkeypatch.setattr(far, "write", full)
    with pytest.raises(StoreUnavailable):
        store.write(NAME, [b"large"])
    assert copies(tmp_path) == []
    assert store.size() == 0


@pytest.mark.usefixtures("large")
def test_where_no_thread_can_be_started_the_copy_is_written_all_the_same(
    store: NearBlobStore, far: Far, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_more)
    store.write(NAME, [b"large"])
    assert len(copies(tmp_path)) == 1
    store.drop_copy(NAME)
    assert bytes(store.read(NAME, 5)) == b"large"
    assert len(copies(tmp_path)) == 1


STEPS = {
    "open": "os.open = lambda path, *a, o=os.open: die() if path.endswith('.part') else o(path, *a)",
    "rename": "os.rename = lambda *_: die()",
    "renamed": "NearBlobStore._count = lambda *_, **__: die()",
    "fetched": "NearBlobStore._keep = lambda *_: die()",
}


@pytest.mark.parametrize("step", STEPS)
def test_a_process_that_is_killed_at_any_step_leaves_a_copy_or_none(tmp_path: Path, far: Far, step: str) -> None:
    program = f"""
import os, signal
from cacheness.blobs.local import LocalBlobStore
from cacheness.blobs.near import NearBlobStore
from cacheness.blobs.object_store import ObjectStore
from cacheness.deadlines import Limits
from cacheness.deadlines import Limits
def die(): os.kill(os.getpid(), signal.SIGKILL)
store = NearBlobStore(LocalBlobStore({str(tmp_path / "far")!r}, limits=Limits()), {str(tmp_path / "near")!r}, {MOST})
store.far.write({NAME!r}, [b"one"])
{STEPS[step]}
store.read({NAME!r}, 3)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    far.write(NAME, [b"one"])
    store = NearBlobStore(far, tmp_path / "near", MOST)
    assert [bytes(store.read(NAME, 3)) for _ in range(2)] == [b"one"] * 2
    assert far.reads == (step != "renamed")
    store._sweep(0xAB)
    assert store.size() == 3
    store.close()


# in a cache


@pytest.mark.external
def test_a_cache_reads_near_and_what_is_spoilt_from_far(
    emptied_url: str, s3_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    value = os.urandom(100_000)
    where = {"metadata_backend": emptied_url, "blob_store": s3_url, "signing_key": SIGNING_KEY}
    with (
        UnifiedCache(**where) as writer,
        UnifiedCache(near=tmp_path / "near", near_bytes="10MB", **where) as cache,
    ):
        writer.put(value, n=1)
        for _ in range(3):
            assert cache.get(n=1) == value
        assert cache.stats()["near"] == {"bytes": cache.stats()["bytes"], "near_reads": 2, "far_reads": 1}
        assert [finding for finding in cache.diagnose() if not finding.ok] == []
        assert [finding.part for finding in cache.diagnose()].count("near") == 1
        (path,) = copies(tmp_path)
        path.write_bytes(b"\0" * path.stat().st_size)
        assert cache.get(n=1) == value
        assert cache.get(n=1) == value
        assert {row.name: row.hits for row in cache.report(by="outcome")} == {"hit": 2, "near hit": 3}
        # A check looks at the bucket and not at the copy.
        (entry,) = writer.iter_entries()
        assert entry.blob is not None
        writer._store.blobs.delete(entry.blob)
        assert [issue.kind for issue in cache.verify_integrity(deep=True)] == ["dangling"]
        assert cache.get(n=1) == value
        cache.invalidate(n=1)
        assert cache.get(n=1) is None
        assert copies(tmp_path) == []
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
        # What the bucket has wrong is no copy for long.
        entry = writer.put(value, n=2)
        assert entry.blob is not None
        writer._store.blobs.write(entry.blob, [b"\0" * entry.size])
        assert cache.get(n=2) is None
        assert copies(tmp_path) == []
    assert "not the ones that were written" in caplog.text


# trouble on the way


@pytest.fixture
def far_away(s3_url: str) -> Iterator[tuple[Proxy, BlobStore]]:
    """A bucket behind a proxy that does harm, and the store of who reaches it through that."""
    with Proxy.before(s3_url) as bucket:
        store = ObjectStore.from_url(bucket.url, limits=Limits(connect=1.0, stall=0.5, attempts=2, total=3.0))
        yield bucket, store
        store.close()


@pytest.mark.external
def test_a_download_that_is_cut_is_tried_again_and_kept_whole(
    far_away: tuple[Proxy, BlobStore], tmp_path: Path
) -> None:
    bucket, store = far_away
    blob = os.urandom(2_000_000)
    store.write(NAME, [blob])
    tier = NearBlobStore(store, tmp_path / "near", 1 << 30)
    bucket.cut_response(1_000_000)
    assert bytes(tier.read(NAME, len(blob))) == blob
    assert bucket.cut_left is None
    (copy,) = copies(tmp_path)
    assert copy.read_bytes() == blob


@pytest.mark.external
def test_a_download_that_never_ends_leaves_nothing_and_keeps_nobody_out(
    far_away: tuple[Proxy, BlobStore], tmp_path: Path
) -> None:
    bucket, store = far_away
    blob = os.urandom(300_000)
    store.write(NAME, [blob])
    tiers = [NearBlobStore(store, tmp_path / "near", 1 << 30) for _ in range(2)]
    bucket.stall()
    with pytest.raises(StoreUnavailable):
        tiers[0].read(NAME, len(blob))
    assert not list(tmp_path.glob("near/1/[0-9a-f][0-9a-f]/*"))
    bucket.heal()
    assert bytes(tiers[1].read(NAME, len(blob))) == blob
    assert tiers[1].stats()["far_reads"] == 1


@pytest.mark.external
def test_wrong_bytes_from_afar_are_a_miss_and_are_not_kept(
    emptied_url: str, s3_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Proxy.before(s3_url) as bucket:
        where = {"metadata_backend": emptied_url, "blob_store": bucket.url, "signing_key": SIGNING_KEY}
        with UnifiedCache(**where) as writer, UnifiedCache(near=tmp_path / "near", **where) as cache:
            value = os.urandom(100_000)
            entry = writer.put(value, n=1)
            stamps = {"ETag": '"x"', "Last-Modified": "Sun, 22 Nov 2026 14:31:01 GMT"}
            bucket.answer(b"GET /", 200, bytes(entry.size), stamps)
            assert cache.get(n=1) is None
            assert "not the ones that were written" in caplog.text
            assert copies(tmp_path) == []
            bucket.heal()
            assert cache.get(n=1) == value
            assert cache.get(n=1) == value
            assert cache.stats()["near"]["near_reads"] == 1


@pytest.mark.parametrize("seconds", [-10 * 365 * 86400, 10 * 365 * 86400])
def test_a_clock_that_jumps_costs_nothing_but_the_order_in_which_copies_go(
    store: NearBlobStore, far: Far, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    now = time.time()
    store.write(name_of(0), [bytes(1000)])
    monkeypatch.setattr(near.time, "time", lambda: now + seconds)
    for number in range(1, 30):
        store.write(name_of(number), [bytes(1000)])
        assert bytes(store.read(name_of(number), 1000)) == bytes(1000)
        assert store.size() <= MOST * 1.1
    store._sweep(0xAB)
    assert store.size() == sum(copy.stat().st_size for copy in copies(tmp_path)) <= MOST * 1.1
    assert far.reads == 0


def test_another_version_of_the_library_has_a_folder_of_its_own(
    store: NearBlobStore, far: Far, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(NAME, [b"one"])
    monkeypatch.setattr(near, "FORMAT", "2")
    newer = NearBlobStore(far, tmp_path / "near", MOST)
    assert (bytes(newer.read(NAME, 3)), newer.stats()["far_reads"]) == (b"one", 1)
    newer.delete(NAME)
    assert (bytes(store.read(NAME, 3)), store.stats()["near_reads"]) == (b"one", 1)
    assert store.size() == 3
    newer.close()


#: Writes blobs whose copies do not fit on the disk, and then some that do.
FULL = """
import os, sys, warnings, logging
from pathlib import Path
from cacheness.blobs import near
from cacheness.blobs.memory import MemoryBlobStore
disk, large = Path(sys.argv[1]), int(sys.argv[2])
near.LARGE = large
told = []
logging.getLogger("cacheness").addHandler(logging.Handler())
logging.getLogger("cacheness").handlers[0].emit = told.append
store = near.NearBlobStore(MemoryBlobStore(), disk / "near", 1 << 30)
blobs = {f"default/ab/ab{n:062d}.0123456789abcdef.fedcba9876543210": os.urandom(200_000) for n in range(20)}
for name, blob in blobs.items():
    store.write(name, [blob])
assert os.statvfs(disk).f_bavail < 60, "the disk is not full"
for _ in range(2):
    for name, blob in blobs.items():
        assert bytes(store.read(name, len(blob))) == blob
assert len(told) == 1 and "No space left" in told[0].getMessage(), told
assert not list(disk.glob("near/1/*/*.part"))
assert store.near_reads >= 4, store.stats()
"""


@pytest.mark.parametrize("large", [1, 1 << 30], ids=["in threads", "at once"])
def test_a_disk_that_is_full_to_the_last_byte_costs_one_warning(tmp_path: Path, large: int) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = in_namespace(f"mount -t tmpfs -o size=1m tmpfs {disk}")
    done = subprocess.run(
        [*mounted, sys.executable, "-c", FULL, str(disk), str(large)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_auto_is_where_a_user_s_cache_belongs(far: Far, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for variable, directory in (
        (str(tmp_path / "xdg"), tmp_path / "xdg/cacheness"),
        ("relative", tmp_path / "home/.cache/cacheness"),
        ("", tmp_path / "home/.cache/cacheness"),
    ):
        monkeypatch.setenv("XDG_CACHE_HOME", variable)
        near_directory = Config(near="auto").near  # it means another place on another machine
        assert near_directory == "auto"
        store = NearBlobStore(far, near_directory, MOST)
        assert store.directory == str(directory)
        store.close()
    assert Config(near="./auto").near == str(Path.cwd() / "auto")
