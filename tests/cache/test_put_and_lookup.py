"""One result: put, found, replaced, forgotten, on both worlds."""

from __future__ import annotations

import logging
import os
import pickle
import random
import threading
from datetime import timedelta

import numpy as np
import pytest

from cacheness import CachenessError, CodecError, Hit, Key, StoreRefused, UnifiedCache
from cacheness.results import access_counts
from cacheness.results import store as results_store

LARGE = 200_000  #: bytes, more than fits in a row
ONE, OTHER = random.Random(1).randbytes(LARGE), random.Random(2).randbytes(LARGE)


def test_what_is_put_is_got_under_the_same_arguments(world):
    world.cache.put({"a": 1}, x=1, y="a")
    assert world.cache.get(x=1, y="a") == {"a": 1}
    assert world.cache.get(y="a", x=1) == {"a": 1}
    assert world.cache.get(x=1, y="b") is None
    assert world.cache.get(x=1, y="b", default="nothing") == "nothing"


def test_results_survive_reopening(world):
    world.cache.put(b"small", k="small")
    world.cache.put(ONE, k="large")
    cache = world.reopen()
    assert cache.get(k="small") == b"small"
    assert cache.get(k="large") == ONE


def test_a_cached_none_is_a_hit(world):
    world.cache.put(None, k=1)
    assert isinstance(world.cache.lookup(k=1), Hit)
    assert world.cache.lookup(k=2) is None
    assert world.cache.get(k=1, default="nothing") is None


def test_a_prefix_and_a_version_make_other_keys(world):
    world.cache.put("plain", x=1)
    world.cache.put("prefixed", x=1, prefix="clean")
    world.cache.put("second", x=1, version="2")
    assert world.cache.get(x=1) == "plain"
    assert world.cache.get(x=1, prefix="clean") == "prefixed"
    assert world.cache.get(x=1, version="2") == "second"


def test_arguments_named_like_options_go_into_args(world):
    entry = world.cache.put("v", args={"ttl": 3, "prefix": 4}, z=5)
    assert world.cache.get(args={"prefix": 4, "ttl": 3}, z=5) == "v"
    world.cache.put("again", **entry["args"])
    assert world.cache.get(args={"prefix": 4, "ttl": 3, "z": 5}) == "again"
    with pytest.raises(TypeError, match="ttl"):
        world.cache.get(ttl=3)
    with pytest.raises(TypeError, match="default"):
        world.cache.put("v", default=3)
    with pytest.raises(TypeError, match="twice"):
        world.cache.put("v", args={"x": 1}, x=2)


def test_an_entry_is_found_by_its_key(world):
    entry = world.cache.put("v", x=1)
    assert world.cache.get(entry["cache_key"]) == "v"
    assert world.cache.get(entry.cache_key) == "v"
    assert world.cache.get(world.cache.key(x=1)) == "v"
    with pytest.raises(ValueError, match="64"):
        world.cache.get("deadbeef")
    with pytest.raises(TypeError, match="not both"):
        world.cache.get(entry.cache_key, x=1)


def test_overwriting_replaces_the_value_and_leaves_one_blob(world):
    world.cache.put(ONE, k=1)
    world.cache.put(OTHER, k=1)
    assert world.cache.get(k=1) == OTHER
    assert len(world.cache.list_entries()) == 1
    assert len(world.cache.verify_integrity()) == 0
    assert world.cache.verify_integrity().blobs == 1


def test_invalidating_removes_row_and_blob(world):
    world.cache.put(ONE, k=1)
    assert world.cache.invalidate(k=1)
    assert not world.cache.invalidate(k=1)
    assert world.cache.lookup(k=1) is None
    assert world.cache.verify_integrity().blobs == 0


def test_arrays_come_back_equal_and_writable(world):
    for array in (np.arange(10.0), np.asfortranarray(np.random.default_rng(1).random((300, 200)))):
        world.cache.put(array, shape=array.shape)
        found = world.cache.get(shape=array.shape)
        np.testing.assert_array_equal(found, array)
        found[...] = 0
        np.testing.assert_array_equal(world.cache.get(shape=array.shape), array)


def test_an_expired_entry_is_a_miss(world):
    world.cache.put("v", k=1, ttl=0.000001)
    world.cache.put("v", k=2, ttl=timedelta(hours=1))
    assert world.cache.lookup(k=1) is None
    assert world.cache.lookup(k=2) is not None
    assert [entry["args"] for entry in world.cache.list_entries()] == [{"k": 2}]
    assert world.cache.evict() == 1
    with pytest.raises(ValueError, match="ttl"):
        world.cache.put("v", k=3, ttl=0)


