"""Every entry of one cache into another, stored bytes and all."""

from __future__ import annotations

import random

import pytest

from cacheness import UnifiedCache
from cacheness.copying import copy

LARGE = random.Random(1).randbytes(100_000)


@pytest.fixture(params=["sqlite", "json"])
def target(request, tmp_path):
    with UnifiedCache(cache_dir=tmp_path / "target", metadata_backend=request.param) as cache:
        yield cache


def fill(cache: UnifiedCache) -> None:
    cache.put("small", x=1, tags=["a", "b"], ttl=3600, provenance={"run": "r"}, compute_seconds=1.5)
    cache.put(LARGE, x=2, prefix="p")
    cache.put(None, x=3, version="2")


def test_keys_values_times_tags_and_provenance_stay(world, target):
    fill(world.cache)
    done = copy(world.cache.parts, target.parts, world.cache.iter_entries())
    assert (done.copied, done.already_there, done.unreadable) == (3, 0, 0)
    assert target.get(x=1) == "small"
    assert target.get(x=2, prefix="p") == LARGE
    assert target.lookup(x=3, version="2").value is None
    kept = ("cache_key", "args", "created_at", "expires_at", "tags", "provenance", "compute_seconds", "size", "codec")
    old, new = ([[entry[name] for name in kept] for entry in cache.list_entries()] for cache in (world.cache, target))
    assert old == new
    assert list(target.verify_integrity(deep=True)) == []


def test_a_copy_that_is_run_again_goes_on(world, target):
    fill(world.cache)
    entries = list(world.cache.iter_entries())
    copy(world.cache.parts, target.parts, iter(entries[:1]))
    done = copy(world.cache.parts, target.parts, iter(entries))
    assert (done.copied, done.already_there) == (2, 1)


def test_what_cannot_be_read_is_told_and_left_out(world, target):
    fill(world.cache)
    world.cache.parts.blobs.delete(world.cache.lookup(x=2, prefix="p").entry.object)
    done = copy(world.cache.parts, target.parts, world.cache.iter_entries())
    assert (done.copied, done.unreadable) == (2, 1)
