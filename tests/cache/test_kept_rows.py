"""Small results that a process asks for again: they are not read again, and never stale."""

from __future__ import annotations

import pickle
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from cacheness import CodecError, UnifiedCache
from cacheness.factory import SQLITE_FILE
from cacheness.results import kept
from tests.forked import ended, fork


class Counted:
    """A cache on SQLite, and the keys whose rows it reads."""

    def __init__(self, cache: UnifiedCache) -> None:
        self.cache = cache
        self.read: list[bytes] = []
        find = cache._store.metadata.find

        def find_counted(namespace: str, key: bytes):
            self.read.append(key)
            return find(namespace, key)

        cache._store.metadata.find = find_counted

    def reads(self, **named) -> int:
        """How many rows a look-up reads."""
        self.read.clear()
        self.cache.lookup(**named)
        return len(self.read)

    def keep(self, **named) -> None:
        for _ in range(3):
            self.cache.lookup(**named)
        assert self.reads(**named) == 0


@pytest.fixture
def counted(tmp_path) -> Iterator[Counted]:
    with UnifiedCache(cache_dir=str(tmp_path)) as cache:
        yield Counted(cache)


def test_a_result_is_read_twice_and_no_more(counted) -> None:
    counted.cache.put([1, 2], n=1)
    assert [counted.reads(n=1) for _ in range(4)] == [1, 1, 0, 0]
    assert counted.cache.get(n=1) == [1, 2]


def test_a_row_is_read_again_where_no_connection_can_be_opened_to_watch_for_changes(counted, monkeypatch) -> None:
    counted.cache.put(1, n=1)
    counted.keep(n=1)
    file = counted.cache._store.metadata._file
    file._watching.close_before_fork()

    def locked(url: str) -> sqlite3.Connection:
        raise sqlite3.OperationalError("database is locked")

    with monkeypatch.context() as patch:
        patch.setattr(file, "_connect", locked)
        assert counted.cache.get(n=1) == 1
        assert counted.reads(n=1) == 1
    counted.keep(n=1)


def test_many_are_read_twice_and_no_more(counted) -> None:
    cache = counted.cache
    keys = [cache.put([n], n=n).cache_key for n in range(20)]
    asked: list[int] = []
    find_many = cache._store.metadata.find_many

    def find_counted(namespace: str, several):
        asked.append(len(several))
        return find_many(namespace, several)

    cache._store.metadata.find_many = find_counted
    for _ in range(3):
        assert {key: hit.value for key, hit in cache.get_many(keys).items()} == {keys[n]: [n] for n in range(20)}
    assert asked == [20, 20]
    cache.put("new", n=3)
    assert cache.get_many(keys)[keys[3]].value == "new"
    assert asked == [20, 20, 20]
    cache.invalidate(keys[5])
    assert set(cache.get_many(keys)) == {*keys} - {keys[5]}


class Gone:
    """A value whose class a test takes away."""


def test_what_can_no_longer_be_decoded_is_said_to_be_so(counted, monkeypatch) -> None:
    entry = counted.cache.put(Gone(), n=1)
    counted.keep(n=1)
    monkeypatch.delattr(sys.modules[__name__], "Gone")
    with pytest.raises(CodecError):
        counted.cache.get(n=1)
    assert counted.cache.get_many([entry.cache_key]) == {}


@pytest.mark.parametrize("value", [[1, 2], {"a": [1]}, np.arange(4), bytearray(b"ab")])
def test_what_a_caller_does_to_a_value_is_not_served(counted, value) -> None:
    counted.cache.put(value, n=1)
    counted.keep(n=1)
    counted.cache.get(n=1).__setitem__(next(iter(value)) if isinstance(value, dict) else 0, 9)
    assert pickle.dumps(counted.cache.get(n=1)) == pickle.dumps(value)


def test_what_this_process_writes_is_seen(counted) -> None:
    cache = counted.cache
    entry = cache.put("old", n=1)
    counted.keep(n=1)
    cache.put("new", n=1)
    assert cache.get(n=1) == "new"
    counted.keep(n=1)
    cache.dispute(cache.entry(entry.cache_key), None, None, "it came out differently")
    assert cache.get(n=1) is None
    cache.settle(entry.cache_key)
    counted.keep(n=1)
    cache.invalidate(entry.cache_key)
    assert cache.lookup(n=1) is None


def test_what_another_process_writes_is_seen(counted, tmp_path) -> None:
    counted.cache.put("old", n=1)
    counted.keep(n=1)
    script = f"from cacheness import UnifiedCache; UnifiedCache(cache_dir={str(tmp_path)!r}).put('new', n=1)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    assert counted.cache.get(n=1) == "new"


def test_a_row_that_somebody_spoils_is_not_served(counted, tmp_path) -> None:
    counted.cache.put("value", n=1)
    counted.keep(n=1)
    connection = sqlite3.connect(tmp_path / SQLITE_FILE)
    with connection:
        connection.execute("UPDATE entries SET inline = ?", (b"forged",))
    connection.close()
    assert counted.cache.lookup(n=1) is None


def test_a_lifetime_ends_for_what_is_kept(counted, monkeypatch) -> None:
    counted.cache.put("value", n=1, ttl=60)
    counted.keep(n=1)
    now = counted.cache._store.metadata.now
    monkeypatch.setattr(counted.cache._store.metadata, "now", lambda: now() + 61_000_000)
    assert counted.cache.lookup(n=1) is None


def test_rows_are_kept_within_bounds(counted, monkeypatch) -> None:
    monkeypatch.setattr(kept, "BYTES_AT_MOST", 5_000)
    for n in range(4):
        counted.cache.put(b"x" * 2_000, n=n)
    for n in range(4):
        counted.cache.lookup(n=n)
        counted.cache.lookup(n=n)
    assert [counted.reads(n=n) for n in (3, 2)] == [0, 0]
    assert counted.reads(n=0) == 1
    rows = counted.cache._store._kept
    assert rows._size == sum(row[0].size for row in rows._rows.values() if row is not None) <= 5_000
    monkeypatch.setattr(kept, "ROWS_AT_MOST", 2)
    counted.cache.lookup(n=0)
    assert len(rows._rows) == 2


def test_what_is_large_is_read_each_time(counted) -> None:
    counted.cache.put(np.random.default_rng(1).bytes(100_000), n=1)
    assert [counted.reads(n=1) for _ in range(4)] == [1] * 4


def test_a_child_begins_with_nothing(counted) -> None:
    counted.cache.put("value", n=1)
    counted.keep(n=1)
    rows = counted.cache._store._kept

    def look() -> None:
        assert not rows._rows
        assert counted.cache.get(n=1) == "value"

    assert ended(fork(look)) == 0
    assert counted.cache.get(n=1) == "value"


def test_threads_read_what_was_acknowledged_last(counted) -> None:
    cache, wrong = counted.cache, list[int]()
    written = [0]
    cache.put(0, n=1)

    def read() -> None:
        while written[0] < 50:
            least = written[0]
            found = cache.get(n=1)
            if found < least:
                wrong.append(found)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(1, 51):
        cache.put(number, n=1)
        written[0] = number
    for reader in readers:
        reader.join()
    assert not wrong
