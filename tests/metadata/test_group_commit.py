"""Threads that put at the same time share a transaction on SQLite, and neither errors nor deadlines."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from cacheness.deadlines import Limits, patience
from cacheness.errors import CodecError, CommitUnanswered, SessionLost, StoreBusy, StoreFull
from cacheness.metadata.sql.group_commit import GroupCommit
from cacheness.metadata.sql.sqlite_transactions import SqliteFile, SqliteTransaction
from cacheness.metadata.sqlite import SqliteStore
from cacheness.records import Entry
from cacheness.testing.contracts.metadata import NAMESPACE, SOMEBODY, entry, inline, key
from tests.forked import ended, fork


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "metadata.sqlite", limits=Limits(busy=20.0))
    yield store
    store.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


@contextmanager
def locked(store: SqliteStore) -> Iterator[None]:
    """Keep the database locked, as another process does."""
    with closing(sqlite3.connect(store._file.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def until(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.001)


def in_line(store: SqliteStore, pool: ThreadPoolExecutor, puts: Sequence[Callable[[], Any]]) -> list[Future[Any]]:
    """Begin puts while the database is locked: the first leads, and the others wait in this order."""
    started = []
    for put in puts:
        started.append(pool.submit(put))
        until(lambda: store._groups._leader() is not None and len(store._groups._waiting) == len(started) - 1)
    return started


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One more for each transaction that was committed."""
    seen: list[None] = []
    real = SqliteTransaction.commit

    def commit(self: SqliteTransaction) -> None:
        real(self)
        seen.append(None)

    monkeypatch.setattr(SqliteTransaction, "commit", commit)
    return seen


def test_puts_that_wait_for_each_other_are_one_transaction(
    store: SqliteStore, pool: ThreadPoolExecutor, commits: list[None]
) -> None:
    session = store.open_session(SOMEBODY)
    commits.clear()
    with locked(store):
        puts = in_line(store, pool, [lambda n=n: store.commit([inline(n)], session) for n in range(8)])
    assert [put.result() for put in puts] == [[]] * 8
    assert len(commits) == 1
    assert store.holdings(NAMESPACE).entries == 8
    assert set(store.find_many(NAMESPACE, [key(n) for n in range(8)])) == {key(n) for n in range(8)}


def test_each_put_has_its_own_error(store: SqliteStore, pool: ThreadPoolExecutor) -> None:
    lost, lives = (store.open_session(SOMEBODY) for _ in range(2))
    store.end_session(lost)
    half_of_a_pair = inline(3, function="\ud800")
    given: list[tuple[Entry, str]] = [
        (inline(1), lost),
        (inline(2), lives),
        (half_of_a_pair, lives),
        (inline(4), lives),
    ]
    with locked(store):
        puts = in_line(store, pool, [lambda one=one, its=its: store.commit([one], its) for one, its in given])
    errors = [put.exception() for put in puts]
    assert [type(error) for error in errors] == [SessionLost, type(None), CodecError, type(None)]
    assert set(store.find_many(NAMESPACE, [key(n) for n in range(5)])) == {key(2), key(4)}
    assert store.holdings(NAMESPACE).entries == 2


def test_of_one_key_the_last_in_line_stays_and_the_blob_of_the_other_is_to_be_deleted(
    store: SqliteStore, pool: ThreadPoolExecutor
) -> None:
    session = store.open_session(SOMEBODY)
    first, second = entry(1), entry(1)
    with locked(store):
        puts = in_line(
            store, pool, [lambda one=one: store.commit([one], session) for one in (inline(9), first, second)]
        )
    assert [put.result() for put in puts] == [[], [], [first.blob]]
    found = store.find(NAMESPACE, key(1))
    assert found is not None
    assert found.blob == second.blob
    assert list(store.tombstones()) == [first.blob]


