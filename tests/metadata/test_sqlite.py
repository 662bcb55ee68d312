"""What only SQLite does: sessions by lock files, the write-ahead log, and where it refuses to work."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cacheness import platform
from cacheness.deadlines import Limits, patience
from cacheness.errors import CodecError, ConfigError, SessionLost, StoreUnavailable
from cacheness.file_locks import unlock, wait_in_line
from cacheness.keys import FunctionCode
from cacheness.metadata.sql import sqlite_log, sqlite_transactions
from cacheness.metadata.sql.sqlite_transactions import SqliteTransaction
from cacheness.metadata.sql.statements import Statement, row_of
from cacheness.metadata.sqlite import SqliteStore
from cacheness.records import DAY, Where
from cacheness.testing.contracts.metadata import NAMESPACE, SOMEBODY, entry, inline, key
from tests.metadata.programs import says, start

WRITE_AND_WAIT = """
session = store.open_session(SOMEBODY)
store.commit([inline(1)], session)
print(session, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Callable[[], SqliteStore]]:
    stores: list[SqliteStore] = []

    def open_one() -> SqliteStore:
        stores.append(SqliteStore(tmp_path / "metadata.sqlite", limits=Limits(busy=10.0)))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


@pytest.fixture
def store(open_store: Callable[[], SqliteStore]) -> SqliteStore:
    return open_store()


@pytest.fixture
def locks(tmp_path: Path) -> Callable[[], list[str]]:
    return lambda: sorted(file.name for file in (tmp_path / "sessions").iterdir())


def test_a_row_of_code_is_written_again_once_a_day_and_where_somebody_changed_it(
    store: SqliteStore, tmp_path: Path
) -> None:
    code = FunctionCode("m:f", "m", "{}")
    with closing(sqlite3.connect(tmp_path / "metadata.sqlite", isolation_level=None)) as other:
        changes = []

        def note(sql: str = "") -> list[tuple[object, ...]]:
            if sql:
                other.execute(sql)
            before = other.execute("PRAGMA data_version").fetchone()
            store.note_functions(NAMESPACE, [code])
            changes.append(other.execute("PRAGMA data_version").fetchone() != before)
            return list(other.execute("SELECT name, components, first_seen, last_seen FROM functions"))

        [first] = note()
        assert first[2] == first[3] == store.now() // DAY * DAY
        assert note() == [first]
        assert note(f"UPDATE functions SET first_seen = first_seen - {DAY}, last_seen = last_seen - 1") == [
            (first[0], first[1], first[2] - DAY, first[3])
        ]
        assert note("UPDATE functions SET components = 'forged'")[0][1] == "{}"
        assert note("UPDATE functions SET name = 'forged'")[0][0] == "m:f"
        assert changes == [True, False, True, True, True]
        other.execute("UPDATE functions SET last_seen = 5")
        store.commit([entry(1, fn=code.digest)], store.open_session(SOMEBODY))
        assert [store.forget_functions(NAMESPACE, DAY, 9) for _ in range(2)] == [1, 0]  # it counts as seen today
        assert other.execute("SELECT last_seen FROM functions").fetchone() == (first[3],)


@pytest.mark.parametrize(
    ("name", "indexes"),
    [
        ("old_functions", ["functions_by_age", "entries_by_fn"]),
        ("by_alias", ["entries_by_alias"]),
        ("links", ["entries_by_alias"]),
        ("named_codes", ["entries_by_fn"]),
    ],
)
def test_code_and_aliases_are_found_by_their_indexes(store: SqliteStore, name: str, indexes: list[str]) -> None:
    statement: Statement = getattr(store._sql, name)
    values = {"namespace": NAMESPACE, "now": 0, "age": 0, "limit": 9, "alias": bytes(32), "keys": bytes(64)}
    asked = Statement(f"EXPLAIN QUERY PLAN {statement.text}", {}, ())
    plan = [row[-1] for row in store._query(asked, {**statement.constants, **values})]
    for index in indexes:
        assert any(index in step for step in plan), plan
    assert not any("SCAN entries" in step or "SCAN functions" in step or "TEMP B-TREE" in step for step in plan), plan


