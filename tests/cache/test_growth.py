"""What is done for one result does not grow with the cache: statements, their rows and their plans are looked at."""

from __future__ import annotations

import itertools
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from cacheness import StoreFull, UnifiedCache
from cacheness.maintenance import eviction
from cacheness.metadata.sql import postgresql_pool, sqlite_transactions
from cacheness.metadata.sql.statements import Statement
from cacheness.results import access_counts
from tests.forked import ended, fork

#: Rows that PostgreSQL may read for one result, and steps that SQLite may take.
MOST_FOR_ONE = (250, 2000)


@dataclass
class Seen:
    """The statements that ran, with their values, how many rows each brought, and how many steps SQLite took."""

    statements: list[tuple[Statement, dict[str, Any]]] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    steps: dict[str, int] = field(default_factory=dict)

    def note(self, statement: Statement, values: dict[str, Any], rows: Sequence[object], steps: int = 0) -> None:
        self.statements.append((statement, {**statement.constants, **values}))
        self.rows.append(len(rows))
        self.steps[statement.text] = max(steps, self.steps.get(statement.text, 0))


@contextmanager
def seeing() -> Iterator[Seen]:
    seen = Seen()
    run, ask = sqlite_transactions._run, postgresql_pool.Connection.run
    run_many = sqlite_transactions._run_many
    ask_many = postgresql_pool.PostgresqlTransaction.run_many

    def run_seen(connection, statement, values):
        steps = itertools.count()
        connection.set_progress_handler(lambda: next(steps) < 0, 1)
        found = run(connection, statement, values)
        connection.set_progress_handler(None, 1)
        seen.note(statement, values, found[0], next(steps))
        return found

    def run_many_seen(connection, statement, values):
        steps = itertools.count()
        connection.set_progress_handler(lambda: next(steps) < 0, 1)
        changed = run_many(connection, statement, values)
        connection.set_progress_handler(None, 1)
        if values:
            first = dict(zip(statement.order, values[0], strict=True)) if statement.order else values[0]
            seen.note(statement, first, (), next(steps) // len(values))
        return changed

    def ask_seen(self, statement, values):
        found = ask(self, statement, values)
        seen.note(statement, values, found[0])
        return found

    def ask_many_seen(self, statement, values):
        changed = ask_many(self, statement, values)
        if values:
            seen.note(statement, values[0], ())
        return changed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite_transactions, "_run", run_seen)
        patch.setattr(sqlite_transactions, "_run_many", run_many_seen)
        patch.setattr(postgresql_pool.Connection, "run", ask_seen)
        patch.setattr(postgresql_pool.PostgresqlTransaction, "run_many", ask_many_seen)
        yield seen


def fill(config, entries: int, **options: Any) -> None:
    with UnifiedCache(config) as cache, cache.write_batch():
        for n in range(entries):
            cache.put(n, n=n, **options)


def computed(x: object) -> object:
    return x


def what_is_done_for_one_result(config, most: int) -> Seen:
    """Everything that a process does for single results, its first ones among them, in a full cache."""
    with seeing() as seen, UnifiedCache(config.but(max_entries=most)) as cache:
        cache.put(0, fresh=1)
        cache.put(b"x" * 60_000, fresh=2, tags=("t",), prefix="p", ttl=3600)
        cache.put(3, fresh=1)
        cache.get(n=most - 1)
        cache.lookup(never=1)
        function = cache.cached(computed)
        assert [function(7), function(7), function(8)] == [7, 7, 8]
        cache.touch(fresh=1, ttl=60)
        cache.invalidate(fresh=2)
        cache.stats()
    return seen


@pytest.mark.slow
def test_what_is_done_for_one_result_is_the_same_in_a_larger_cache(world, caplog):
    caplog.set_level(logging.INFO)
    found = []
    for size in (150, 1500):
        config = world.config.but(namespace=f"of-{size}")
        fill(config, size)
        found.append(what_is_done_for_one_result(config, size - 1))
    small, large = found
    before, after = (looked_at(world.config, seen) for seen in found)
    for text, steps in after.items():
        # A statement may meet 100 rows in one run and none in the other, whatever there is besides.
        assert steps <= 1.5 * max(before.get(text, 0), MOST_FOR_ONE[world.config.metadata_backend == "sqlite"]), text
    assert len(large.statements) <= len(small.statements) * 1.2
    assert sum(large.rows) <= sum(small.rows) * 1.5
    assert max(large.rows) <= 200


