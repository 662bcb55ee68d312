"""What has expired or must make room."""

from __future__ import annotations

import random

from cacheness import UnifiedCache


def blob(n: int) -> bytes:
    return random.Random(n).randbytes(50_000)


def test_a_quota_of_bytes_holds_and_takes_the_blobs_along(world):
    cache = UnifiedCache(world.config.but(max_bytes=300_000))
    for n in range(12):
        cache.put(blob(n), n=n)
    assert cache.stats()["bytes"] <= 300_000 * 1.02 + 50_100
    report = cache.verify_integrity()
    assert list(report) == []
    assert report.objects == report.entries < 12
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


def test_expired_entries_go_first(world):
    cache = UnifiedCache(world.config.but(max_entries=5))
    for n in range(4):
        cache.put(n, n=n)
    for n in range(4, 8):
        cache.put(n, n=n, ttl=0.000001)
    assert {entry["args"]["n"] for entry in cache.list_entries()} == {0, 1, 2, 3}
    cache.close()


def test_without_a_quota_nothing_is_evicted(world):
    for n in range(20):
        world.cache.put(n, n=n)
    assert world.cache.evict() == 0
    assert len(world.cache.list_entries()) == 20
