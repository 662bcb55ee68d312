"""Whose blobs are these? A clone, a restored database and a lost marker delete nothing, by any door."""

from __future__ import annotations

import ast
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from cacheness import RepairRefused, UnifiedCache, factory
from cacheness.blobs.memory import MemoryBlobStore
from cacheness.config import Config
from cacheness.coordination.ownership import MARKER, Marker
from cacheness.errors import SessionLost, StoreRefused, StoreUnavailable
from cacheness.maintenance.copying import copy as copy_entries
from cacheness.testing.faults import Stepwise
from tests.conftest import SIGNING_KEY

RESULTS = 12
ROOT = Path(__file__).parents[2]


def fill(cache: UnifiedCache, numbers: range = range(RESULTS)) -> None:
    with cache.write_batch():
        for n in numbers:
            cache.put(os.urandom(40_000), n=n, tags=["all"], ttl=3600)


def readable(cache: UnifiedCache, numbers: range = range(RESULTS)) -> int:
    return sum(cache.get(n=n) is not None for n in numbers)


@dataclass
class Twins:
    """An original and its clone on the same blobs."""

    original: UnifiedCache
    clone: UnifiedCache


def on_files(backend: str, path: Path) -> Twins:
    blobs = f"file://{path}/shared"
    original = Config(cache_dir=str(path / "original"), metadata_backend=backend, blob_store=blobs)
    with UnifiedCache(original) as cache:
        fill(cache)
    shutil.copytree(path / "original", path / "clone")
    return Twins(UnifiedCache(original), UnifiedCache(original.but(cache_dir=str(path / "clone"))))


@pytest.fixture(params=["sqlite", "json", pytest.param("postgresql", marks=pytest.mark.external)])
def twins(request: pytest.FixtureRequest, tmp_path) -> Iterator[Twins]:
    if request.param != "postgresql":
        found = on_files(request.param, tmp_path)
        yield found
        found.original.close()
        found.clone.close()
        return
    url, server = request.getfixturevalue("postgres_url"), request.getfixturevalue("postgres_server")
    config = Config(
        metadata_backend=url, blob_store=request.getfixturevalue("s3_url"), signing_key=SIGNING_KEY, max_entries=None
    )
    with UnifiedCache(config) as cache:
        fill(cache)
    name = urlsplit(url).path[1:]
    clone = f"{name}c"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(clone), sql.Identifier(name)))
        try:
            with (
                UnifiedCache(config) as original,
                UnifiedCache(config.but(metadata_backend=urlunsplit(urlsplit(url)._replace(path=f"/{clone}")))) as copy,
            ):
                yield Twins(original, copy)
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(clone)))


def by_overwriting(cache: UnifiedCache) -> None:
    for n in range(RESULTS):
        cache.put(os.urandom(40_000), n=n)


def by_a_batch_of_small_values(cache: UnifiedCache) -> None:
    cache.put_many(("small", {"args": {"n": n}}) for n in range(RESULTS))


def by_invalidating(cache: UnifiedCache) -> None:
    assert sum(cache.invalidate(n=n) for n in range(RESULTS)) == RESULTS


def by_clearing(cache: UnifiedCache) -> None:
    assert cache.clear() == RESULTS


def by_tag(cache: UnifiedCache) -> None:
    assert cache.delete_matching(tag="all") == RESULTS


def by_age(cache: UnifiedCache) -> None:
    assert cache.delete_matching(older_than=-5) == RESULTS


def by_quota(cache: UnifiedCache) -> None:
    with UnifiedCache(cache.config.but(max_entries=2)) as tight:
        tight.put("one more", other=1)
        tight.evict()
        assert tight.stats()["entries"] <= 2


def by_expiry(cache: UnifiedCache) -> None:
    for n in range(RESULTS):
        cache.touch(n=n, ttl=1e-6)
    deleted = 0
    while deleted < RESULTS:  # the clock that both calls follow may be measured anew in between
        deleted += cache.evict()
    assert deleted == RESULTS


def by_losing_its_session(cache: UnifiedCache) -> None:
    metadata = cache._store.metadata
    for n in range(RESULTS):
        cache.put(os.urandom(40_000), fresh=n)
        for session in metadata.live_sessions():
            metadata.end_session(session.id)
        cache.put(os.urandom(40_000), n=n)