def test_touch_gives_a_new_lifetime(world):
    world.cache.put("v", k=1, ttl=0.3)
    assert world.cache.touch(k=1, ttl=3600)
    entry = world.cache.list_entries()[0]
    assert (entry["expires_at"] - entry["created_at"]).total_seconds() > 3000
    assert world.cache.get(k=1) == "v"
    assert world.cache.touch(k=1)
    assert world.cache.list_entries()[0]["expires_at"] is None
    assert not world.cache.touch(k=2)


def test_entries_say_what_they_are(world):
    world.cache.put([1], x=1, y="a", prefix="clean", tags=["prices", "daily"], provenance={"run": "r1"})
    (entry,) = world.cache.list_entries()
    assert entry["args"] == {"x": 1, "y": "a", "prefix": "clean"}
    assert entry["tags"] == ["daily", "prices"]
    assert entry["provenance"] == {"run": "r1"}
    assert entry["created_at"].tzinfo is not None
    assert entry["size"] > 0


def test_entries_are_deleted_by_tag_prefix_and_age(world):
    for n in range(6):
        world.cache.put(n, n=n, tags=["odd" if n % 2 else "even"], prefix="p" if n < 3 else "")
    assert len(world.cache.list_entries(tag="odd")) == 3
    assert world.cache.delete_matching(tag="odd") == 3
    assert world.cache.delete_matching(prefix="p") == 2
    assert world.cache.delete_matching(older_than=3600) == 0
    assert world.cache.delete_matching(older_than=0) == 1
    with pytest.raises(TypeError, match="clear"):
        world.cache.delete_matching()


def test_a_tag_is_matched_whole_and_literally(world):
    world.cache.put(1, k=1, tags=["a%b"])
    world.cache.put(2, k=2, tags=["axb"])
    world.cache.put(3, k=3, tags=["A%B"])
    assert [e["args"]["k"] for e in world.cache.list_entries(tag="a%b")] == [1]
    with pytest.raises(TypeError, match="list of tags"):
        world.cache.put(1, k=1, tags="prices")
    with pytest.raises(ValueError, match="line breaks"):
        world.cache.put(1, k=1, tags=["a\nb"])


def test_many_results_travel_together(world):
    entries = world.cache.put_many((bytes([n]) * (n * 20_000), {"n": n}) for n in range(5))
    assert [entry["args"] for entry in entries] == [{"n": n} for n in range(5)]
    keys = [entry.cache_key for entry in entries]
    hits = world.cache.get_many([*keys, "0" * 64])
    assert {key: hit.value for key, hit in hits.items()} == {
        key: bytes([n]) * (n * 20_000) for n, key in enumerate(keys)
    }
    present = world.cache.present([*keys, "0" * 64])
    assert set(present) == set(keys)
    assert all(presence.size > 0 for presence in present.values())


def test_a_batch_is_readable_inside_and_durable_after(world):
    with world.cache.write_batch():
        world.cache.put("one", k=1)
        world.cache.put("two", k=1)
        assert world.cache.get(k=1) == "two"
        with world.cache.write_batch():
            world.cache.put("three", k=3)
    cache = world.reopen()
    assert cache.get(k=1) == "two"
    assert cache.get(k=3) == "three"


def test_a_value_that_changes_before_the_batch_ends_is_stored_as_it_was_put(world):
    array = np.arange(100_000.0)
    with world.cache.write_batch():
        world.cache.put(array, k=1)
        array[:] = -1
    np.testing.assert_array_equal(world.cache.get(k=1), np.arange(100_000.0))


@pytest.mark.slow
def test_a_batch_holds_no_more_than_64_mib(world):
    with pickle.loads(pickle.dumps(world.cache)) as other, world.cache.write_batch():
        for n in range(3):
            world.cache.put(os.urandom(23 << 20), k=n)
            assert [other.lookup(k=k) is not None for k in range(3)] == [n == 2] * 3


def test_text_that_cannot_be_written_down_is_refused(world):
    with pytest.raises(ValueError, match="tag"):
        world.cache.put(1, k=1, tags=["\ud800"])
    with pytest.raises(TypeError, match="prefix"):
        world.cache.put(1, k=1, prefix="\ud800")


def test_listing_stops_at_its_limit(world):
    for n in range(5):
        world.cache.put(n, n=n, ttl=0.000001 if n == 2 else None)
    assert len(world.cache.list_entries(limit=3)) == 3
    assert len(world.cache.list_entries(limit=10)) == 4
    assert world.cache.list_entries(limit=0) == []


