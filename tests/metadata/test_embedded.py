"""SQLite and the journal when processes die, disks fill up, and others hold the lock."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cacheness.deadlines import Limits, patience
from cacheness.errors import StoreRefused, StoreUnavailable
from cacheness.metadata.journal.store import JournalStore
from cacheness.metadata.sqlite import SqliteStore
from cacheness.protocols import MetadataStore
from cacheness.records import Where
from cacheness.testing.contracts.metadata import NAMESPACE, SOMEBODY, inline, key
from tests.metadata.programs import in_namespace, output, says, start

STORES: dict[str, Any] = {"sqlite": SqliteStore, "json": JournalStore}


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def open_store(kind: str, tmp_path: Path) -> Iterator[Callable[..., MetadataStore]]:
    stores: list[MetadataStore] = []

    def open_one(folder: Path = tmp_path) -> MetadataStore:
        stores.append(STORES[kind](folder / f"metadata.{kind}", limits=Limits()))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


@pytest.fixture
def store(open_store: Callable[..., MetadataStore]) -> MetadataStore:
    return open_store()


def put(store: MetadataStore, *numbers: int) -> None:
    store.commit([inline(number) for number in numbers], store.open_session(SOMEBODY))


@pytest.mark.slow
def test_many_processes_write_and_nothing_is_lost(kind: str, tmp_path: Path, store: MetadataStore) -> None:
    # Forked from one process: starting sixty-four interpreters takes longer than the test.
    program = """
store.close()
children = []
for child in range(64):
    pid = os.fork()
    if not pid:
        store = type(store)(folder / f"metadata.{kind}", limits=Limits())
        session = store.open_session(SOMEBODY)
        for number in range(5):
            store.commit([inline(100 * child + number)], session)
        store.end_session(session)
        store.close()
        os._exit(0)
    children.append(pid)
print({os.waitpid(pid, 0)[1] for pid in children})
"""
    assert output(program, kind, tmp_path) == ["{0}"]
    assert store.totals(NAMESPACE).entries == 320


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_loses_nothing_that_was_acknowledged(
    kind: str, tmp_path: Path, store: MetadataStore
) -> None:
    program = """
session = store.open_session(SOMEBODY)
for number in range(100_000):
    store.commit([inline(number), inline(number + 1_000_000)], session)
    print(number, flush=True)
"""
    for lines in (1, 3, 10, 30):
        with start(program, kind, tmp_path) as process:
            assert process.stdout is not None
            acknowledged = [int(process.stdout.readline()) for _ in range(lines)]
            process.kill()
            acknowledged += [int(line) for line in process.stdout.read().splitlines(keepends=True) if line[-1] == "\n"]
        found = {int.from_bytes(one.key, "big") for one in store.scan(Where(NAMESPACE), limit=10_000_000)}
        assert found >= set(acknowledged)
        assert {number % 1_000_000 for number in found} == {number for number in found if number < 1_000_000}
        store.delete(Where(NAMESPACE))
        put(store, 1)


@pytest.mark.slow
def test_a_lock_that_another_process_holds_is_waited_for(kind: str, tmp_path: Path, store: MetadataStore) -> None:
    put(store, 1)
    with start(HOLD, kind, tmp_path) as holder:
        says(holder, "locked")
        assert store.find(NAMESPACE, key(1)) == inline(1)
        assert holder.stdin is not None
        threading.Timer(0.3, holder.stdin.close).start()
        put(store, 2)
    assert store.find(NAMESPACE, key(2)) == inline(2)


@pytest.mark.slow
def test_patience_with_a_lock_ends(kind: str, tmp_path: Path, store: MetadataStore) -> None:
    put(store, 1)
    session = store.open_session(SOMEBODY)
    with start(HOLD, kind, tmp_path) as holder:
        says(holder, "locked")
        with patience(0.2), pytest.raises(StoreUnavailable, match="locked"):
            store.commit([inline(2)], session)
        assert store.find(NAMESPACE, key(1)) == inline(1)
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate()
    store.commit([inline(2)], session)


HOLD = """
from contextlib import nullcontext
import sqlite3
connection = sqlite3.connect(folder / "metadata.sqlite", isolation_level=None) if kind == "sqlite" else None
if connection:
    connection.execute("BEGIN EXCLUSIVE")
with store.exclusive():
    print("locked", flush=True)
    sys.stdin.read()
"""


# disks


@pytest.mark.slow
def test_a_full_disk_refuses_what_does_not_fit_and_keeps_what_did(kind: str, tmp_path: Path) -> None:
    program = """
kept = 0
try:
    session = store.open_session(SOMEBODY)
    while True:
        store.commit([inline(kept, b"x" * 20_000)], session)
        kept += 1
except StoreFull as error:
    print(error)