def by_copying_over_them(cache: UnifiedCache) -> None:
    with UnifiedCache(Config(cache_dir=str(Path(cache.config.cache_dir) / "source"))) as source:
        by_overwriting(source)
        copy_entries(source._store, cache._store, source.iter_entries())


def by_repairing(cache: UnifiedCache) -> None:
    by_overwriting(cache)
    for options in ({}, {"deep": True}, {"force": True}, {"shard": 7}, {"force": True, "deep": True}):
        with pytest.raises(RepairRefused, match="cacheness adopt"):
            cache.verify_integrity(repair=True, **options)


DOORS = [
    by_overwriting,
    by_a_batch_of_small_values,
    by_invalidating,
    by_clearing,
    by_tag,
    by_age,
    by_quota,
    by_expiry,
    by_losing_its_session,
    by_copying_over_them,
    by_repairing,
]


@pytest.mark.parametrize("door", DOORS)
def test_a_clone_deletes_no_blob_of_its_original(twins, door: Callable[[UnifiedCache], None], tmp_path):
    if twins.clone.config.metadata_backend not in ("sqlite", "json"):
        twins.clone.config = twins.clone.config.but(cache_dir=str(tmp_path))
    door(twins.clone)
    assert readable(twins.original) == RESULTS
    assert twins.original.verify_integrity().counts().get("dangling") is None


def test_what_a_clone_has_deleted_waits_until_it_is_adopted(twins):
    twins.clone.clear()
    waiting = twins.clone._store.metadata.tombstones(limit=100)
    assert len(waiting) == RESULTS
    twins.original.close()
    twins.clone.adopt()
    report = twins.clone.verify_integrity(repair=True)
    assert report.counts() == {"tombstone": RESULTS}
    assert all(issue.repaired for issue in report)
    assert twins.clone._store.metadata.tombstones(limit=100) == []
    assert [info.name for info in twins.clone._store.blobs.scan()] == [MARKER]


def test_once_a_clone_is_adopted_its_original_deletes_nothing(twins, monkeypatch):
    twins.clone.adopt()
    monkeypatch.setattr("cacheness.coordination.ownership.KEPT_SECONDS", 0.0)  # a minute later
    twins.original.clear()
    assert readable(twins.clone) == RESULTS


@pytest.mark.slow
def test_only_one_module_deletes_blobs():
    """Whatever a door is called, it leads through the marker."""
    places = [ROOT / "core/cacheness", ROOT / "cacheness_dask", ROOT / "cacheness_prefect"]
    files = [file for place in places for file in place.rglob("*.py") if "testing" not in file.parts]
    offenders = [
        f"{path.name}:{node.lineno}: {ast.unparse(node)}"
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr in ("delete", "delete_many", "abort")
        and "blobs" in ast.unparse(node.value)
    ]
    offenders = [text for text in offenders if not text.startswith("tombstones.py")]
    assert offenders == []


# a marker that is gone


def marker_of(cache: UnifiedCache) -> dict[str, object]:
    blobs = cache._store.blobs
    info = blobs.stat(MARKER)
    assert info is not None
    found: dict[str, object] = json.loads(bytes(blobs.read(MARKER, info.size)))
    return found


def lose_the_marker(cache: UnifiedCache) -> None:
    cache._store.blobs.delete(MARKER)


def test_a_marker_that_is_gone_is_not_taken_by_a_database_that_was_used(world):
    fill(world.cache)
    lose_the_marker(world.cache)
    world.reopen()
    assert world.cache._store.blobs.stat(MARKER) is None
    by_overwriting(world.cache)
    with pytest.raises(RepairRefused, match="is gone"):
        world.cache.verify_integrity(repair=True)
    assert len(world.cache._store.metadata.tombstones(limit=100)) == RESULTS
    assert world.cache.adopt() == 0
    assert world.cache.verify_integrity(repair=True).counts() == {"tombstone": RESULTS}


def test_neither_a_session_nor_a_repair_makes_a_database_look_unused(world):
    metadata = world.cache._store.metadata
    assert metadata.is_unused()
    world.cache.put("inline", k=1)
    used_by_a_session = not metadata.is_unused()
    assert used_by_a_session == (world.config.metadata_backend != "json")
    metadata.begin_epoch("e" * 16)
    assert not metadata.is_unused()