def test_no_statement_for_one_result_reads_the_whole_table(world, caplog):
    caplog.set_level(logging.INFO)
    fill(world.config, 300, ttl=0.001)
    seen = what_is_done_for_one_result(world.config, 200)
    assert len(seen.statements) > 20
    for statement, values in seen.statements:
        if "FROM" in statement.text and "entries" in statement.text:
            assert not scans(world.config, statement, values), statement.text


def looked_at(config, seen: Seen) -> dict[str, int]:
    """What each statement costs whose rows may be many: SQLite's steps, or rows that PostgreSQL reads."""
    if config.metadata_backend == "sqlite":
        return seen.steps
    with psycopg.connect(config.metadata_backend, cursor_factory=psycopg.RawCursor) as connection:
        for way in (
            b"seqscan",
            b"bitmapscan",
            b"sort",
            b"hashjoin",
            b"mergejoin",
        ):  # which are the better ones while a table is small
            connection.execute(b"SET enable_%s = off" % way)
        connection.execute(b"ANALYZE cacheness.entries, cacheness.uses, cacheness.tags")
        connection.commit()
        return {statement.text: rows_read(connection, statement, values) for statement, values in seen.statements}


def rows_read(connection: psycopg.Connection[Any], statement: Statement, values: dict[str, Any]) -> int:
    ordered = [values.get(name) for name in statement.order]
    try:
        [(plan,)] = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement.text}".encode(), ordered)
    except (psycopg.errors.UniqueViolation, psycopg.errors.SyntaxError):
        return 0  # it begins a session that is there already, or sets an option
    finally:
        connection.rollback()
    return rows_read_by(plan[0]["Plan"])


def rows_read_by(node: dict[str, Any]) -> int:
    names = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck", "Rows Removed by Join Filter")
    read = sum(node.get(name, 0) for name in names) * node.get("Actual Loops", 1) if "Scan" in node["Node Type"] else 0
    return int(read) + sum(map(rows_read_by, node.get("Plans", ())))


def scans(config, statement: Statement, values: dict[str, Any]) -> list[str]:
    """The parts of a statement's plan that look at every row of `entries`."""
    if config.metadata_backend == "sqlite":
        with sqlite3.connect(f"{config.cache_dir}/metadata.sqlite") as connection:
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement.text}", values)]
        connection.close()
        return [line for line in plan if line.startswith("SCAN entries")]
    with psycopg.connect(config.metadata_backend, cursor_factory=psycopg.RawCursor) as connection:
        connection.execute(b"SET enable_seqscan = off")
        ordered = [values.get(name) for name in statement.order]
        plan = [row[0] for row in connection.execute(f"EXPLAIN {statement.text}".encode(), ordered)]
        return [line for line in plan if "Seq Scan on entries" in line]


def test_listing_and_deleting_by_function_or_age_use_their_indexes(world):
    for n in range(30):
        world.cache.put(n, n=n, function=computed if n % 3 else world.cache.put)
    name = f"{__name__}:computed"
    with seeing() as seen:
        assert len(world.cache.list_entries(function=name)) == 20
        assert len(list(world.cache.iter_entries(older_than=-60))) == 30
        assert world.cache.delete_matching(function=name) == 20
        assert world.cache.delete_matching(older_than=-60) == 10
    about_entries = [item for item in seen.statements if "FROM" in item[0].text and "entries" in item[0].text]
    assert about_entries
    for statement, values in about_entries:
        assert not scans(world.config, statement, values), statement.text


def test_a_put_in_a_cache_far_over_its_quota_deletes_a_slice_and_not_everything(world):
    fill(world.config, 1000)
    with UnifiedCache(world.config.but(max_entries=100)) as cache:
        cache.put(0, one=1)
        left = cache.stats()["entries"]
        assert 800 <= left < 1001
        assert cache.evict() == left - 100 + 1
        assert cache.stats()["entries"] == 99
        assert list(cache.verify_integrity()) == []


def test_an_eviction_says_how_many_are_gone_and_how_many_have_to_go(world):
    def evict(config) -> list[tuple[int, int | None]]:
        seen: list[tuple[int, int | None]] = []
        with UnifiedCache(config) as cache:
            assert cache.evict(progress=lambda gone, to_go: seen.append((gone, to_go))) == seen[-1][0]
        return seen

    fill(world.config, 30, ttl=0.001)
    assert evict(world.config) == [(30, None), (30, 0)]
    quota = world.config.but(namespace="quota")
    fill(quota, 700)
    seen = evict(quota.but(max_entries=100))
    assert len(seen) > 2
    assert seen[-1] == (601, 0)
    assert seen == sorted(seen)
    assert all(to_go is not None and gone + to_go == 601 for gone, to_go in seen)


