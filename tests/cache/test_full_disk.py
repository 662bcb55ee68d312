"""A full disk has a way out: what is stored can be deleted, evicted and repaired, and then there is room again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cacheness import StoreFull, UnifiedCache
from cacheness.coordination.ownership import MARKER
from cacheness.metadata import disk_reserve
from cacheness.metadata.disk_reserve import Reserve
from cacheness.metadata.journal import store as journal
from cacheness.records import Entry
from cacheness.results.store import Cache
from tests.metadata.programs import in_namespace

pytestmark = pytest.mark.slow

#: Fills the disk of a cache, by puts and then to the last byte, as somebody's log would.
FULL = """
import os, random, sys
from pathlib import Path
from cacheness import StoreFull, UnifiedCache
kind, folder, size = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
reserve = folder / "cache" / {"sqlite": "metadata.sqlite-reserve", "json": "metadata.jsonl-reserve"}[kind]

def value(n):
    return random.Random(n).randbytes(size)

def open_cache(**more):
    return UnifiedCache(cache_dir=folder / "cache", metadata_backend=kind, **more)

def fill(cache):
    kept = []
    try:
        while True:
            cache.put(value(len(kept)), n=len(kept), tags=["even"] if len(kept) % 2 == 0 else [])
            kept.append(len(kept))
    except StoreFull as error:
        assert "clear, invalidate" in str(error) or "free space" in str(error), error
    assert len(kept) > 10, kept
    assert reserve.stat().st_blocks * 512 >= 1 << 20, "puts used up what is kept back"
    return kept

def free():
    return os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize

def fill_the_rest():
    with open(folder / "log", "ab", buffering=0) as log:
        try:
            while log.write(bytes(4096)):
                pass
        except OSError:
            pass
    assert free() == 0

cache = open_cache()
kept = fill(cache)
fill_the_rest()
"""


@pytest.fixture(params=["sqlite", "json"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[6_000, 100_000])
def size(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def run_on_small_disk(program: str, kind: str, size: int, folder: Path) -> None:
    before = in_namespace(f"mount -t tmpfs -o size=8m tmpfs {folder}")
    command = [*before, sys.executable, "-W", "error", "-c", FULL + program, kind, str(folder), str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_kind_of_deletion_works_on_a_full_disk(kind: str, size: int, tmp_path: Path) -> None:
    program = """