def test_an_exception_in_a_batch_drops_what_was_not_flushed(world):
    with pytest.raises(RuntimeError), world.cache.write_batch():
        world.cache.put("kept", k=1)
        world.cache.get(k=1)
        world.cache.put("dropped", k=2)
        raise RuntimeError
    assert world.cache.get(k=1) == "kept"
    assert world.cache.lookup(k=2) is None


def test_a_value_that_cannot_be_stored_publishes_nothing(world):
    world.cache.put("old", k=1)
    with pytest.raises(CodecError):
        world.cache.put((n for n in range(3)), k=1)
    assert world.cache.get(k=1) == "old"


def test_a_pickled_cache_opens_the_same_store(world):
    world.cache.put("v", k=1)
    twin = pickle.loads(pickle.dumps(world.cache))
    assert twin.get(k=1) == "v"
    twin.close()
    twin.close()
    with pytest.raises(CachenessError, match="closed"):
        twin.get(k=1)
    assert world.cache.get(k=1) == "v"


def test_two_namespaces_do_not_see_each_other(world):
    other = UnifiedCache(world.config.but(namespace="other"))
    world.cache.put(ONE, k=1)
    assert other.lookup(k=1) is None
    other.put(OTHER, k=1)
    assert world.cache.get(k=1) == ONE
    assert other.clear() == 1
    assert other.verify_integrity(repair=True).blobs == 0
    assert world.cache.get(k=1) == ONE
    other.close()


def test_hits_are_counted(world):
    world.cache.put("v", k=1)
    for _ in range(3):
        world.cache.get(k=1)
    stats = world.cache.stats()
    assert stats["bytes"] == world.cache.list_entries()[0]["size"]
    assert (stats["entries"], stats["hits"], stats["misses"], stats["bytes_saved"]) == (1, 3, 0, 3 * stats["bytes"])


def test_a_quota_evicts_the_least_recently_used(world):
    cache = UnifiedCache(world.config.but(max_entries=10))
    for n in range(10):
        cache.put(n, n=n)
    for n in range(5):
        cache.get(n=n)
    for n in range(10, 13):
        cache.put(n, n=n)
    left = {entry["args"]["n"] for entry in cache.list_entries()}
    assert len(left) <= 11
    assert {0, 1, 2, 3, 4} <= left
    cache.close()


def test_what_does_not_verify_is_a_miss_and_is_replaced(world, caplog):
    owner = UnifiedCache(world.config.but(signing_key="the key of our own team"))
    owner.put("v", k=1)
    intruder = UnifiedCache(world.config.but(signing_key="the key of another team"))
    with caplog.at_level(logging.WARNING):
        assert intruder.lookup(k=1) is None
    assert "not served" in caplog.text
    intruder.put("w", k=1)
    assert intruder.get(k=1) == "w"
    assert owner.lookup(k=1) is None
    intruder.close()
    owner.close()


def test_counters_that_cannot_be_written_spoil_no_hit(world, monkeypatch):
    world.cache.put("v", k=1)
    monkeypatch.setattr(access_counts, "FLUSH_AT", 1)
    monkeypatch.setattr(world.cache._store.metadata, "record_use", refuse)
    assert world.cache.get(k=1) == "v"
    assert world.cache.stats()["entries"] == 1


def test_counters_are_written_along_with_a_put_when_it_is_time(world, monkeypatch):
    world.cache.put("v", k=1)
    world.cache.get(k=1)
    monkeypatch.setattr(access_counts, "FLUSH_EVERY", 0.0)
    world.cache.put("w", k=2)
    for thread in threading.enumerate():
        if thread.name == "cacheness-uses":
            thread.join()
    assert {entry["args"]["k"]: entry["uses"] for entry in world.cache.list_entries()} == {1: 1, 2: 0}


def refuse(*args: object) -> None:
    raise StoreRefused("read-only")


class Unreadable:
    """Pickles, and never unpickles."""

    reads = 0

    def __init__(self, n: int) -> None:
        self.n = n

    def __reduce__(self):
        return _read, (self.n,)


def _read(n: int) -> Unreadable:
    Unreadable.reads += 1
    if n < 0:
        raise AttributeError("no such thing any more")
    return Unreadable(n)


@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: [value], lambda value: {"a": value}])
def test_what_cannot_be_read_back_is_not_stored(world, wrap):
    with pytest.raises(CodecError, match=r"cannot be read back: .*no such thing any more"):
        world.cache.put(wrap(Unreadable(-1)), k=1)
    assert world.cache.lookup(k=1) is None
    calls = []

    @world.cache.cached
    def compute(n: int) -> object:
        calls.append(n)
        return wrap(Unreadable(n))

    compute(-1)
    compute(-1)
    assert calls == [-1, -1]


