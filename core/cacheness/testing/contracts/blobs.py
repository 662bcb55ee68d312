"""
Tests for every blob store. Inherit the class, and override the `store` fixture.

```python
class TestMyStore(BlobStoreContract):
    @pytest.fixture
    def store(self):
        store = MyStore("somewhere empty")
        yield store
        store.close()
```
"""

from __future__ import annotations

import array
import hashlib
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cacheness.errors import BlobMissing, ConfigError, CorruptEntry, StoreUnavailable
from cacheness.protocols import BlobStore
from cacheness.records import OBJECT_NAME, BlobInfo, Upload

KEY = "ab" + 62 * "0"
NAME = f"default/ab/{KEY}.0123456789abcdef.fedcba9876543210"
LARGE = 20 << 20  #: more than one part, if parts have megabytes

#: Every store must reject these; several would lead out of a directory.
BAD_NAMES = [
    "",
    ".",
    "..",
    "/etc/passwd",
    "../escape",
    "a/../../escape",
    "a/./b",
    "a//b",
    "a/",
    "/a",
    "a\\..\\b",
    "a\x00b",
    "a\nb",
    "a\n",
    "caf\u00e9",
    "cafe\u0301",
    "\udcff",
    "a b",
    "a%2e%2e",
    "a" * 201,
    "a/" * 300 + "a",
    "unfinished.part",
]