def test_an_unused_database_takes_a_prefix_without_a_marker_and_deletes_nothing_there(world):
    blobs = world.cache._store.blobs
    lose_the_marker(world.cache)
    theirs = "default/ab/" + "ab" * 32 + ".0123456789abcdef.0123456789abcdef"
    blobs.write(theirs, [b"of somebody whose marker was lost"])
    world.reopen()
    assert marker_of(world.cache)["adopted"] is False
    for force in (False, True):
        assert world.cache.verify_integrity(repair=True, force=force).counts() == {"unknown": 1}
    assert world.cache._store.blobs.stat(theirs) is not None


def test_an_empty_prefix_is_taken_by_a_database_that_was_used(world):
    fill(world.cache)
    world.cache.clear()
    lose_the_marker(world.cache)
    world.reopen()
    fill(world.cache)
    assert world.cache.verify_integrity(repair=True).counts() == {}


def test_a_blob_store_that_was_down_at_opening_gets_its_marker_before_its_first_blob(tmp_path):
    class Down(MemoryBlobStore):
        is_down = True

        def stat(self, name):
            if self.is_down:
                raise StoreUnavailable("down")
            return super().stat(name)

    blobs = Down()
    with UnifiedCache(cache_dir=tmp_path, blob_store=blobs) as cache:
        cache.put("small, so it needs no blob store", k=0)
        blobs.is_down = False
        cache.put(os.urandom(40_000), k=1)
        cache.put(os.urandom(40_000), k=1)
        assert blobs.stat(MARKER) is not None
        assert len(list(blobs.scan("default/"))) == 1


# a marker that cannot be read


@pytest.mark.parametrize("error", [StoreRefused("403"), StoreUnavailable("503")], ids=["refused", "unavailable"])
def test_a_marker_that_cannot_be_read_proves_nothing(tmp_path, caplog, error):
    class Hidden(MemoryBlobStore):
        hides = False

        def read(self, name, size):
            if self.hides and name == MARKER:
                raise error
            return super().read(name, size)

    blobs = Hidden()
    with UnifiedCache(cache_dir=tmp_path, blob_store=blobs) as cache:
        fill(cache)
    blobs.hides = True
    with UnifiedCache(cache_dir=tmp_path, blob_store=blobs) as cache:
        by_overwriting(cache)
        cache.clear()
        assert len(list(blobs.scan("default/"))) == 2 * RESULTS
        assert caplog.text.count("tombstones wait") == 1
        with pytest.raises(type(error)):
            cache.verify_integrity(repair=True)
        blobs.hides = False
        report = cache.verify_integrity(repair=True)
        assert report.counts() == {"tombstone": 2 * RESULTS}
        assert list(blobs.scan("default/")) == []


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b'{"store_id": 7}', b"x" * 100_000, b"\xff\xfe"])
def test_a_marker_that_is_not_one_of_ours_matches_no_database(world, text):
    fill(world.cache)
    world.cache._store.blobs.write(MARKER, [text])
    world.reopen()
    by_overwriting(world.cache)
    assert len(world.cache._store.metadata.tombstones(limit=100)) == RESULTS
    with pytest.raises(RepairRefused, match="cacheness adopt"):
        world.cache.verify_integrity(repair=True)
    world.cache.adopt()
    assert world.cache.verify_integrity(repair=True).counts() == {"tombstone": RESULTS}


# how often it is read


def test_the_marker_is_read_once_a_minute_and_before_each_bulk(tmp_path, monkeypatch):
    reads = []

    class Counting(MemoryBlobStore):
        def read(self, name, size):
            reads.append(name)
            return super().read(name, size)

    now = [1000.0]
    monkeypatch.setattr("cacheness.coordination.ownership.time.monotonic", lambda: now[0])
    with UnifiedCache(cache_dir=tmp_path, blob_store=Counting(), inline_max_bytes=0) as cache:

        def reads_of(work: Callable[[], object]) -> int:
            reads.clear()
            work()
            return reads.count(MARKER)

        for n in range(150):
            cache.put(b"v", n=n)
        now[0] += 61
        assert reads_of(lambda: cache.put(b"w", n=0)) == 1
        assert reads_of(lambda: [cache.put(b"w", n=n) for n in range(50)]) == 0
        now[0] += 61
        assert reads_of(lambda: cache.invalidate(n=1)) == 1
        assert reads_of(cache.clear) == 1  # a bulk of more than 100
        assert reads_of(lambda: cache.put(b"w", n=0)) == 0