def test_processes_that_live_for_one_put_keep_the_quota(world):
    for n in range(30):
        with UnifiedCache(world.config.but(max_entries=10)) as cache:
            cache.put(n, n=n)
            assert cache.stats()["entries"] <= 11
            assert cache.get(n=n) == n


def test_processes_that_live_for_one_put_delete_what_has_expired(world, monkeypatch):
    def put_as_another_process(n: int) -> None:
        with UnifiedCache(world.config.but(lease=30.0 + n)) as cache:  # another configuration has parts of its own
            cache.put(n, n=n, ttl=0.001 if n < 2 else None)

    put_as_another_process(0)
    put_as_another_process(1)
    assert world.cache.stats()["entries"] == 2  # somebody looked a moment ago
    monkeypatch.setattr(eviction, "NEGLECTED", 0.0)
    put_as_another_process(2)
    assert world.cache.stats()["entries"] == 1


def test_the_quota_of_a_namespace_holds_for_processes_that_do_not_name_it(world, caplog):
    with UnifiedCache(world.config.but(max_entries=10)) as cache:
        cache.put(0, n=0)
    with UnifiedCache(world.config) as cache:
        for n in range(1, 40):
            cache.put(n, n=n)
        assert cache.stats()["entries"] <= 11
    assert not caplog.records
    with UnifiedCache(world.config.but(max_entries=20)) as cache:
        cache.put(1, other=1)
    [record] = caplog.records
    assert "max_entries=10" in record.getMessage()
    assert "max_entries=20" in record.getMessage()


def test_what_is_larger_than_the_quota_is_not_stored_and_nothing_is_deleted_for_it(world, caplog):
    with UnifiedCache(world.config.but(max_bytes=100_000)) as cache:
        cache.put(b"k" * 1000, kept=1)
        large = os.urandom(200_000)
        with pytest.raises(StoreFull, match="max_bytes"):
            cache.put(large, large=1)
        function = cache.cached(lambda: large)
        assert function() == function() == large
        assert cache.get(kept=1) == b"k" * 1000
        assert cache.stats()["entries"] == 1
    assert len([record for record in caplog.records if "without the cache" in record.getMessage()]) == 1


def test_uses_are_written_in_pieces_beside_the_caller(world, monkeypatch):
    monkeypatch.setattr(access_counts, "PIECE", 10)
    monkeypatch.setattr(access_counts, "FLUSH_AT", 35)
    fill(world.config, 60)
    keys = [entry.cache_key for entry in world.cache.iter_entries()]
    counter, written = world.cache._store.uses, []
    record = world.cache._store.metadata.record_use

    def record_seen(namespace, uses):
        written.append((threading.current_thread().name, len(uses)))
        record(namespace, uses)

    monkeypatch.setattr(world.cache._store.metadata, "record_use", record_seen)
    monkeypatch.setattr(counter, "_flushed", counter._flushed - 2)
    for key in keys:
        world.cache.get(key)
    for thread in threading.enumerate():
        if thread.name == "cacheness-uses":
            thread.join()
    assert {name for name, _ in written} == {"cacheness-uses"}
    assert max(size for _, size in written) <= 10
    assert world.cache.stats()["hits"] == 60
    assert all(
        use.hits == 1 for use in world.cache._store.metadata.uses("default", list(map(bytes.fromhex, keys))).values()
    )


def test_uses_that_cannot_be_written_are_kept_for_later(world, monkeypatch):
    fill(world.config, 3)
    keys = [entry.cache_key for entry in world.cache.iter_entries()]
    metadata = world.cache._store.metadata

    def refuse(namespace, uses):
        world.cache.get(keys[1])  # another thread's hit, while this write is under way
        raise StoreFull("no room")

    for key in keys:
        world.cache.get(key)
    with monkeypatch.context() as patch:
        patch.setattr(metadata, "record_use", refuse)
        world.cache._store.uses.flush()
    world.cache.get(keys[0])
    assert world.cache.stats()["hits"] == 5


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_counts_its_own_uses_and_not_those_of_its_parent(world, monkeypatch):
    fill(world.config, 3)
    keys = [entry.cache_key for entry in world.cache.iter_entries()]
    for key in keys:
        world.cache.get(key)
    monkeypatch.setattr(world.cache._store.uses, "_is_writing", True)  # by a thread that the child does not have

    def child() -> None:
        world.cache.get(keys[0])
        world.cache._store.uses._flushed -= 2 * access_counts.FLUSH_EVERY
        world.cache._store.uses.write_when_due()
        for thread in threading.enumerate():
            if thread.name == "cacheness-uses":
                thread.join()

    assert ended(fork(child)) == 0
    assert [row.calls for row in world.cache._store.metadata.activity("default")] == [1]
    assert world.cache.stats()["hits"] == 4
