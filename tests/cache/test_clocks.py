"""A clock is set while a cache is in use: what a client's own clock shows decides nothing on a server."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

import pytest

from cacheness import UnifiedCache
from cacheness.config import Config
from cacheness.errors import ClockMoved, StoreUnavailable
from cacheness.metadata.postgresql import PostgresqlStore
from cacheness.metadata.sql.postgresql_building import CLOCK_TOLERANCE
from cacheness.records import MICROSECONDS
from cacheness.testing.contracts.metadata import NAMESPACE, SOMEBODY, entry, inline, key
from tests.conftest import SIGNING_KEY

HOUR = 3600
real_ns, real = time.time_ns, time.time


@contextmanager
def clock_set(seconds: float) -> Iterator[None]:
    """Set this process's clock forward, or back."""
    with (
        patch("time.time_ns", lambda: real_ns() + int(seconds * 1e9)),
        patch("time.time", lambda: real() + seconds),
    ):
        yield


@pytest.fixture
def shared(emptied_url: str, s3_url: str) -> Iterator[Callable[..., UnifiedCache]]:
    """Opens one shared cache again and again, as several machines would; each has its own connections."""
    opened = []

    def open_another(**more: Any) -> UnifiedCache:
        url = f"{emptied_url}?pool_size={len(opened) + 2}"  # another configuration, so another set of parts
        config = Config(metadata_backend=url, blob_store=s3_url, signing_key=SIGNING_KEY).but(**more)
        opened.append(UnifiedCache(config))
        return opened[-1]

    yield open_another
    for cache in opened:
        cache.close()


def lifetime(cache: UnifiedCache, **args: Any) -> float:
    """Seconds that an entry has left, by a clock that nobody has set."""
    hit = cache.lookup(**args)
    assert hit is not None
    assert hit.entry.expires_at is not None
    return hit.entry.expires_at / MICROSECONDS - real()


@pytest.mark.parametrize("step", [2 * HOUR, -2 * HOUR, 90, 20 * 365 * 24 * HOUR])
def test_a_clients_clock_that_is_set_changes_no_lifetime(shared, step):
    other, mine = shared(), shared(max_entries=1000)
    for n in range(20):
        other.put(n, n=n, ttl=60 if n % 2 else HOUR)
    mine.put("before", k="before", ttl=HOUR)
    with clock_set(step):
        assert [mine.get(n=n) for n in range(20)] == list(range(20))
        assert len(mine.present([mine.key(n=n) for n in range(20)])) == 20
        assert mine.evict() == 0
        assert mine.delete_matching(older_than=60) == 0
        assert len(mine.list_entries(older_than=30)) == 0
        mine.put("new", k="new", ttl=600)
        mine.put(os.urandom(50_000), k="blob", ttl=600)
        with mine.write_batch():
            mine.put("batched", k="batched", ttl=600)
        assert mine.touch(k="before", ttl=600)
        assert mine.cached(lambda x: x, ttl=600, version="1")(7) == 7
    for found in ("new", "blob", "batched", "before"):
        assert 590 < lifetime(other, k=found) <= 601
    assert sum(other.get(n=n) is not None for n in range(20)) == 20
    assert all(abs((row["created_at"] - datetime.now(UTC)).total_seconds()) < 60 for row in other.list_entries())


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_client_that_connects_with_its_clock_off_goes_by_the_servers(shared, step):
    other = shared()
    other.put("theirs", k=1, ttl=600)
    with clock_set(step):
        mine = shared()
        assert mine.get(k=1) == "theirs"
        mine.put("mine", k=2, ttl=600)
        assert mine.evict() == 0
    assert 590 < lifetime(other, k=2) <= 601


def lag(cache: UnifiedCache, seconds: float) -> None:
    """Make a process's measure of the server's clock wrong, as after a server's clock was set."""
    pool = cache._store.metadata._pool
    cache._store.metadata.now()
    pool._offset += int(seconds * MICROSECONDS)


@pytest.mark.parametrize("step", [2 * HOUR, -2 * HOUR, 61, -61])
def test_a_put_that_is_dated_wrongly_is_dated_again(shared, step):
    other, mine = shared(), shared()
    mine.put("first", k=0)
    for how in (
        lambda: mine.put("inline", k=1, ttl=600),
        lambda: mine.put(os.urandom(50_000), k=1, ttl=600),
        lambda: mine.put_many([(n, {"args": {"k": n + 1}, "ttl": 600}) for n in range(5)]),
    ):
        lag(mine, step)
        how()
        assert 590 < lifetime(other, k=1) <= 601
        blobs = [info.name for info in mine._store.blobs.scan("default/")]
        assert len(blobs) == (1 if mine.lookup(k=1).entry.blob else 0)  # uploaded once, and dated again
    lag(mine, step)
    assert mine.touch(k=1, ttl=300)
    assert 290 < lifetime(other, k=1) <= 301