# timelines


class Elsewhen:
    """A metadata store whose server says that it is another one."""

    def __init__(self, inner, **changes) -> None:
        self._inner, self.changes = inner, changes

    def identity(self):
        return replace(self._inner.identity(), **self.changes)

    def __getattr__(self, name):
        return getattr(self._inner, name)


@pytest.fixture
def tied(tmp_path):
    """A store's metadata as any server may show it, and its blobs, with a marker on timeline 3."""
    inner = factory.open_metadata(Config(cache_dir=str(tmp_path)))
    metadata, blobs = Elsewhen(inner, timeline=3, system="cluster 1, database 2"), MemoryBlobStore()
    with closing(inner):
        assert Marker(metadata, blobs).difference() is None
        blobs.write("default/x", [b"not empty"])
        yield metadata, blobs


def test_a_promoted_standby_is_let_through_and_the_one_it_replaced_is_not(tied):
    metadata, blobs = tied
    metadata.changes["timeline"] = 4
    assert Marker(metadata, blobs).difference() is None
    metadata.changes["timeline"] = 3
    assert "left behind" in (Marker(metadata, blobs).difference() or "")
    metadata.changes["timeline"] = 5
    assert Marker(metadata, blobs).difference() is None


def test_a_standby_that_only_replays_neither_differs_nor_writes(tied):
    metadata, blobs = tied
    metadata.changes["timeline"] = None
    assert Marker(metadata, blobs).difference() is None
    metadata.changes["timeline"] = 3
    assert Marker(metadata, blobs).difference() is None


def test_a_persons_word_holds_for_the_server_that_it_was_given_for(tied):
    metadata, blobs = tied
    marker = Marker(metadata, blobs)
    assert not marker.is_adopted()
    marker.adopt()
    assert marker.is_adopted()
    marker.begin_epoch()
    assert marker.is_adopted()
    metadata.changes["timeline"] = 4
    assert not marker.is_adopted()
    assert marker.difference() is None
    assert not marker.is_adopted()


@pytest.mark.parametrize(
    "changes",
    [{"store_id": "another"}, {"system": "cluster 9, database 2"}, {"system": "cluster 1, database 3"}, {"epoch": "x"}],
)
def test_a_later_timeline_excuses_no_other_difference(tied, changes):
    metadata, blobs = tied
    metadata.changes.update(changes, timeline=9)
    assert Marker(metadata, blobs).difference() is not None


def test_a_marker_from_before_timelines_stood_apart_is_read(tied):
    metadata, blobs = tied
    here = metadata.identity()
    old = {"store_id": here.store_id, "system": "cluster 1, timeline 3, database 2", "epoch": here.epoch}
    blobs.write(MARKER, [json.dumps(old).encode()])
    assert Marker(metadata, blobs).difference() is None
    metadata.changes["timeline"] = 2
    assert "left behind" in (Marker(metadata, blobs).difference() or "")


def test_two_databases_that_meet_an_empty_prefix_end_with_one_owner(tmp_path):
    blobs = MemoryBlobStore()
    stores = [factory.open_metadata(Config(cache_dir=str(tmp_path / name))) for name in ("one", "two")]
    hold_back: list[Callable[[], object]] = [Marker(stores[1], blobs).difference]

    def both_look_first(step: str, when: str) -> None:
        if step == "blobs.write" and when == "before" and hold_back:
            hold_back.pop()()

    Marker(stores[0], Stepwise(blobs, "blobs", both_look_first)).difference()
    assert sum(Marker(store, blobs).difference() is None for store in stores) == 1
    for store in stores:
        store.close()


