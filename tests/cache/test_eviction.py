"""What has expired or must make room."""

from __future__ import annotations

import dataclasses
import logging
import random
import sqlite3
from bisect import bisect_left, insort
from contextlib import closing
from typing import Any, Literal

import pytest

from cacheness import UnifiedCache
from cacheness.deadlines import patience_or
from cacheness.factory import SQLITE_FILE
from cacheness.maintenance.eviction import FULL_TO, SAMPLE, least_valuable
from cacheness.records import Candidate

UNLIMITED = 1e6  #: seconds


def blob(n: int) -> bytes:
    return random.Random(n).randbytes(50_000)


def test_a_quota_of_bytes_holds_and_takes_the_blobs_along(world):
    cache = UnifiedCache(world.config.but(max_bytes=300_000))
    for n in range(12):
        cache.put(blob(n), n=n)
    assert cache.stats()["bytes"] <= 300_000 * 1.02 + 50_100
    report = cache.verify_integrity()
    assert list(report) == []
    assert report.blobs == report.entries < 12
    assert cache.get(n=11) == blob(11)
    cache.close()


def test_by_cost_the_cheap_go_before_the_dear(world):
    cache = UnifiedCache(world.config.but(max_entries=10, eviction="cost"))
    for n in range(5):
        cache.put(n, n=n, compute_seconds=1000.0)
    for n in range(5, 12):
        cache.put(n, n=n, compute_seconds=0.001)
    left = {entry["args"]["n"] for entry in cache.list_entries()}
    assert {0, 1, 2, 3, 4} <= left
    assert len(left) <= 10
    cache.close()


def test_what_was_just_used_stays_though_its_use_is_not_written_yet(world):
    cache = UnifiedCache(world.config.but(max_entries=20))
    for n in range(20):
        cache.put(n, n=n)
    used = [0, 1, 2, 3]
    for n in used:
        cache.get(n=n)
    for n in range(20, 30):
        cache.put(n, n=n)
    left = {entry["args"]["n"] for entry in cache.list_entries()}
    assert {*used} <= left
    assert len(left) <= 20
    cache.close()


def test_what_is_put_again_while_victims_are_chosen_stays(world, monkeypatch):
    cache = UnifiedCache(world.config.but(max_entries=10))
    evictor, again = cache._opened.evictor, []
    victims = evictor._victims

    def choose(*given):
        found = victims(*given)
        if found and not again:  # as other processes do: the same key again, and another one that is chosen, too
            again.append(found[0].key)
            world.cache.put("again", found[0].key)
            other = world.cache.put("other", n=-1)
            found.append(dataclasses.replace(found[0], key=other.key, created_at=other.created_at))
        return found

    monkeypatch.setattr(evictor, "_victims", choose)
    for n in range(15):
        cache.put(n, n=n)
    assert cache.get(again[0]) == "again"
    cache.close()


def test_expired_entries_go_first(world):
    cache = UnifiedCache(world.config.but(max_entries=5))
    for n in range(4):
        cache.put(n, n=n)
    for n in range(4, 8):
        cache.put(n, n=n, ttl=0.000001)
    assert {entry["args"]["n"] for entry in cache.list_entries()} == {0, 1, 2, 3}
    cache.close()


def test_a_put_leaves_its_slice_to_the_next_one_while_another_process_writes(tmp_path, monkeypatch, caplog):
    with UnifiedCache(tmp_path, max_entries=20) as cache, closing(sqlite3.connect(tmp_path / SQLITE_FILE)) as other:
        for n in range(20):
            cache.put(n, n=n)
        evictor, limits = cache._opened.evictor, list[float]()
        after_put, delete_slice = evictor.after_put, evictor._delete_slice

        def beside_a_writer(*given: Any) -> None:
            other.execute("BEGIN IMMEDIATE")
            after_put(*given)
            other.rollback()

        def noted(*given: Any) -> None:
            limits.append(patience_or(UNLIMITED))
            delete_slice(*given)

        with monkeypatch.context() as patched:
            patched.setattr(evictor, "after_put", beside_a_writer)
            patched.setattr(evictor, "_delete_slice", noted)
            cache.put(20, n=20)
        assert max(limits) < UNLIMITED
        assert cache.get(n=20) == 20
        assert cache.stats()["entries"] == 21
        assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []
        cache.put(21, n=21)
        assert cache.stats()["entries"] <= 20