def test_who_has_less_patience_gives_up_alone(store: SqliteStore, pool: ThreadPoolExecutor) -> None:
    session = store.open_session(SOMEBODY)

    def hurried(number: int) -> list[str]:
        with patience(0.2):
            return store.commit([inline(number)], session)

    with locked(store):
        leading = pool.submit(hurried, 1)  # waits for the lock
        until(lambda: store._groups._leader() is not None)
        waiting = [pool.submit(hurried, 2), pool.submit(store.commit, [inline(3)], session)]
        assert isinstance(leading.exception(), StoreBusy)
        assert isinstance(waiting[0].exception(), StoreBusy)
    assert waiting[1].result() == []
    assert set(store.find_many(NAMESPACE, [key(n) for n in range(4)])) == {key(3)}


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException, *, after: bool = False) -> None:
    """Let the next commit fail, `after` it was done or before."""
    real = SqliteTransaction.commit

    def commit(self: SqliteTransaction) -> None:
        monkeypatch.setattr(SqliteTransaction, "commit", real)
        if after:
            real(self)
        raise error

    monkeypatch.setattr(SqliteTransaction, "commit", commit)


class Interrupted(BaseException):
    """As KeyboardInterrupt, which pytest takes for itself."""


@pytest.mark.parametrize(
    "error", [Interrupted(), sqlite3.OperationalError("disk I/O error")], ids=["cut", "unanswered"]
)
@pytest.mark.parametrize("after", [False, True])
def test_after_a_commit_without_an_answer_nobody_says_what_became_of_it(
    store: SqliteStore, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, error: BaseException, after: bool
) -> None:
    session = store.open_session(SOMEBODY)
    with locked(store):
        puts = in_line(store, pool, [lambda n=n: store.commit([inline(n)], session) for n in range(4)])
        failing(monkeypatch, error, after=after)
    raised = [put.exception() for put in puts]
    assert isinstance(raised[0], Interrupted | CommitUnanswered)
    assert [type(one) for one in raised[1:]] == [CommitUnanswered] * 3
    assert len(store.find_many(NAMESPACE, [key(n) for n in range(4)])) == 4 * after
    store.commit([inline(5)], session)  # nobody waits for who was interrupted
    assert store.find(NAMESPACE, key(5)) is not None


