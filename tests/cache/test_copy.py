"""Every entry of one cache into another, stored bytes and all."""

from __future__ import annotations

import random

import pytest

from cacheness import UnifiedCache
from cacheness.errors import CodecError, ForgedEntry, StoreFull, StoreUnavailable
from cacheness.maintenance.copying import TROUBLE_IN_A_ROW, copy, every_row

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
    done = copy(world.cache._store, target._store, world.cache.iter_entries())
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
    copy(world.cache._store, target._store, iter(entries[:1]))
    done = copy(world.cache._store, target._store, iter(entries))
    assert (done.copied, done.already_there) == (2, 1)


def test_what_cannot_be_read_is_told_and_left_out(world, target):
    fill(world.cache)
    world.cache._store.blobs.delete(world.cache.lookup(x=2, prefix="p").entry.blob)
    done = copy(world.cache._store, target._store, world.cache.iter_entries())
    assert (done.copied, done.unreadable) == (2, 1)


def refusing(monkeypatch, target: UnifiedCache, bad: set[str], error: Exception) -> list[int]:
    """Let the target refuse batches that hold one of these keys; the sizes of the batches that it was given."""
    publish, sizes = target._store.publish, []

    def refuse(drafts, **options):
        sizes.append(len(drafts))
        if any(draft.entry.cache_key in bad for draft in drafts):
            raise error
        return publish(drafts, **options)

    monkeypatch.setattr(target._store, "publish", refuse)
    return sizes


@pytest.mark.parametrize("error", [CodecError("a NUL"), StoreFull("too large"), StoreUnavailable("too slow")])
def test_entries_that_the_target_refuses_are_named_and_all_others_copied(world, target, monkeypatch, error):
    with world.cache.write_batch():
        keys = [world.cache.put(number, number=number).cache_key for number in range(100)]
    bad = {keys[0], keys[50], keys[99]}
    refusing(monkeypatch, target, bad, error)
    named = []
    done = copy(
        world.cache._store, target._store, every_row(world.cache._store), skipped=lambda *told: named.append(told)
    )
    assert (done.copied, done.refused, done.skipped, done.seen) == (97, 3, 3, 100)
    assert {entry.cache_key for entry, _ in named} == bad
    assert {why for _, why in named} == {error}
    assert target.stats()["entries"] == 97


def test_a_target_that_is_down_ends_the_copy_after_a_few_entries(world, target, monkeypatch):
    with world.cache.write_batch():
        keys = [world.cache.put(number, number=number).cache_key for number in range(3 * TROUBLE_IN_A_ROW)]
    sizes = refusing(monkeypatch, target, set(keys), StoreFull("full"))
    with pytest.raises(StoreFull):
        copy(world.cache._store, target._store, every_row(world.cache._store))
    assert sizes.count(1) == TROUBLE_IN_A_ROW


def test_a_source_that_fails_for_one_blob_loses_only_that_entry(world, target, monkeypatch):
    fill(world.cache)
    world.cache.put(LARGE[1:], x=4)
    broken = world.cache.lookup(x=2, prefix="p").entry
    read = world.cache._store.blobs.read

    def fail(name, size):
        if name == broken.blob:
            raise StoreUnavailable("a bad sector")
        return read(name, size)

    monkeypatch.setattr(world.cache._store.blobs, "read", fail)
    done = copy(world.cache._store, target._store, every_row(world.cache._store))
    assert (done.copied, done.unreadable) == (3, 1)


def test_rows_that_no_key_of_the_source_signed_are_counted_and_expired_ones_apart(tmp_path, target):
    with UnifiedCache(cache_dir=tmp_path / "s", signing_key="the first key of sixteen") as cache:
        cache.put(1, x=1)
        cache.put(2, x=2, ttl=0.000_001)
    named = []
    with UnifiedCache(cache_dir=tmp_path / "s", signing_key="another key of sixteen bytes") as cache:
        cache.put(3, x=3)
        cache.put(4, x=4, ttl=0.000_001)
        rows = every_row(cache._store)
        done = copy(cache._store, target._store, rows, skipped=lambda *told: named.append(told))
    # That an entry has expired is believed only of one that verifies.
    assert (done.copied, done.unreadable, done.expired) == (1, 2, 1)
    assert [type(why) for _, why in named] == [ForgedEntry, ForgedEntry]