def test_an_adoption_during_a_repair_is_not_undone_by_it(tied, tmp_path):
    metadata, blobs = tied
    other = factory.open_metadata(Config(cache_dir=str(tmp_path / "other")))
    marker = Marker(metadata, blobs)
    marker.require()
    Marker(other, blobs).adopt()
    with pytest.raises(RepairRefused):
        marker.begin_epoch()
    assert Marker(other, blobs).difference() is None
    other.close()


def test_a_directory_whose_blobs_are_elsewhere_does_not_travel_with_them(tmp_path, caplog):
    (tmp_path / "disk").mkdir()
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "blobs").symlink_to(tmp_path / "disk")
    with UnifiedCache(cache_dir=tmp_path / "first") as cache:
        fill(cache)
    shutil.copytree(tmp_path / "first", tmp_path / "second", symlinks=True)
    with UnifiedCache(cache_dir=tmp_path / "second") as copy:
        copy.clear()
    assert "cacheness adopt" in caplog.text
    with UnifiedCache(cache_dir=tmp_path / "first") as cache:
        assert readable(cache) == RESULTS


def test_a_session_lost_in_a_put_of_a_clone_deletes_nothing(tmp_path, monkeypatch):
    twins = on_files("sqlite", tmp_path)
    lost = [True]
    commit = twins.clone._store.metadata.commit

    def lose_once(*args, **named):
        if lost.pop() if lost else False:
            raise SessionLost("fenced")
        return commit(*args, **named)

    monkeypatch.setattr(twins.clone._store.metadata, "commit", lose_once)
    by_overwriting(twins.clone)
    assert readable(twins.original) == RESULTS
    twins.clone.close()
    twins.original.close()


# restored to different points in time


class Snapshot:
    """The database, or the blobs, of a closed cache as they were."""

    def __init__(self, config: Config, of: str, folder: Path) -> None:
        self._config, self._of, self._folder = config, of, folder
        self._parts = urlsplit(config.metadata_backend)
        if of == "blobs":
            with closing(factory.open_blobs(config)) as blobs:
                self._blobs = {info.name: bytes(blobs.read(info.name, info.size)) for info in blobs.scan()}
        elif self._parts.scheme:
            self._copy_database(self._parts.path[1:], self._parts.path[1:] + "_old")
        else:
            shutil.copytree(config.cache_dir, folder, ignore=shutil.ignore_patterns("blobs"))

    def restore(self) -> None:
        if self._of == "blobs":
            with closing(factory.open_blobs(self._config)) as blobs:
                for info in list(blobs.scan()):
                    blobs.delete(info.name)
                for name, data in self._blobs.items():
                    blobs.write(name, [data])
        elif self._parts.scheme:
            self._copy_database(self._parts.path[1:] + "_old", self._parts.path[1:])
        else:
            for file in Path(self._config.cache_dir).glob("metadata.sqlite*"):
                file.unlink()
            shutil.copy(self._folder / "metadata.sqlite", self._config.cache_dir)

    def _copy_database(self, source: str, target: str) -> None:
        names = sql.Identifier(target), sql.Identifier(source)
        with psycopg.connect(urlunsplit(self._parts._replace(path="/postgres")), autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(names[0]))
            admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))
            if source.endswith("_old"):
                admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(names[1]))


@pytest.mark.parametrize("older", ["database", "blobs"])
def test_a_store_whose_halves_were_restored_to_different_times_works_with_what_both_hold(world, tmp_path, older):
    fill(world.cache, range(8))
    world.cache.close()
    snapshot = Snapshot(world.config, older, tmp_path / "older")
    with UnifiedCache(world.config) as cache:
        cache.invalidate(n=0)
        cache.put(os.urandom(40_000), n=1)
        cache.put(os.urandom(40_000), n=8)
    snapshot.restore()
    cache = world.reopen()
    assert readable(cache, range(2, 8)) == 6
    assert readable(cache, range(9)) == 6
    fill(cache, range(9))
    assert readable(cache, range(9)) == 9
    assert cache.adopt() == (2 if older == "database" else 0)
    report = cache.verify_integrity(repair=True, force=True)
    assert report.counts()["unknown" if older == "database" else "orphaned"] == 2
    assert all(issue.repaired for issue in report)
    assert list(cache.verify_integrity(deep=True)) == []
    assert readable(cache, range(9)) == 9
    assert sum(1 for _ in cache._store.blobs.scan("default/")) == 9