def pattern(size: int) -> bytes:
    """Bytes that differ everywhere, so that a part in the wrong place is detected."""
    block = hashlib.shake_128(b"pattern").digest(min(size, 1 << 20) or 1)
    return b"".join(index.to_bytes(8, "big") + block for index in range(size // len(block) + 1))[:size]


class Interrupted(BaseException):
    """Represents Ctrl-C: no handler may catch it."""


class BlobStoreContract:
    """Tests for any blob store. Slow stores may lower `objects`, but not below a page."""

    #: The server may end a response early if the object is replaced at the same time; the store then raises.
    breaks_off = False
    objects = 1030  #: how many objects a listing must handle; more than one page of S3

    @pytest.fixture
    def store(self) -> Iterator[BlobStore]:
        """An empty store, closed after the test."""
        raise AssertionError("override the `store` fixture")

    # write and read

    def test_what_was_written_is_read(self, store: BlobStore) -> None:
        store.write(NAME, [b"one", b"two"])
        assert bytes(store.read(NAME, 6)) == b"onetwo"

    def test_our_own_names_are_names(self) -> None:
        assert re.fullmatch(OBJECT_NAME, NAME)

    @pytest.mark.parametrize(
        "name", ["marker.json", "a", "a/b/c/d", "UPPER/lower-1_2.3", ".hidden/x", "a..b", "x.parts"]
    )
    def test_plain_relative_names_are_names(self, store: BlobStore, name: str) -> None:
        store.write(name, [b"x"])
        assert bytes(store.read(name, 1)) == b"x"
        assert [info.name for info in store.scan()] == [name]

    @pytest.mark.parametrize("size", [0, 1, 1023, 65536, (1 << 20) + 1, LARGE + 3])
    def test_every_size_comes_back(self, store: BlobStore, size: int) -> None:
        data = pattern(size)
        store.write(NAME, [data])
        assert store.stat(NAME) == BlobInfo(NAME, size)
        assert bytes(store.read(NAME, size)) == data

    @pytest.mark.parametrize("parts", [[], [b""], [b"", b"", b""]])
    def test_nothing_at_all_is_a_blob(self, store: BlobStore, parts: list[bytes]) -> None:
        store.write(NAME, parts)
        assert store.stat(NAME) == BlobInfo(NAME, 0)
        assert bytes(store.read(NAME, 0)) == b""

    def test_parts_of_any_buffer_are_joined_in_order(self, store: BlobStore) -> None:
        numbers = array.array("d", range(1000))
        matrix = memoryview(bytearray(range(24))).cast("B", (4, 6))
        parts: list[Any] = [b"head", bytearray(b"-"), memoryview(numbers), b"", matrix]
        data = b"head-" + numbers.tobytes() + bytes(range(24))
        store.write(NAME, parts)
        assert bytes(store.read(NAME, len(data))) == data

    def test_many_small_parts_among_large_ones(self, store: BlobStore) -> None:
        large = pattern(LARGE // 2)
        parts = [large, *(bytes([n % 256]) for n in range(5000)), large, b"end"]
        data = b"".join(parts)
        store.write(NAME, parts)
        assert bytes(store.read(NAME, len(data))) == data

    def test_writing_again_replaces_the_whole_blob(self, store: BlobStore) -> None:
        store.write(NAME, [b"a much longer text"])
        store.write(NAME, [b"short"])
        assert bytes(store.read(NAME, 5)) == b"short"
        assert store.stat(NAME) == BlobInfo(NAME, 5)
        assert len(list(store.scan())) == 1

    def test_the_parts_may_change_after_the_write(self, store: BlobStore) -> None:
        data = bytearray(pattern(LARGE))
        store.write(NAME, [data])
        data[:] = bytes(len(data))
        assert bytes(store.read(NAME, len(data))) == pattern(LARGE)

    @pytest.mark.parametrize("size", [1, 100_000, LARGE])
    def test_the_buffer_is_writable_and_private(self, store: BlobStore, size: int) -> None:
        store.write(NAME, [pattern(size)])
        first, second = memoryview(store.read(NAME, size)), memoryview(store.read(NAME, size))
        assert not first.readonly
        first[:] = bytes(size)
        assert bytes(second) == pattern(size)
        assert bytes(store.read(NAME, size)) == pattern(size)

    @pytest.mark.parametrize("size", [10, LARGE])
    def test_a_buffer_outlives_the_blob(self, store: BlobStore, size: int) -> None:
        store.write(NAME, [pattern(size)])
        buffer = store.read(NAME, size)
        store.write(NAME, [b"?"])
        store.delete(NAME)
        store.close()
        assert bytes(buffer) == pattern(size)

    def test_missing_blobs_are_missing(self, store: BlobStore) -> None:
        store.write("a/b", [b"x"])
        for name in ("nowhere", "a", "a/b/c", "a/bb", NAME):
            assert store.stat(name) is None
            with pytest.raises(BlobMissing):
                store.read(name, 1)

    @pytest.mark.parametrize(("written", "asked"), [(3, 2), (3, 4), (0, 1), (1, 0), (LARGE, LARGE - 1), (100, LARGE)])
    def test_another_size_than_expected_is_corrupt(self, store: BlobStore, written: int, asked: int) -> None:
        store.write(NAME, [bytes(written)])
        with pytest.raises(CorruptEntry):
            store.read(NAME, asked)

    @pytest.mark.parametrize("name", BAD_NAMES)
    def test_names_that_are_not_plain_are_refused(self, store: BlobStore, name: str) -> None:
        for use in (
            lambda: store.write(name, [b"x"]),
            lambda: store.read(name, 1),
            lambda: store.stat(name),
            lambda: store.delete(name),
        ):
            with pytest.raises(ConfigError):
                use()
        assert list(store.scan()) == []

    # delete

    def test_delete_twice_is_fine(self, store: BlobStore) -> None:
        store.write("a/1", [b"one"])
        store.delete("a/1")
        store.delete("a/1")
        assert list(store.scan()) == []
        assert store.stat("a/1") is None

    def test_delete_takes_one_blob_only(self, store: BlobStore) -> None:
        for name in ("a/1", "a/10", "a/1.x", "ab"):
            store.write(name, [b"x"])
        store.delete("a/1")
        assert [info.name for info in store.scan()] == ["a/1.x", "a/10", "ab"]

    def test_many_are_deleted_at_once_and_no_others(self, store: BlobStore) -> None:
        names = [f"a/{number}" for number in range(30)]
        for name in (*names, "a/kept", "b"):
            store.write(name, [b"x"])
        assert store.delete_many([]) == store.delete_many(names[:1]) == {}
        assert store.delete_many([*names, "a/never-there"]) == {}
        assert [info.name for info in store.scan()] == ["a/kept", "b"]

    # scan

    def test_an_empty_store_lists_nothing(self, store: BlobStore) -> None:
        assert list(store.scan()) == []
        assert list(store.scan("any/prefix")) == []

    def test_a_listing_is_in_the_order_of_whole_names(self, store: BlobStore) -> None:
        # '-' and '.' sort before '/', digits and letters after it; capitals before small letters.
        names = ["B/x", "a-b", "a.b", "a/b", "a/b.c/d", "a/b/c", "a/x", "a0", "aB", "ab"]
        names = [name for name in names if name != "a/b"]
        for name in reversed(names):
            store.write(name, [name.encode()])
        assert list(store.scan()) == [BlobInfo(name, len(name)) for name in names]

    def test_a_prefix_is_a_prefix_of_the_name_and_not_of_a_folder(self, store: BlobStore) -> None:
        for name in ("a/1", "a/10", "a/2", "ab/1", "b/a/1"):
            store.write(name, [b"x"])
        found = {
            prefix: [info.name for info in store.scan(prefix)]
            for prefix in ("a", "a/", "a/1", "ab", "a/10", "c", "b/a/")
        }
        assert found == {
            "a": ["a/1", "a/10", "a/2", "ab/1"],
            "a/": ["a/1", "a/10", "a/2"],
            "a/1": ["a/1", "a/10"],
            "ab": ["ab/1"],
            "a/10": ["a/10"],
            "c": [],
            "b/a/": ["b/a/1"],
        }

    def test_a_listing_of_many_pages_misses_nothing(self, store: BlobStore) -> None:
        names = sorted(f"ns/{index % 7:02x}/{index:05d}" for index in range(self.objects))
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: store.write(name, [b"x"]), names))
        assert [info.name for info in store.scan()] == names
        assert [info.name for info in store.scan("ns/03/")] == [name for name in names if name.startswith("ns/03/")]
        assert next(iter(store.scan())).name == names[0]
        for after in ("ns/02/z", names[5], "ns/03/"):
            assert [info.name for info in store.scan(after=after)] == [name for name in names if name > after]
        assert [info.name for info in store.scan("ns/03/", after=names[-1])] == []

    def test_what_is_written_or_deleted_shows_in_the_next_listing(self, store: BlobStore) -> None:
        store.write("a/1", [b"x"])
        assert [info.name for info in store.scan("a/")] == ["a/1"]
        store.write("a/2", [b"xx"])
        assert [info.name for info in store.scan("a/")] == ["a/1", "a/2"]
        store.delete("a/1")
        assert [info.name for info in store.scan("a/")] == ["a/2"]
        store.write("a/2", [b"xxx"])
        assert list(store.scan("a/")) == [BlobInfo("a/2", 3)]
        assert store.stat("a/2") == BlobInfo("a/2", 3)

    # uploads

    def test_a_finished_upload_is_no_upload(self, store: BlobStore) -> None:
        store.write(NAME, [pattern(LARGE)])
        assert list(store.uploads()) == []

    def test_a_failed_write_leaves_nothing(self, store: BlobStore) -> None:
        class Breaking(list[bytes]):
            def __iter__(self) -> Iterator[bytes]:
                yield pattern(LARGE)
                raise Interrupted

        store.write(NAME, [b"old"])
        for name in (NAME, "other"):
            for parts in ([pattern(LARGE), "not a buffer"], Breaking()):
                with pytest.raises((TypeError, Interrupted)):
                    store.write(name, parts)  # type: ignore[arg-type]
        assert bytes(store.read(NAME, 3)) == b"old"
        assert store.stat("other") is None
        assert list(store.uploads()) == []

    def test_a_blob_that_is_being_written_does_not_show(self, store: BlobStore) -> None:
        seen: list[object] = []

        class Slow(list[bytes]):
            def __iter__(self) -> Iterator[bytes]:
                for _ in range(3):
                    yield pattern(LARGE // 2)
                    seen.append((store.stat(NAME), list(store.scan())))

        store.write(NAME, Slow())
        assert len(seen) >= 3
        assert set(map(str, seen)) == {str((None, []))}
        assert store.stat(NAME) == BlobInfo(NAME, 3 * (LARGE // 2))

    def test_aborting_what_is_gone_is_fine(self, store: BlobStore) -> None:
        handle = self.handle_of_nothing()
        for _ in range(2):
            store.abort(Upload(NAME, handle))

    def handle_of_nothing(self) -> str:
        """Return a handle that this store could have created, of an upload that no longer exists."""
        return f"{NAME}.0123456789abcdef.part"

    # threads

    def test_threads_do_not_get_into_each_other_s_way(self, store: BlobStore) -> None:
        def work(index: int) -> bool:
            data = index.to_bytes(4, "big") * (1000 + index)
            name = f"t/{index % 4}/{index}"
            store.write(name, [data])
            same = bytes(store.read(name, len(data))) == data and store.stat(name) == BlobInfo(name, len(data))
            if index % 2:
                store.delete(name)
            return same

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(work, range(64)))
        assert len(list(store.scan("t/"))) == 32

    def test_a_reader_sees_the_old_blob_or_the_new_one_whole(self, store: BlobStore) -> None:
        versions = [bytes([version]) * 300_000 for version in range(6)]
        store.write(NAME, [versions[0]])
        done = threading.Event()

        def write() -> None:
            for version in versions * 3:
                store.write(NAME, [version])
            done.set()

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            while not done.is_set() and not writing.done():
                try:
                    found = store.read(NAME, 300_000)
                except StoreUnavailable:
                    assert self.breaks_off
                else:
                    assert bytes(found) in versions
            writing.result()
        assert bytes(store.read(NAME, 300_000)) == versions[-1]

    def test_closing_twice_is_fine(self, store: BlobStore) -> None:
        store.close()
        store.close()