def test_results_are_stored_once_when_the_commit_that_they_shared_was_interrupted(
    tmp_path: Path, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cacheness import UnifiedCache

    with UnifiedCache(tmp_path / "cache") as cache:
        cache.put(0, n=0)
        store = cache._store.metadata
        with locked(store):
            puts = in_line(store, pool, [lambda n=n: cache.put([n], n=n) for n in range(1, 6)])
            failing(monkeypatch, sqlite3.OperationalError("disk I/O error"), after=True)
        for put in puts:
            put.result()
        assert [cache.get(n=n) for n in range(6)] == [0, [1], [2], [3], [4], [5]]
        assert cache.stats()["entries"] == 6
        assert cache.verify_integrity().ok


def test_a_disk_that_fills_up_refuses_each_by_itself(
    store: SqliteStore, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = store.open_session(SOMEBODY)
    real, full = SqliteTransaction.run_rows, threading.Event()
    full.set()

    def run_rows(self: SqliteTransaction, statement: Any, rows: Any) -> Any:
        rows = list(rows)
        if full.is_set() and any(key(2) in row for row in rows):
            self._connection.execute("ROLLBACK")  # as SQLite does by itself
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return real(self, statement, rows)

    monkeypatch.setattr(SqliteTransaction, "run_rows", run_rows)
    with locked(store):
        puts = in_line(store, pool, [lambda n=n: store.commit([inline(n)], session) for n in (1, 2, 3)])
    raised = [put.exception() for put in puts]
    assert isinstance(raised[1], StoreFull)
    full.clear()
    stored = set(store.find_many(NAMESPACE, [key(n) for n in (1, 2, 3)]))
    assert stored == {key(n) for n, error in zip((1, 2, 3), raised, strict=True) if error is None}


def test_a_put_within_a_put_of_the_same_thread_does_not_wait_for_itself(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = store.open_session(SOMEBODY)
    inner: list[BaseException | None] = []
    real = SqliteFile._wait_in_line

    def interrupted(self: SqliteFile) -> Any:
        monkeypatch.setattr(SqliteFile, "_wait_in_line", real)
        store.commit([inline(2)], session)  # as a finalizer does, that runs before the transaction has begun
        return real(self)

    monkeypatch.setattr(SqliteFile, "_wait_in_line", interrupted)
    store.commit([inline(1)], session)
    commit = SqliteTransaction.commit

    def within(self: SqliteTransaction) -> None:
        monkeypatch.setattr(SqliteTransaction, "commit", commit)
        with pytest.raises(StoreBusy, match="interrupted a write") as raised:
            store.commit([inline(4)], session)
        inner.append(raised.value)
        commit(self)

    monkeypatch.setattr(SqliteTransaction, "commit", within)
    store.commit([inline(3)], session)
    assert len(inner) == 1
    assert set(store.find_many(NAMESPACE, [key(n) for n in range(5)])) == {key(1), key(2), key(3)}


def test_a_child_that_is_forked_while_threads_wait_puts_by_itself(store: SqliteStore, pool: ThreadPoolExecutor) -> None:
    session = store.open_session(SOMEBODY)
    with locked(store):
        puts = in_line(store, pool, [lambda n=n: store.commit([inline(n)], session) for n in range(3)])

        def has_nobody_in_line() -> None:
            assert store._groups._leader() is None
            assert not store._groups._waiting

        assert ended(fork(has_nobody_in_line)) == 0
    assert [put.result() for put in puts] == [[]] * 3


def test_threads_that_put_and_are_interrupted_lose_nothing_that_was_acknowledged(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = store.open_session(SOMEBODY)
    real, counted = SqliteTransaction.commit, iter(range(10_000))

    def commit(self: SqliteTransaction) -> None:
        number = next(counted)
        if number % 7 == 3:
            raise Interrupted
        real(self)
        if number % 7 == 5:
            raise Interrupted

    monkeypatch.setattr(SqliteTransaction, "commit", commit)

    def put(thread: int) -> list[int]:
        acknowledged = []
        for n in range(thread * 1000, thread * 1000 + 20):
            try:
                store.commit([inline(n)], session)
            except (Interrupted, CommitUnanswered):
                continue
            acknowledged.append(n)
        return acknowledged

    with ThreadPoolExecutor(8) as pool:
        acknowledged = [n for done in pool.map(put, range(8)) for n in done]
    assert len(acknowledged) > 20
    found = store.find_many(NAMESPACE, [key(n) for n in acknowledged])
    assert len(found) == len(acknowledged)
    assert store._groups._leader() is None
    assert not store._groups._waiting


def test_a_put_that_was_interrupted_before_it_waits_is_never_asked_to_lead(
    store: SqliteStore, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = store.open_session(SOMEBODY)
    real = GroupCommit._wait

    def interrupted(self: GroupCommit, put: Any) -> None:
        monkeypatch.setattr(GroupCommit, "_wait", real)
        raise Interrupted

    with locked(store):
        leading = pool.submit(store.commit, [inline(1)], session)
        until(lambda: store._groups._leader() is not None)
        monkeypatch.setattr(GroupCommit, "_wait", interrupted)
        kept = pool.submit(store.commit, [inline(2)], session).exception()  # its traceback holds the put
        assert isinstance(kept, Interrupted)
        assert not store._groups._waiting
    assert leading.result() == []
    assert store._groups._leader() is None
    assert store.commit([inline(3)], session) == []
    assert set(store.find_many(NAMESPACE, [key(n) for n in range(4)])) == {key(1), key(3)}