def test_only_the_first_value_of_a_kind_is_read_back(world):
    Unreadable.reads = 0
    for n in range(3):
        world.cache.put(Unreadable(n), k=n)
    assert Unreadable.reads == 1
    world.cache.put([Unreadable(1)], k=3)
    assert Unreadable.reads == 2
    world.cache.get(k=0)
    assert Unreadable.reads == 3


def test_many_rows_of_others_fill_no_log(tmp_path, caplog, monkeypatch):
    keys = []
    with UnifiedCache(tmp_path, signing_key="the key of another team") as others, others.write_batch():
        keys = [others.put(number, n=number).cache_key for number in range(100)]
    with UnifiedCache(tmp_path, signing_key="the key of our own team") as cache, caplog.at_level(logging.WARNING):
        assert cache.get_many(keys) == {}
        assert all(cache.get(n=number) is None for number in range(100))
        told = [record.getMessage() for record in caplog.records]
        assert len(told) == 21
        assert sum("verify_integrity() lists all" in text for text in told) == 1
        monkeypatch.setattr(results_store, "WARNINGS_SECONDS", -1.0)  # later
        cache.get(n=1)
    assert len(caplog.records) == 22


@pytest.mark.parametrize("compression", ["auto", "zstd", "none"])
def test_who_opens_a_cache_says_what_is_compressed(world, compression):
    words = " ".join(str(n % 5000) for n in range(100_000)).encode()
    opened = world.config.but(compression=compression, namespace=compression)
    with UnifiedCache(opened) as cache:
        entry = cache.put(words, x=1)
        assert cache.get(x=1) == words
    travels = world.config.metadata_backend not in {"sqlite", "json"}
    assert entry.codec.endswith("+zstd") == (compression == "zstd" or (compression == "auto" and travels))
    assert world.cache.config.compression == "auto"


def test_what_is_compressed_is_read_by_a_cache_that_compresses_nothing(world):
    words = " ".join(str(n % 5000) for n in range(100_000)).encode()
    with UnifiedCache(world.config.but(compression="zstd")) as one:
        assert one.put(words, x=1).codec.endswith("+zstd")
    with UnifiedCache(world.config.but(compression="none")) as other:
        assert other.get(x=1) == words


def with_alias(cache: UnifiedCache, alias: bytes, **args: object) -> Key:
    """Return a key of a result that other keys may be linked to."""
    key = cache.key(**args)
    key.alias = alias
    return key


def test_a_link_names_a_result_and_replaces_none(world):
    cache = world.cache
    one, two, three = (with_alias(cache, bytes(32), k=number) for number in range(3))
    found = cache.put(ONE, one)
    assert cache.link(one, found).link is None  # another process computed the same meanwhile
    cache.link(three, found)
    cache.put(ONE, two)
    assert cache.link(two, found).link is None
    with cache.write_batch():
        cache.link(one, cache.entry(two))
        cache.link(two, cache.entry(one))
    world.reopen()
    assert [world.cache.get(key) for key in (one, two, three)] == [ONE] * 3
    assert [world.cache.entry(key).link for key in (one, two)] == [None, None]
    assert world.cache.invalidate(one)
    assert (world.cache.get(two), world.cache.get(three)) == (ONE, None)


def test_a_link_replaces_no_put_of_its_batch_and_names_no_key_itself(world):
    one, two = (with_alias(world.cache, bytes(32), k=number) for number in range(2))
    found = world.cache.put(ONE, two)
    with world.cache.write_batch():
        itself = world.cache.put(OTHER, one)
        assert world.cache.link(one, found).link is None
        assert world.cache.link(one, itself).link is None
    assert world.cache.get(one) == OTHER
    world.cache.invalidate(one)
    assert world.cache.link(one, itself).link is None
    assert world.cache.entry(one) is None


def test_a_put_that_comes_between_the_look_and_the_commit_of_a_link_stays(world, monkeypatch):
    one, two = (with_alias(world.cache, bytes(32), k=number) for number in range(2))
    found = world.cache.put(ONE, two)
    with UnifiedCache(world.config) as other, world.cache.write_batch():
        world.cache.link(one, found)
        other.put(OTHER, one)
    assert world.cache.get(one) == OTHER
    world.cache.invalidate(two)
    assert world.cache.get(one) == OTHER


def test_a_link_replaces_what_is_not_served(world):
    one, two, three = (with_alias(world.cache, bytes(32), k=number) for number in range(3))
    world.cache.put(ONE, one, ttl=timedelta(microseconds=1))
    damaged = world.cache.put(ONE, three)
    found = world.cache.put(ONE, two)
    world.cache._store.blobs.delete(damaged.blob)
    for key in (one, three):
        assert world.cache.link(key, found).link == found.key
        assert world.cache.get(key) == ONE