def test_without_a_quota_nothing_is_evicted(world):
    for n in range(20):
        world.cache.put(n, n=n)
    assert world.cache.evict() == 0
    assert len(world.cache.list_entries()) == 20


def candidate(n: int, **fields: Any) -> Candidate:
    plain = {"key": bytes([n]), "size": 10, "created_at": 0, "compute_seconds": 0.0, "accessed_at": n, "hits": 0}
    return Candidate(**plain | fields)


def test_the_least_recently_used_of_a_sample_go():
    sample = [candidate(n, accessed_at=(n * 37) % 64) for n in range(64)]
    assert [one.accessed_at for one in least_valuable(sample, "lru")] == list(range(8))


def test_what_is_cheap_to_lose_goes():
    sample = [
        candidate(1, compute_seconds=100.0, hits=10),
        candidate(2, compute_seconds=0.0, hits=1000),
        candidate(3, compute_seconds=100.0, hits=10, size=1_000_000),
        candidate(4, compute_seconds=100.0),
        candidate(5, compute_seconds=1e-9, size=0),
    ]
    gone = []
    while sample:
        [worst] = least_valuable(sample, "cost")
        gone.append(worst.key[0])
        sample.remove(worst)
    assert gone == [2, 5, 3, 4, 1]


# eviction by sample, against the exact order


def zipf(rng: random.Random, number: int, items: int) -> list[int]:
    return rng.choices(range(items), [1 / (item + 1) for item in range(items)], k=number)


def trace_of(kind: str, rng: random.Random) -> list[int]:
    wanted = zipf(rng, 6000, 1500)
    if kind == "scan":  # now and then, things are read that nobody asks for again
        return [item if turn % 1500 < 1100 else 10_000 + turn for turn, item in enumerate(wanted)]
    if kind == "shifting":  # what is popular changes
        return [item + 200 * (turn // 1000) for turn, item in enumerate(wanted)]
    return wanted


def hits_of(trace: list[int], most: int, policy: Literal["lru", "cost"], sample: int) -> int:
    """Hits of a cache that evicts by samples of this size."""
    rng = random.Random(2)
    held: dict[int, Candidate] = {}
    order: list[tuple[float, int]] = []  # as keys are: by chance
    place = {item: (rng.random(), item) for item in set(trace)}
    found = 0
    for turn, item in enumerate(trace):
        known = held.get(item)
        found += known is not None
        seconds = float(item % 17)
        held[item] = candidate(
            0, key=str(item).encode(), compute_seconds=seconds, accessed_at=turn, hits=known.hits + 1 if known else 0
        )
        if known is None:
            insort(order, place[item])
        if len(held) <= most:
            continue
        for _ in range(len(held) - most + most // FULL_TO):
            at = bisect_left(order, (rng.random(), 0))
            neighbours = [held[one] for _, one in (order + order)[at : at + min(sample, len(order))]]
            victim = int(least_valuable(neighbours, policy)[0].key)
            del held[victim]
            order.remove(place[victim])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["lru", "cost"])
@pytest.mark.parametrize("kind", ["zipf", "scan", "shifting"])
def test_eviction_by_sample_loses_at_most_one_hit_in_fifty(kind: str, policy: Literal["lru", "cost"]):
    trace = trace_of(kind, random.Random(1))
    exact = hits_of(trace, 400, policy, sample=400)
    assert exact > 1000
    assert hits_of(trace, 400, policy, sample=SAMPLE) >= 0.98 * exact


def test_deletions_say_how_far_they_are(tmp_path):
    with UnifiedCache(tmp_path / "cache") as cache:
        for number in range(40):
            cache.put(number, number=number, tags=["odd"] if number % 2 else [])
        told: list[tuple[int, int]] = []
        assert cache.delete_matching(tag="odd", progress=lambda *so_far: told.append(so_far)) == 20
        assert cache.clear(progress=lambda *so_far: told.append(so_far)) == 20
        assert told[255] == told[-1] == (20, 256)
        assert told[:256] == sorted(told[:256])
        assert cache.stats()["entries"] == 0