def test_an_entry_of_the_target_that_does_not_verify_is_copied_again(world, tmp_path):
    fill(world.cache)
    for key in ("a first key of sixteen bytes", "and another key of sixteen"):
        with UnifiedCache(cache_dir=tmp_path / "t", signing_key=key) as target:
            done = copy(world.cache._store, target._store, every_row(world.cache._store))
            assert (done.copied, done.already_there) == (3, 0)
            assert target.get(x=2, prefix="p") == LARGE


@pytest.mark.parametrize("value", ["newer", LARGE], ids=["small", "large"])
def test_what_the_target_has_got_since_stays(world, target, monkeypatch, value):
    fill(world.cache)
    put = target.put(value, x=1)
    done = copy(world.cache._store, target._store, world.cache.iter_entries())
    assert (done.copied, done.already_there) == (2, 1)
    assert target.get(x=1) == value
    with monkeypatch.context() as patch:  # as if it had been put after the copy had looked
        patch.setattr(type(target._store.metadata), "find_many", lambda *_: {})
        world.cache.put(LARGE, x=1)
        older = world.cache.put(LARGE, x=4)
        target.put(value, x=1)
        target.put(value, x=4)
        copy(world.cache._store, target._store, world.cache.iter_entries())
    assert older.created_at > put.created_at
    assert (target.get(x=1), target.get(x=4)) == (value, value)
    assert list(target.verify_integrity(deep=True)) == []


def test_a_copy_made_again_takes_what_the_source_has_got_since(world, target):
    fill(world.cache)
    copy(world.cache._store, target._store, world.cache.iter_entries())
    world.cache.put("newer", x=1)
    done = copy(world.cache._store, target._store, world.cache.iter_entries())
    assert (done.copied, done.already_there, target.get(x=1)) == (1, 2, "newer")


def test_a_broken_entry_that_looks_newer_is_replaced(world, tmp_path):
    fill(world.cache)
    with UnifiedCache(cache_dir=tmp_path / "t", signing_key="a first key of sixteen bytes") as other:
        other.put("unknown here", x=1)
    with UnifiedCache(cache_dir=tmp_path / "t", signing_key="and another key of sixteen") as target:
        copy(world.cache._store, target._store, every_row(world.cache._store))
        assert target.get(x=1) == "small"


def test_a_directory_keeps_its_own_key_whatever_other_key_it_is_opened_with(tmp_path):
    folder, other = tmp_path / "c", "a key of a shared cache"
    with UnifiedCache(cache_dir=folder) as cache:
        cache.put(1, x=1)
    with UnifiedCache(cache_dir=folder, signing_key=other) as cache:
        assert cache.get(x=1) == 1
        assert cache.touch(x=1, ttl=100)
        cache.put(2, x=2)
    (folder / "signing.key").unlink()
    with UnifiedCache(cache_dir=folder, signing_key=other) as cache:  # the given key signs
        assert (cache.get(x=1), cache.get(x=2)) == (1, 2)


@pytest.mark.parametrize("how", ["writable by the group", "a link", "a folder", "short", "empty"])
def test_a_key_file_that_others_may_have_put_there_is_not_trusted(tmp_path, how):
    folder, forger = tmp_path / "c", "a key that the forger knows."
    with UnifiedCache(cache_dir=folder, signing_key=forger) as cache:
        cache.put(1, x=1)
    file = folder / "signing.key"
    if how == "a folder":
        file.mkdir()
    elif how == "a link":
        (tmp_path / "key").write_text(forger)
        file.symlink_to(tmp_path / "key")
    else:
        file.write_text({"short": forger[:15], "empty": ""}.get(how, forger))
        file.chmod(0o660 if how == "writable by the group" else 0o600)
    with UnifiedCache(cache_dir=folder, signing_key="the key of those who know better") as cache:
        assert cache.lookup(x=1) is None
