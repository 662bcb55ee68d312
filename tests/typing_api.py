"""Every public call, spelled out for the type checker and never run: `make check` reads it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, assert_type

import dask
import prefect

import cacheness_dask as cd
from cacheness import Config, Entry, Hit, IntegrityReport, Ref, UnifiedCache, register
from cacheness.keys import Digest, File, Key, arguments_of, decode, digest_of, encode, fingerprint, make_key
from cacheness.records import Issue, Presence
from cacheness_prefect import (
    CachenessLockManager,
    CachenessPolicy,
    CachenessSerializer,
    CachenessStorage,
    cacheness_key,
    integrity_repair,
    repair_deployment,
)


def open_caches() -> None:
    UnifiedCache()
    UnifiedCache(cache_dir="./cache")
    UnifiedCache(cache_dir="./cache", metadata_backend="json")
    UnifiedCache(metadata_backend="postgresql://user@host/db", blob_store="s3://bucket/prefix", signing_key="secret")
    UnifiedCache(Config(cache_dir="./cache", ttl=60.0).but(namespace="mine"))
    with UnifiedCache.from_env() as cache:
        assert_type(cache, UnifiedCache)
        assert_type(cache.config, Config)


def one_result(cache: UnifiedCache) -> None:
    entry = cache.put([1], x=1, y="a", prefix="clean", ttl=3600, tags=["prices"])
    assert_type(entry, Entry)
    assert_type(entry.cache_key, str)
    cache.put([1], args={"ttl": 3, "prefix": 4}, ttl=timedelta(hours=1), version="2", compute_seconds=1.5)
    cache.put([1], entry.cache_key, by_value=True)
    cache.put([1], cache.key(x=1), provenance={"run": "r1"})
    assert_type(cache.key(x=1, prefix="clean"), Key)
    assert_type(cache.lookup(x=1), Hit | None)
    assert_type(cache.lookup(entry.cache_key), Hit | None)
    cache.get(x=1, prefix="clean", default=None)
    cache.get(entry.cache_key)
    assert_type(cache.invalidate(x=1), bool)
    assert_type(cache.touch(x=1, ttl=60), bool)


def references(cache: UnifiedCache) -> None:
    @cache.cached
    def load(n: int) -> list[float]:
        return [0.5] * n

    @cache.cached
    def score(rows: list[float]) -> float:
        return sum(rows)

    @cache.cached
    async def fetch(n: int) -> str:
        return str(n)

    ref = load.lazy(3)
    assert_type(ref, Ref[list[float]])
    assert_type(ref.arg, list[float])
    assert_type(ref.value, list[float])
    assert_type(score(ref.arg), float)
    assert_type(score.lazy(ref.arg), Ref[float])
    load.lazy("3")  # type: ignore[arg-type]

    async def fetch_all() -> None:
        assert_type(await fetch.lazy(1), Ref[str])


def truth(cache: UnifiedCache) -> None:
    @cache.cached(check=0.01, same=lambda stored, computed: bool(stored == computed), by_value=True)
    def rate(day: str) -> float:
        return float(len(day))

    for dispute in cache.disputes():
        assert_type(dispute.detail, str)
        assert_type(cache.settle(dispute.key, keep="new"), bool)
    assert_type(cache.find(rate.key("monday")), Entry | None)
    assert_type([found.stale_seconds for found in cache.plan(rate)], list[float])
    accepted = cache.accept(rate, sample=50, former="rates:old", renamed={"day": "date"}, upgrade="numpy", force=True)
    assert_type([change.bound for change in accepted], list[float])
    assert_type([cache.revoke(change.id) for change in cache.accepted_changes()], list[bool])
    cache.cached(accept=200)(len)


def many_results(cache: UnifiedCache) -> None:
    with cache.write_batch():
        cache.put(1, x=1)
    assert_type(cache.put_many([(1, {"x": 1})]), list[Entry])
    assert_type(cache.get_many(["00" * 32]), dict[str, Hit])
    assert_type(cache.present(["00" * 32]), dict[str, Presence])
    assert_type(cache.functions(), list[str])
    assert_type(cache.list_entries(tag="t", function="f", prefix="p", older_than=60, limit=10), list[dict[str, Any]])
    assert_type(cache.iter_entries(), Iterator[Entry])
    assert_type(cache.delete_matching(older_than=timedelta(days=30)), int)


def computing(cache: UnifiedCache) -> None:
    def clean(path: Path, threshold: float = 0.5) -> list[str]:
        return [str(path), str(threshold)]

    cache.get_or_compute(clean, Path("x"), threshold=0.6)
    cache.explain(clean, Path("x"))
    memoized = cache.cached(clean)
    memoized(Path("x"))
    memoized.invalidate(Path("x"))
    memoized.key(Path("x"))
    memoized.explain(Path("x"))
    memoized.refresh(Path("x"))

    @cache.cached(ttl=60, version="2", ignore=("client",), tags=("a",))
    def fetch(client: object, day: str) -> bytes:
        return day.encode()

    fetch(object(), "2026-11-22")


def the_store(cache: UnifiedCache) -> None:
    report = cache.verify_integrity(
        repair=False, deep=False, shard=0, force=False, progress=lambda objects, entries: None
    )
    assert_type(report, IntegrityReport)
    assert_type(len(report), int)
    assert_type(list(report), list[Issue])
    cache.verify_integrity(True)
    assert_type(cache.stats(), dict[str, Any])
    assert_type(cache.clear(), int)
    assert_type(cache.compute_leases.acquire("00" * 32, "token", wait=1.0, lease=30.0), bool)
    cache.compute_leases.release("00" * 32, "token")
    cache.close()


def keys() -> None:
    class Model: ...

    register(Model, lambda model: id(type(model)))
    assert_type(encode({"a": 1}), bytes)
    decode(encode(1))
    assert_type(digest_of(1), bytes)
    key = make_key(args={"x": 1}, prefix="p", version="1", function=keys)
    assert_type(key.digest, bytes)
    arguments_of(key.args)
    make_key(args={"x": File("s3://bucket/name")}, function=Digest(b"", "label"))
    assert_type(fingerprint(keys).digest, bytes)


def graphs(cache: UnifiedCache) -> None:
    doubled = dask.delayed(lambda x: 2 * x)(1)
    with cd.caching(cache, which="all", scheduler="threads", max_value_bytes=1 << 20, queue_bytes=1 << 20) as run:
        doubled.compute()
    print(run.history[-1].hits, run.history[-1].misses, run.history[-1].stored, run.history[-1].refused)
    cd.mark(doubled)
    cd.explain(doubled)
    cd.visualize(doubled, "graph.svg")
    with cd.nocache():
        doubled.compute()


def flows() -> None:
    store = CachenessStorage(cache_dir="./cache")
    policy = store.policy(version="1", ignore=["client"], tags=["t"], single_flight=True, wait=60.0, lease=30.0)
    assert_type(policy, CachenessPolicy)

    @prefect.task(cache_policy=policy, result_serializer=CachenessSerializer())
    def clean(day: str) -> str:
        return day

    @prefect.task(cache_key_fn=cacheness_key, result_storage=store)
    def other(day: str) -> str:
        return day

    clean("x")
    other("x")
    CachenessLockManager(store, wait=60.0, lease=30.0)
    integrity_repair(store, mode="check")
    repair_deployment("cacheness-storage/shared", cron="0 3 * * *")


def refused(cache: UnifiedCache) -> None:
    """What a type checker must refuse: an ignored error that is none is an error itself."""
    UnifiedCache(cach_dir="x")  # type: ignore[call-arg]
    UnifiedCache(max_bytes=[10])  # type: ignore[arg-type]
    UnifiedCache(eviction="random")  # type: ignore[arg-type]
    cache.cached(tll=3)  # type: ignore[call-overload]
    cache.cached(ttl=[3])  # type: ignore[call-overload]
    cache.get_many([3])  # type: ignore[list-item]
    cache.get(3)  # type: ignore[arg-type]
    cache.delete_matching(tags=["a"])  # type: ignore[call-arg]

    @cache.cached(ttl=3)
    def work(x: int) -> str:
        return str(x)

    assert_type(work(1), str)
    work("a")  # type: ignore[arg-type]
    assert_type(work.key(1), Key)

    class Model:
        @cache.cached
        def predict(self, x: int) -> list[float]:
            return [float(x)]

        @cache.cached(ttl="1h")
        async def fetch(self, x: int) -> str:
            return str(x)

    assert_type(Model().predict(1), list[float])
    assert_type(Model.predict(Model(), 1), list[float])
    assert_type(Model().predict.refresh(1), list[float])
    Model().predict("a")  # type: ignore[arg-type]

    async def ask() -> None:
        assert_type(await Model().fetch(1), str)
        await Model().fetch("a")  # type: ignore[arg-type]