@pytest.mark.parametrize(
    "name", ["all_activity", "activity_since", "activity_by_hour", "ended_activity", "old_activity"]
)
def test_figures_are_found_by_their_indexes(store: SqliteStore, name: str) -> None:
    statement: Statement = getattr(store._sql, name)
    values = {"namespace": NAMESPACE, "hours": 0, "days": 0, "months": 0, "before": 0, "limit": 9, "span": "hour"}
    asked = Statement(f"EXPLAIN QUERY PLAN {statement.text}", {}, ())
    plan = [row[-1] for row in store._query(asked, {**statement.constants, **values})]
    ways = [step for step in plan if "activity" in step]
    assert ways
    # Rows of processes by their own index, the others by their span: neither reads what the other finds.
    assert all("INDEX activity_apart" in way or "span=?" in way for way in ways), plan


def test_commits_are_synced_and_readers_never_wait(store: SqliteStore, tmp_path: Path) -> None:
    connection, lease = store._file._take()
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    store._file._connections.give_back(lease)


def test_what_need_not_survive_a_power_cut_is_not_synced_and_what_follows_it_is(store: SqliteStore) -> None:
    session = store.open_session(SOMEBODY)
    statements = traced(store)
    store.take_compute_lease(NAMESPACE, key(1), "token", 30.0)
    store.commit([inline(1)], session)
    store.record_use(NAMESPACE, {key(1): (1, store.now())})
    store.commit([inline(2)], session)
    store.end_compute_lease(NAMESPACE, key(1), "token")
    store.clear_tombstones([f"{NAMESPACE}/gone"])
    store.delete(Where(NAMESPACE))
    assert levels_of(statements) == ["NORMAL", "FULL", "NORMAL", "FULL", "NORMAL", "NORMAL", "FULL"]


def test_a_session_that_need_not_last_is_synced_by_its_first_commit(store: SqliteStore) -> None:
    statements = traced(store)
    session = store.open_session(SOMEBODY, lasting=False)
    store.commit([inline(1)], session)
    assert levels_of(statements) == ["NORMAL", "FULL"]


def test_a_deletion_that_need_not_last_is_synced_where_blobs_are_to_go_after_it(store: SqliteStore) -> None:
    session = store.open_session(SOMEBODY)
    store.commit([inline(1), inline(2), entry(3)], session)
    statements = traced(store)
    assert store.delete(Where(NAMESPACE, keys=(key(1), key(2))), lasting=False).entries == 2
    assert levels_of(statements) == ["NORMAL"]
    assert store.delete(Where(NAMESPACE), lasting=False).blobs
    assert levels_of(statements) == ["NORMAL", "NORMAL", "FULL"]


def test_a_deletion_takes_as_many_rows_at_once_as_others_can_wait_for(store: SqliteStore) -> None:
    for seconds, most in ((1.0, 100), (1.0, 50), (1.0, 25), (1.0, 20), (1.0, 20), (0.0, 40), (0.0, 80)):
        store._note_deletion(50, seconds)
        assert store._delete_batch == most
    store._note_deletion(19, 1.0)  # so few say nothing
    assert store._delete_batch == 80


