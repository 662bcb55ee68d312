"""Which rows a transaction locks, and in which order: two that lock alike wait for each other and never die.

Read from the statements that run on PostgreSQL, where each row is locked by itself. SQLite has one lock.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from cacheness import UnifiedCache
from cacheness.config import Config
from cacheness.metadata.sql import postgresql_pool

pytestmark = pytest.mark.external

SIGNING_KEY = "a key that only these tests know"
#: What each kind of row waits for. Those of one key (its uses, tags, tombstone) follow the lock of its entry.
ORDER = {"sessions": 0, "entries": 1, "uses": 2, "tags": 2, "tombstones": 2, "totals": 3}
LOCKED = re.compile(
    r"(?:INSERT INTO|UPDATE|DELETE FROM) cacheness\.(\w+)|FROM cacheness\.(\w+)[^()]*? FOR (?:UPDATE|SHARE)"
)


@pytest.fixture
def transactions(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The statements of each transaction, as they run."""
    seen: list[list[str]] = []
    begun: list[postgresql_pool.Connection] = []
    transact = postgresql_pool.Pool.transact

    run = postgresql_pool.Connection.run

    def run_seen(self, statement, values):
        if self in begun:
            seen[-1].append(statement.text)
        else:
            seen.append([statement.text])
        return run(self, statement, values)

    def transact_seen(self, work: Callable[..., object], seconds: float = 0.0) -> object:
        def work_seen(transaction):
            seen.append([])
            begun.append(transaction._connection)
            try:
                return work(transaction)
            finally:
                begun.pop()

        return transact(self, work_seen, seconds)

    many = postgresql_pool.PostgresqlTransaction.run_many

    def many_seen(self, statement, values):
        seen[-1].append(statement.text)
        return many(self, statement, values)

    monkeypatch.setattr(postgresql_pool.Connection, "run", run_seen)
    monkeypatch.setattr(postgresql_pool.Pool, "transact", transact_seen)
    monkeypatch.setattr(postgresql_pool.PostgresqlTransaction, "run_many", many_seen)
    return seen


def locked(text: str) -> Iterator[str]:
    for match in LOCKED.finditer(text):
        yield match[1] or match[2]


def test_each_transaction_locks_session_entries_what_belongs_to_them_and_totals_last(
    emptied_url: str, transactions: list[list[str]]
) -> None:
    config = Config(metadata_backend=emptied_url, blob_store="memory://", signing_key=SIGNING_KEY)
    with UnifiedCache(config.but(max_entries=20)) as cache:
        for n in range(30):
            cache.put(n, n=n, tags=("t", str(n)), prefix="p", ttl=None if n % 3 else 3600)
        cache.put(b"x" * 60_000, n=1, tags=("other",))
        cache.get(n=1)
        with cache.write_batch():
            for n in range(5, 10):
                cache.put(b"y" * 60_000, n=n, prefix="q")
        cache.put_many([(n, {"n": n}) for n in range(3)])
        cache.touch(n=7, ttl=60)
        cache.invalidate(n=7)
        cache.delete_matching(tag="t")
        cache.cached(len)("abc")
        cache.evict()
        cache.verify_integrity(repair=True)
        cache.clear()
    written = [(texts, list(map(list, map(locked, texts)))) for texts in transactions]
    several = [(texts, tables) for texts, tables in written if sum(map(len, tables)) > 1]
    assert len(several) > 30
    assert {table for _, tables in several for some in tables for table in some} >= set(ORDER)
    for texts, tables in several:
        # A statement for each row locks a session, an entry and what belongs to it: its own kind is in order.
        for some in tables:
            ranks = [ORDER[table] for table in some if table in ORDER]
            assert ranks == sorted(ranks), texts
        flat = [table for some in tables for table in some]
        assert flat.count("totals") <= 1, texts
        if "totals" in flat:
            assert flat[-1] == "totals", texts
        if "sessions" in flat:
            assert flat[0] == "sessions" or not {"entries", "totals"} & set(flat), texts
        belongings = [number for number, some in enumerate(tables) if {"uses", "tags", "tombstones"} & set(some)]
        entries = [number for number, some in enumerate(tables) if "entries" in some]
        assert not entries or not belongings or max(entries) <= min(belongings), texts