assert cache.invalidate(n=kept.pop())
fill_the_rest()
with open_cache(max_bytes=len(kept) * size // 4) as small:
    small.put(value(-1), n=-1)
    assert small.get(n=-1) == value(-1)
    kept = [n for n in kept if cache.get(n=n) == value(n)]
    assert 5 < len(kept) == small.stats()["entries"] - 1
kept.append(-1)
fill_the_rest()
even = [n for n in kept if n % 2 == 0]
assert cache.delete_matching(tag="even") == len(even)
kept = [n for n in kept if n % 2]
assert cache.stats()["entries"] == len(kept)
assert all(cache.get(n=n) == value(n) for n in kept)
cache.verify_integrity(repair=True)
fill_the_rest()
assert cache.clear() == len(kept)
assert not cache.list_entries() and len(cache.verify_integrity(repair=True)) == 0
cache.close()
assert reserve.stat().st_blocks * 512 >= 1 << 20, "what is kept back was not made again"
with open_cache() as cache:
    for n in range(4):
        cache.put(value(n), n=n)
    assert all(cache.get(n=n) == value(n) for n in range(4))
"""
    run_on_small_disk(program, kind, size, tmp_path)


def test_a_process_that_opens_a_cache_on_a_full_disk_reads_and_clears_it(kind: str, size: int, tmp_path: Path) -> None:
    program = """
import subprocess
cache.close()  # SQLite's shared memory goes with the last connection, and the next one makes it again
fill_the_rest()
with open_cache() as cache:
    assert all(cache.get(n=n) == value(n) for n in kept)
fill_the_rest()
command = [sys.executable, "-m", "cacheness", "clear", "-y", "-d", str(folder / "cache")]
done = subprocess.run(command, env={**os.environ, "CACHENESS_METADATA_BACKEND": kind}, capture_output=True, text=True)
assert done.returncode == 0, done.stderr
assert f"{len(kept):,} entries" in done.stdout, done.stdout
assert free() > 2 << 20, free()
"""
    run_on_small_disk(program, kind, size, tmp_path)


def test_a_put_that_finds_the_disk_full_leaves_no_blob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with UnifiedCache(cache_dir=tmp_path) as cache:
        cache.put(os.urandom(100_000), n=1)

        def full(self: Reserve) -> bool:
            return False

        with monkeypatch.context() as patched:
            patched.setattr(disk_reserve, "PLENTY", 1 << 62)
            patched.setattr(Reserve, "keep", full)
            with pytest.raises(StoreFull, match="too little room"):
                cache.put(os.urandom(100_000), n=2)
        report = cache.verify_integrity()
        assert (report.blobs, report.entries, len(report)) == (1, 1, 0)
        assert cache.put(1, n=2)


def test_a_deletion_that_fits_only_in_parts_deletes_and_counts_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with UnifiedCache(cache_dir=tmp_path) as cache:
        cache.put_many((os.urandom(40_000), {"n": n}) for n in range(130))
        store = cache._store.metadata
        monkeypatch.setattr(store, "_delete_batch", 50)
        monkeypatch.setattr(store, "_note_deletion", lambda rows, seconds: None)
        whole = store._delete_after  # type: ignore[attr-defined]
        batches: list[int] = []

        def narrow(where: Any, after: Any, limit: int, **options: Any) -> Any:
            if len(batches) == 1 and limit == 50:
                raise StoreFull("for the sake of argument")
            batches.append(limit)
            return whole(where, after, limit, **options)

        monkeypatch.setattr(store, "_delete_after", narrow)
        assert cache.clear() == 130
        assert batches == [50, 20, 20, 20, 20, 20]
        assert len(cache.verify_integrity()) == 0


def test_a_repair_goes_on_where_no_marker_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with UnifiedCache(cache_dir=tmp_path) as cache:
        cache.put(os.urandom(100_000), n=1)
        parts: Cache = cache._store
        entry = cache.list_entries()[0]
        stray = f"default/00/{'00' * 32}.{parts.sessions.current()}.{'0' * 16}"
        parts.blobs.write(stray, [bytes(1000)])
        parts.sessions.end(parts.sessions.current())
        write = parts.blobs.write

        def full(name: str, buffers: Any) -> None:
            if name == MARKER:
                raise StoreFull("no room for it")
            write(name, buffers)

        monkeypatch.setattr(parts.blobs, "write", full)
        report = cache.verify_integrity(repair=True)
        assert [issue.kind for issue in report if issue.repaired] == ["orphaned"]
        assert "may go unnoticed" in caplog.text
        assert parts.blobs.stat(stray) is None
        assert cache.get(entry["cache_key"]) is not None


def test_readers_of_a_journal_that_is_replaced_on_a_full_disk_find_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "free_bytes", lambda directory: 0)
    monkeypatch.setattr(journal, "_LEAST_WASTE", 0)
    monkeypatch.setattr(Reserve, "is_roomy", lambda self, size: True)
    options: dict[str, Any] = {"cache_dir": tmp_path, "metadata_backend": "json"}
    with UnifiedCache(**options) as writer, UnifiedCache(**options, max_bytes=1 << 40) as reader:
        inodes = set()
        for n in range(40):
            writer.put(bytes([n]) * 500, n=n)
            assert reader.get(n=n // 2) == bytes([n // 2]) * 500
            held: Entry | None = reader._store.metadata.find("default", reader.key(n=n).digest)
            assert held is not None
            for _ in range(3):
                writer.put(bytes([n]) * 500, n=n)
            inodes.add((tmp_path / "metadata.jsonl").stat().st_ino)
            assert len(reader.list_entries()) == n + 1
        assert len(inodes) > 1