def test_no_commit_brings_the_log_into_the_database_and_a_thread_does(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    movers = watch_log(store, monkeypatch)
    assert store._file.run(Statement("PRAGMA wal_autocheckpoint", {}, ()), {})[0] == [(sqlite_log.LONGEST,)]
    monkeypatch.setattr(sqlite_log, "CHANGES", 30)
    session = store.open_session(SOMEBODY)
    for number in range(40):
        store.commit([inline(number)], session)
    store._file._log.wait()
    assert set(movers) == {"cacheness-log"}


def test_the_log_begins_anew_beside_a_writer_that_never_pauses(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_log, "CHANGES", 20)
    monkeypatch.setattr(sqlite_log, "LONG", 50)
    session = store.open_session(SOMEBODY)
    for number in range(400):
        store.commit([inline(number % 40, b"x" * 3000)], session)
    store._file._log.wait()
    # Some 3,000 pages were written. One look at the log may be late, and the next finds what came meanwhile.
    assert store._file._log_size() < 1500 * 4096


def test_a_process_that_ends_beside_others_leaves_no_long_log(
    store: SqliteStore, open_store: Callable[[], SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_transactions, "LONG", 0)
    reader = open_store()
    by_writer, by_reader = watch_log(store, monkeypatch), watch_log(reader, monkeypatch)
    assert reader.find(NAMESPACE, key(1)) is None
    store.commit([inline(1)], store.open_session(SOMEBODY))
    store.close()
    reader.close()
    assert (len(by_writer), len(by_reader)) == (1, 0)


def watch_log(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the threads that bring the log into the database."""
    movers: list[str] = []
    move = store._file._move_log

    def move_seen(how: Statement) -> tuple[bool, int]:
        movers.append(threading.current_thread().name)
        return move(how)

    monkeypatch.setattr(store._file, "_move_log", move_seen)
    return movers


def traced(store: SqliteStore) -> list[str]:
    statements: list[str] = []
    connection, lease = store._file._take()
    connection.set_trace_callback(statements.append)
    store._file._connections.give_back(lease)
    return statements


def levels_of(statements: list[str]) -> list[str]:
    return [statement.partition("=")[2] for statement in statements if "synchronous" in statement]


@pytest.mark.slow
def test_a_session_lives_as_long_as_its_process(store: SqliteStore, tmp_path: Path) -> None:
    with start(WRITE_AND_WAIT, "sqlite", tmp_path) as writer:
        assert writer.stdout is not None
        session = writer.stdout.readline().strip()
        [alive] = store.live_sessions()
        assert (alive.id, alive.lease_expired) == (session, False)
        os.kill(writer.pid, signal.SIGSTOP)
        assert not store.live_sessions()[0].lease_expired
        os.kill(writer.pid, signal.SIGCONT)
        writer.kill()
        writer.communicate()
    assert store.live_sessions()[0].lease_expired
    assert store.fence(session)


def test_the_session_of_a_store_in_the_same_process_is_alive(
    store: SqliteStore, open_store: Callable[[], SqliteStore]
) -> None:
    session = store.open_session(SOMEBODY)
    for _ in range(3):  # looking must not let go of the lock
        assert [found.lease_expired for found in open_store().live_sessions()] == [False]
    store.commit([inline(1)], session)
    store.close()
    assert [found.lease_expired for found in open_store().live_sessions()] == [True]


def test_lock_files_go_with_their_sessions(
    store: SqliteStore, open_store: Callable[[], SqliteStore], locks: Callable[[], list[str]]
) -> None:
    ended, fenced, live = (store.open_session(SOMEBODY) for _ in range(3))
    assert locks() == sorted(f"{session}.lock" for session in (ended, fenced, live))
    store.end_session(ended)
    open_store().fence(fenced)
    assert locks() == [f"{live}.lock"]
    with pytest.raises(SessionLost):
        store.commit([inline(1)], fenced)
    assert list(store._locks._held) == [f"{live}.lock"]


@pytest.mark.slow
def test_thousands_of_short_lived_writers_leave_nothing_behind(
    store: SqliteStore, locks: Callable[[], list[str]]
) -> None:
    for number in range(200):
        session = store.open_session(SOMEBODY)
        store.commit([inline(number)], session)
        store.end_session(session)
    assert locks() == []
    assert store.delete_sessions(-1_000_000) == 200


def test_a_session_without_its_lock_file_may_be_fenced(store: SqliteStore, tmp_path: Path) -> None:
    session = store.open_session(SOMEBODY)
    (tmp_path / "sessions" / f"{session}.lock").unlink()
    assert store.live_sessions()[0].lease_expired


def test_a_writer_that_holds_the_lock_cannot_be_fenced(store: SqliteStore, tmp_path: Path) -> None:
    session = store.open_session(SOMEBODY)
    with closing(sqlite3.connect(tmp_path / "metadata.sqlite", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert not store.fence(session)
        writer.execute("ROLLBACK")
    assert store.dead_sessions([session]) == set()
    assert store.fence(session)


def test_a_transaction_that_is_interrupted_is_rolled_back(store: SqliteStore) -> None:
    session = store.open_session(SOMEBODY)
    store.commit([inline(1)], session)

    def work(transaction: SqliteTransaction) -> None:
        transaction.run_rows(store._sql.put, [row_of(inline(1, b"half done"))])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store._file.transact(work)
    assert store.find(NAMESPACE, key(1)) == inline(1)
    store.commit([inline(2)], session)


def test_readers_are_served_while_writers_are_refused(store: SqliteStore, tmp_path: Path) -> None:
    session = store.open_session(SOMEBODY)
    store.commit([inline(1)], session)
    with closing(sqlite3.connect(tmp_path / "metadata.sqlite", isolation_level=None)) as hung:
        hung.execute("BEGIN IMMEDIATE")
        for _ in range(5):
            with patience(0.01), pytest.raises(StoreUnavailable):
                store.commit([inline(2)], session)
        assert store.find(NAMESPACE, key(1)) == inline(1)


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "9p", "lustre"])
def test_network_file_systems_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    mounts = tmp_path / "mounts"
    shared = tmp_path / "our share"
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/x {str(shared).replace(' ', chr(92) + '040')} {kind} rw 0 0\n")
    monkeypatch.setattr(platform, "_MOUNTS", mounts)
    for path in (shared / "metadata.sqlite", shared / "deeper" / "metadata.sqlite"):
        with pytest.raises(ConfigError, match=kind):
            SqliteStore(path, limits=Limits())
    assert not shared.exists()
    SqliteStore(tmp_path / "our shared" / "metadata.sqlite", limits=Limits()).close()


def test_text_that_sqlite_cannot_hold_is_refused(store: SqliteStore) -> None:
    session = store.open_session(SOMEBODY)
    with pytest.raises(CodecError, match="cannot store"):
        store.commit([inline(1), inline(2, prefix="\ud800")], session)
    assert store.find(NAMESPACE, key(1)) is None


def test_a_store_that_was_closed_says_so(store: SqliteStore) -> None:
    store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        store.find(NAMESPACE, key(1))


def test_a_place_in_line_that_was_given_up_twice_frees_nothing_of_others(tmp_path: Path) -> None:
    turn = wait_in_line(tmp_path / "line", 5)
    assert turn is not None
    descriptor = turn.fileno()
    unlock(turn)
    other = wait_in_line(tmp_path / "other", 5)
    assert other is not None
    assert other.fileno() == descriptor
    unlock(turn)
    assert wait_in_line(tmp_path / "other", 0.1) is None
    unlock(other)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("waits", [False, True])
def test_a_place_in_line_that_an_interruption_lost_is_free_for_others(tmp_path: Path, waits: bool) -> None:
    first = wait_in_line(tmp_path / "line", 5)
    assert first is not None
    if waits:
        threading.Timer(0.2, unlock, [first]).start()
    else:
        unlock(first)
    wait_in_line(tmp_path / "line", 5)  # the interruption came before anybody had its result
    turn = wait_in_line(tmp_path / "line", 5)
    assert turn is not None
    unlock(turn)


@pytest.mark.slow
def test_a_stopped_writer_in_line_costs_the_others_patience_and_not_their_puts(
    store: SqliteStore, tmp_path: Path
) -> None:
    session = store.open_session(SOMEBODY)
    program = """
from cacheness.file_locks import wait_in_line
turn = wait_in_line(folder / "metadata.sqlite-line", 5)
print("first in line", flush=True)
sys.stdin.read()
"""
    with start(program, "sqlite", tmp_path) as first:
        says(first, "first in line")
        os.kill(first.pid, signal.SIGSTOP)
        impatient = SqliteStore(tmp_path / "metadata.sqlite", limits=Limits(busy=1.0))
        impatient.commit([inline(1)], session)
        impatient.close()
        first.kill()
        first.communicate()
    assert store.find(NAMESPACE, key(1)) == inline(1)


def test_closing_does_not_wait_for_a_thread_that_another_one_is_about_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = threading.Event()
    keeper = sqlite_log.LogKeeper(lambda _: ran.set() or 0)
    start, waited = threading.Thread.start, []

    def late(thread: threading.Thread) -> None:
        waited.append(keeper.wait())  # of the thread that closes
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", late)
    keeper.note(sqlite_log.CHANGES)
    assert waited == [None]
    assert ran.wait(10)
    keeper.wait()