store.close()
store = type(store)(folder / f"metadata.{kind}", limits=Limits())
found = {one.key for one in store.scan(Where(NAMESPACE), limit=10_000)}
print(kept > 5, found == {key(number) for number in range(kept)})
print(store.find(NAMESPACE, key(0)) == inline(0, b"x" * 20_000))
store.close()
"""
    small = in_namespace(f"mount -t tmpfs -o size=2m tmpfs {tmp_path}")
    told = output(program, kind, tmp_path, *small)
    assert "is full" in told[0]
    assert told[1:] == ["True True", "True"]


@pytest.mark.slow
def test_a_file_that_may_not_grow_is_a_full_disk(kind: str, tmp_path: Path) -> None:
    program = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))
session, kept = store.open_session(SOMEBODY), 0
try:
    while True:
        store.commit([inline(kept, b"x" * 20_000)], session)
        kept += 1
except StoreFull:
    print(kept > 3, len(store.scan(Where(NAMESPACE))) == kept)
store.close()
"""
    assert output(program, kind, tmp_path) == ["True True"]


@pytest.mark.slow
@pytest.mark.parametrize("left_open", [False, True], ids=["closed", "crashed"])
def test_a_read_only_directory_serves_hits_and_refuses_puts(
    kind: str, tmp_path: Path, store: MetadataStore, left_open: bool
) -> None:
    put(store, 1)
    if left_open:
        put(store, 2)
        crashed = tmp_path / "crashed"
        crashed.mkdir()
        for file in tmp_path.glob("metadata.*"):
            shutil.copy(file, crashed)
        folder = crashed
    else:
        store.close()
        folder = tmp_path
    program = """
print(store.find(NAMESPACE, key(1)) == inline(1), store.totals(NAMESPACE).entries, bool(store.identity().store_id))
for use in (lambda: store.commit([inline(3)], store.open_session(SOMEBODY)), lambda: store.delete(Where(NAMESPACE))):
    try:
        use()
    except StoreRefused as error:
        print("refused", "nothing can be stored" in str(error) or "may write" in str(error))
store.record_use
store.close()
"""
    read_only = in_namespace(f"mount --bind {folder} {folder}", f"mount -o remount,ro,bind {folder}")
    told = output(program, kind, folder, *read_only)
    assert told == [f"True {2 if left_open else 1} True", "refused True", "refused True"]


@pytest.mark.slow
def test_an_empty_read_only_directory_is_refused_in_words(kind: str, tmp_path: Path) -> None:
    program = """
try:
    type(store)(folder / "below" / "metadata", limits=Limits())
except StoreRefused as error:
    print(str(error).count("cache_dir"), chr(10) in str(error))
"""
    (tmp_path / "below").mkdir()
    below = tmp_path / "below"
    read_only = in_namespace(f"mount --bind {below} {below}", f"mount -o remount,ro,bind {below}")
    assert output(program, kind, tmp_path, *read_only) == ["1 False"]


def test_a_directory_that_cannot_be_made_is_refused_in_words(kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreRefused, match="cache_dir"):
        STORES[kind](tmp_path / "file" / "metadata", limits=Limits())


# names


def test_a_directory_renamed_or_reached_through_a_link_is_the_same(
    kind: str, tmp_path: Path, open_store: Callable[..., MetadataStore]
) -> None:
    (tmp_path / "first").mkdir()
    store = open_store(tmp_path / "first")
    put(store, 1)
    before = store.identity()
    store.close()
    (tmp_path / "first").rename(tmp_path / "second")
    (tmp_path / "link").symlink_to("second")
    for name in ("second", "link"):
        again = open_store(tmp_path / name)
        assert again.identity() == before
        assert again.find(NAMESPACE, key(1)) == inline(1)
        again.close()


def test_a_copy_of_a_directory_is_told_from_the_first(tmp_path: Path, open_store: Callable[..., MetadataStore]) -> None:
    store = open_store(tmp_path / "first")
    put(store, 1)
    store.close()
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    copy = open_store(tmp_path / "copy")
    assert copy.identity().store_id == open_store(tmp_path / "first").identity().store_id
    assert copy.identity().system != open_store(tmp_path / "first").identity().system
    assert copy.find(NAMESPACE, key(1)) == inline(1)


# forks


@pytest.mark.slow
def test_parent_and_forked_child_both_go_on(kind: str, tmp_path: Path) -> None:
    program = """
session = store.open_session(SOMEBODY)
store.commit([inline(1)], session)
child = os.fork()
mine = range(10, 20) if child else range(20, 30)
session = session if child else store.open_session(SOMEBODY)
for number in mine:
    store.commit([inline(number)], session)
    assert store.find(NAMESPACE, key(1)) == inline(1)
if not child:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(store.totals(NAMESPACE).entries)
store.close()
"""
    assert output(program, kind, tmp_path) == ["21"]


@pytest.mark.slow
def test_a_lock_does_not_outlive_its_process_in_a_forked_child(kind: str, tmp_path: Path, store: MetadataStore) -> None:
    put(store, 1)
    program = """
with store.exclusive():
    session = store.open_session(SOMEBODY)
    child = os.fork()
    if not child:
        print(os.getpid(), flush=True)
        os.kill(os.getppid(), 9)
    time.sleep(60)
"""
    with start(program, kind, tmp_path) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.wait()
        try:
            expired = [session.lease_expired for session in store.live_sessions()]
            assert expired.count(True) == (kind == "sqlite")  # the journal has no sessions, and only the lock counts
            with patience(5.0):
                put(store, 2)
        finally:
            os.kill(child, signal.SIGKILL)
            parent.communicate()
