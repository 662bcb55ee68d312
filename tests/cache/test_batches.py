"""Batches of many small results: bounded in rows, in bytes and in time."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from cacheness.metadata import postgresql
from cacheness.metadata.sql import store as sql
from cacheness.records import Entry
from cacheness.results import batch
from cacheness.results.store import Draft
from tests.conftest import World


@pytest.fixture
def published(world: World, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that were published."""
    sizes: list[int] = []
    publish = world.cache._store.publish

    def count(drafts: list[Draft], **options: Any) -> Any:
        sizes.append(len(drafts))
        return publish(drafts, **options)

    monkeypatch.setattr(world.cache._store, "publish", count)
    return sizes


def test_a_batch_is_published_in_pieces_of_so_many_rows(
    world: World, published: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "BATCH_ROWS", 10)
    with world.cache.write_batch():
        for number in range(25):
            world.cache.put(number, n=number)
        assert published == [10, 10]
    assert published == [10, 10, 5]
    assert world.cache.stats()["entries"] == 25


def test_the_first_of_a_batch_does_not_wait_for_ever(
    world: World, published: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "BATCH_SECONDS", -1.0)
    with world.cache.write_batch():
        for number in range(3):
            world.cache.put(number, n=number)
    assert published == [1, 1, 1]


def test_uses_are_written_and_tombstones_cleared_in_pieces(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "WRITE_BATCH", 2)
    metadata = world.cache._store.metadata
    entries = world.cache.put_many((bytes(100_000 + n), {"n": n}) for n in range(5))
    keys = [entry.key for entry in entries]
    rows: list[int] = []
    transact = metadata._transact

    def count(work: Any, **options: Any) -> Any:
        rows.append(options.get("rows", 1))
        return transact(work, **options)

    monkeypatch.setattr(metadata, "_transact", count)
    metadata.record_use(world.config.namespace, {key: (1, metadata.now()) for key in keys})
    assert rows == [2, 2, 1]
    assert sum(use.hits for use in metadata.uses(world.config.namespace, keys).values()) == 5
    rows.clear()
    metadata.clear_tombstones([f"default/00/{n}" for n in range(3)])
    assert rows == [2, 1]


@pytest.mark.parametrize("world", [pytest.param("postgresql+s3", marks=pytest.mark.external)], indirect=True)
def test_deadlines_count_rows(world: World, published: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    pool = world.cache._store.metadata._pool
    granted_seconds: list[float] = []
    run = pool.run

    def run_seen(statement: Any, values: Any, seconds: float = 0.0) -> Any:
        granted_seconds.append(seconds)
        return run(statement, values, seconds)

    monkeypatch.setattr(pool, "run", run_seen)
    world.cache.put_many((n, {"n": n}) for n in range(2500))
    assert published == [1000, 1000, 500]
    granted = [1 + each / postgresql.ROW_SECONDS for each in granted_seconds if each > 1]
    assert all(rows >= written for rows, written in zip(granted, published, strict=True))
    assert world.cache.stats()["entries"] == 2500


def test_values_that_come_with_their_rows_are_read_without_threads(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = world.cache
    values = {n: n if n % 5 else os.urandom(100_000) for n in range(20)}  # one in five has a blob
    keys = dict(enumerate(cache.put_many([(values[n], {"n": n}) for n in values])))
    assert sum(cache.find(entry).inline is None for entry in keys.values()) == 4
    on_threads: list[bool] = []
    follow = cache._store.follow

    def seen(entry: Entry, *more: Any) -> Any:
        on_threads.append(threading.current_thread() is not threading.main_thread() and entry.inline is not None)
        return follow(entry, *more)

    monkeypatch.setattr(cache._store, "follow", seen)
    hits = cache.get_many(keys.values())
    assert {n: hits[entry.cache_key].value for n, entry in keys.items()} == values
    assert len(on_threads) == 20
    assert not any(on_threads)