@pytest.mark.parametrize("step", [30, -30])
def test_a_little_is_borne(shared, step):
    mine = shared()
    mine.put(0, k=0)
    lag(mine, step)
    before = mine._store.metadata._pool._offset
    mine.put(1, k=1)
    assert mine._store.metadata._pool._offset == before


def test_what_is_deleted_for_its_age_is_compared_with_the_servers_clock(shared):
    mine = shared()
    for n in range(5):
        mine.put(n, n=n, ttl=HOUR)
    lag(mine, 5 * HOUR)
    assert mine.evict() == 0
    assert mine.delete_matching(older_than=HOUR) == 0
    assert mine._store.metadata.delete_sessions(HOUR * MICROSECONDS) == 0
    assert mine.delete_matching(older_than=-HOUR) == 5


def test_the_servers_clock_is_measured_again_once_a_minute_by_whoever_only_reads(shared, monkeypatch):
    mine = shared()
    mine.put("short", k=1, ttl=600)
    lag(mine, HOUR)
    assert mine.get(k=1) is None
    steady = time.clock_gettime_ns
    monkeypatch.setattr("time.clock_gettime_ns", lambda clock: steady(clock) + 61 * 10**9)
    mine.get(k=1)
    assert mine.get(k=1) == "short"


def test_a_batch_that_was_open_for_long_is_dated_when_it_is_published(shared, monkeypatch):
    mine = shared()
    steady = time.clock_gettime_ns
    with mine.write_batch():
        mine.put("early", k=1, ttl=600)
        mine._store.metadata._pool._offset -= 300 * MICROSECONDS  # five minutes go by
        monkeypatch.setattr("time.clock_gettime_ns", lambda clock: steady(clock) + 300 * 10**9)
    assert 590 < lifetime(mine, k=1) <= 601


def test_a_copy_keeps_its_times_however_old(shared, tmp_path):
    from cacheness.maintenance.copying import copy

    with UnifiedCache(cache_dir=tmp_path) as source:
        with clock_set(-30 * 24 * HOUR):
            made = source.put("old", k=1)
            large = source.put(os.urandom(50_000), k=2)
        target = shared()
        assert copy(source._store, target._store, source.iter_entries()).copied == 2
    for k, kept in ((1, made), (2, large)):
        assert target.lookup(k=k).entry.created_at == kept.created_at


def test_a_fresh_entry_is_refused_by_a_server_whose_clock_is_elsewhere(emptied_url):
    from cacheness.deadlines import Limits

    store = PostgresqlStore(emptied_url, limits=Limits())
    session = store.open_session(SOMEBODY)
    good = inline(1, created_at=store.now())
    assert store.commit([good], session, fresh=True) == []
    for away in (CLOCK_TOLERANCE + 10 * MICROSECONDS, -CLOCK_TOLERANCE - 10 * MICROSECONDS):
        late = entry(1, created_at=store.now() + away)
        for several in ([late], [inline(2, created_at=store.now()), late]):
            with pytest.raises(ClockMoved):
                store.commit(several, session, fresh=True)
            assert store.find(NAMESPACE, key(1)) == good
            assert store.find(NAMESPACE, key(2)) is None
            assert store.tombstones() == []
    assert store.commit([entry(3, created_at=0)], session) == []
    store.close()


def test_a_clock_that_does_not_hold_still_ends_in_an_error_and_no_loop(shared, monkeypatch):
    mine = shared()
    mine.put("kept", k=1)
    monkeypatch.setattr(mine._store.metadata, "now", lambda: 0)
    with pytest.raises(StoreUnavailable, match="its clock"):
        mine.put("never", k=1)
    monkeypatch.undo()
    assert mine.get(k=1) == "kept"


@pytest.mark.parametrize("backend", ["sqlite", "json"])
def test_an_embedded_cache_goes_by_the_one_clock_of_its_machine(tmp_path, backend):
    """All its processes see the same clock; a lifetime ends early when that is set forward."""
    with UnifiedCache(cache_dir=tmp_path, metadata_backend=backend) as cache:
        for k in ("short", "long", "none"):
            cache.put(k, k=k, ttl={"short": 600, "long": 24 * HOUR, "none": None}[k])
        with clock_set(HOUR):
            assert [cache.get(k=k) for k in ("short", "long", "none")] == [None, "long", "none"]
            assert cache.evict() == 1
        with clock_set(-HOUR):
            assert cache.put("earlier", k="back", ttl=600)
            assert cache.get(k="back") == "earlier"
            assert cache.evict() == 0
        assert cache.get(k="back") is None
        assert [cache.get(k=k) for k in ("long", "none")] == ["long", "none"]
        assert cache.verify_integrity(repair=True).counts() == {}
