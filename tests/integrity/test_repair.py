"""Real damage, found, repaired, found clean; and nothing touched that is not ours."""

from __future__ import annotations

import functools
import operator
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from cacheness import RepairRefused, UnifiedCache, factory
from cacheness.blobs.memory import MemoryBlobStore
from cacheness.config import Config
from cacheness.coordination.ownership import MARKER
from cacheness.errors import StoreRefused
from cacheness.testing.faults import At, Crashed, Stepwise, crash, stepwise

LARGE = random.Random(1).randbytes(100_000)

WRITER = """
    import pickle, sys
    from cacheness.testing.faults import At, kill, stepwise
    config = pickle.loads(bytes.fromhex(sys.argv[1]))
    cache = stepwise(config, At("metadata.commit", "before", kill))
    cache.put(__import__("os").urandom(50_000), k="lost")
"""


def kill_a_writer_between_blob_and_row(config: Config) -> None:
    import pickle

    script = [sys.executable, "-c", textwrap.dedent(WRITER), pickle.dumps(config).hex()]
    assert subprocess.run(script, check=False).returncode == -signal.SIGKILL


def blob_of(world, **args) -> str:
    name = world.cache.lookup(**args).entry.blob
    assert name is not None
    return name


def blobs_of(world):
    return factory.open_blobs(world.config)


def kinds(report) -> dict[str, int]:
    return report.counts()


def test_a_store_without_damage_has_no_issues(world):
    world.cache.put(LARGE, k=1)
    world.cache.put("small", k=2)
    for deep in (False, True):
        report = world.cache.verify_integrity(deep=deep)
        assert len(report) == 0
        assert not report
        assert (report.entries, report.blobs) == (2, 1)
        assert str(report).startswith("No issues found")


@pytest.mark.slow
def test_a_killed_writer_leaves_one_orphan_which_a_repair_removes_and_nothing_of_a_live_writer(world):
    seen = []

    def look_and_repair(moment: str) -> None:
        """While a live writer's blob is written and its row is not."""
        kill_a_writer_between_blob_and_row(world.config)
        seen.append(world.cache.verify_integrity())
        seen.append(world.cache.verify_integrity(repair=True))
        seen.append(world.cache.verify_integrity())

    writer = stepwise(world.config, At("metadata.commit", "before", look_and_repair))
    writer.put(LARGE, k="live")
    writer.close()
    check, repair, after = seen
    assert len(check) == 1
    assert kinds(check) == {"orphaned": 1}
    assert [issue.repaired for issue in check] == [False]
    assert [issue.repaired for issue in repair] == [True]
    assert len(after) == 0
    assert world.cache.get(k="live") == LARGE


@pytest.mark.slow
def test_a_check_changes_nothing(world):
    kill_a_writer_between_blob_and_row(world.config)
    assert len(world.cache.verify_integrity()) == 1
    assert len(world.cache.verify_integrity(deep=True)) == 1
    assert len(world.cache.verify_integrity(repair=True)) == 1
    assert len(world.cache.verify_integrity()) == 0


def test_a_fenced_writer_that_wakes_up_writes_again_in_a_new_session(world):
    """The writer is alive, and somebody fences it all the same: its put succeeds."""

    def fence_everybody(moment: str) -> None:
        metadata = factory.open_metadata(world.config)
        for session in metadata.live_sessions():
            assert metadata.fence(session.id)
        metadata.close()
        world.cache.verify_integrity(repair=True)

    writer = stepwise(world.config, At("metadata.commit", "before", fence_everybody))
    writer.put(LARGE, k=1)
    writer.close()
    assert world.cache.get(k=1) == LARGE
    world.cache.verify_integrity(repair=True)
    assert len(world.cache.verify_integrity(deep=True)) == 0


def test_a_session_that_commits_and_ends_during_the_check_is_no_orphan(world):
    """Its state is asked before the rows are read, or a fresh commit would look like an orphan."""
    inner = factory.open_metadata(world.config)
    writer = UnifiedCache(world.config)
    done = []

    def finish(step: str, when: str) -> None:
        if step == "metadata.scan" and when == "after" and not done:
            done.append(writer.put(LARGE, k="late"))
            writer.close()

    world.cache.put(LARGE, k=1)
    repairer = UnifiedCache(
        world.config.but(
            metadata_backend=Stepwise(inner, "metadata", finish), blob_store=factory.open_blobs(world.config)
        )
    )
    repairer.verify_integrity(repair=True)
    assert done
    assert world.cache.get(k="late") == LARGE
    repairer.close()


def test_a_dangling_row_is_a_miss_and_a_repair_removes_it(world, caplog):
    world.cache.put(LARGE, k=1)
    blobs_of(world).delete(blob_of(world, k=1))
    assert world.cache.lookup(k=1) is None
    assert "its blob" in caplog.text or "blob of entry" in caplog.text
    assert kinds(world.cache.verify_integrity()) == {"dangling": 1}
    assert kinds(world.cache.verify_integrity(repair=True)) == {"dangling": 1}
    assert len(world.cache.verify_integrity()) == 0
    assert world.cache.list_entries() == []


def test_what_is_gone_before_a_repair_comes_to_it_counts_as_repaired(world):
    """Another repair is quicker, or a put replaces the entry."""
    for k in (1, 2, 3):
        world.cache.put(LARGE, k=k)
        blobs_of(world).delete(blob_of(world, k=k))

    def overtake(moment: str) -> None:
        world.cache.put(LARGE, k=1)
        world.cache.invalidate(k=2)

    repairer = stepwise(world.config, At("metadata.begin_epoch", "before", overtake))
    report = repairer.verify_integrity(repair=True)
    repairer.close()
    assert kinds(report) == {"dangling": 3}
    assert all(issue.repaired for issue in report)
    assert world.cache.get(k=1) == LARGE
    assert len(world.cache.verify_integrity()) == 0


def test_a_truncated_blob_is_a_size_mismatch(world):
    world.cache.put(LARGE, k=1)
    blobs_of(world).write(blob_of(world, k=1), [LARGE[:10]])
    assert world.cache.lookup(k=1) is None
    assert kinds(world.cache.verify_integrity(repair=True)) == {"size_mismatch": 1}
    assert len(world.cache.verify_integrity()) == 0


def test_a_flipped_byte_is_found_by_a_deep_check(world):
    entry = world.cache.put(os.urandom(100_000), k=1)
    store = blobs_of(world)
    data = bytearray(store.read(entry.blob, entry.size))
    data[5000] ^= 1
    store.write(entry.blob, [data])
    assert world.cache.lookup(k=1) is None
    assert len(world.cache.verify_integrity()) == 0
    assert kinds(world.cache.verify_integrity(deep=True)) == {"corrupt": 1}
    assert kinds(world.cache.verify_integrity(repair=True, deep=True)) == {"corrupt": 1}
    assert len(world.cache.verify_integrity(deep=True)) == 0


def test_a_deep_check_that_is_interrupted_goes_on_and_a_sample_takes_the_next_part(world):
    world.cache.put(LARGE, blob="so that the first look, which counts blobs, can be told from the reading")
    for n in range(40):
        world.cache.put(n, n=n)
    shards = sorted({int(entry["cache_key"][:2], 16) for entry in world.cache.list_entries()})

    def stop(blobs: int, entries: int) -> None:
        if entries >= 20 and not blobs:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.cache.verify_integrity(deep=True, progress=stop)
    times = world.cache._store.metadata.check_times(world.config.namespace)
    assert 0 < len(set(shards) & set(times)) < len(shards)
    first = set(times)
    world.cache.verify_integrity(deep=True, sample=1 - len(first) / 256)
    times = world.cache._store.metadata.check_times(world.config.namespace)
    assert set(times) == set(range(256))
    newest_of_the_first = max(times[shard] for shard in first)
    assert all(times[shard] > newest_of_the_first for shard in set(range(256)) - first)
    with pytest.raises(ValueError, match="sample"):
        world.cache.verify_integrity(deep=True, sample=0)


def test_rows_of_another_key_are_reported_and_never_touched(world):
    owner = UnifiedCache(world.config.but(signing_key="the key of our own team"))
    owner.put(LARGE, k=1)
    stranger = UnifiedCache(world.config.but(signing_key="the key of another team"))
    report = stranger.verify_integrity(repair=True)
    assert kinds(report) == {"forged": 1}
    assert not any(issue.repaired for issue in report)
    stranger.close()
    assert owner.get(k=1) == LARGE
    owner.close()


def test_what_a_crash_left_buried_is_removed_by_a_repair(world):
    world.cache.put(LARGE, k=1)
    cache = stepwise(world.config, At("blobs.delete", "before", crash))
    with pytest.raises(Crashed):
        cache.invalidate(k=1)
    cache.close()
    assert kinds(world.cache.verify_integrity()) == {"tombstone": 1}
    assert kinds(world.cache.verify_integrity(repair=True)) == {"tombstone": 1}
    report = world.cache.verify_integrity()
    assert (len(report), report.blobs) == (0, 0)


def test_names_that_are_not_ours_are_reported_and_never_touched(world):
    store = blobs_of(world)
    theirs = ["notes.txt", "default/00/readme", "default/zz/" + "0" * 64, "other-app/data.bin"]
    for name in theirs:
        store.write(name, [b"theirs"])
    unknown = "default/ab/" + "ab" * 32 + ".0123456789abcdef.0123456789abcdef"
    store.write(unknown, [b"from a session that this database never had"])
    report = world.cache.verify_integrity(repair=True)
    assert kinds(report) == {"unknown": 1, "foreign": 4}
    for name in [*theirs, unknown]:
        assert store.stat(name) is not None


@pytest.mark.slow
def test_the_shards_reports_add_up_to_the_report_of_the_whole(world):
    for n in range(20):
        world.cache.put(LARGE + bytes([n]), n=n)
    names = [entry["blob"] for entry in world.cache.list_entries()]
    store = blobs_of(world)
    store.delete(names[0])
    kill_a_writer_between_blob_and_row(world.config)
    kin = names[1][:-1] + "Z"  # in a shard, and not a name of ours
    for name in [
        "notes.txt",
        "default/readme",
        "default/00/readme",
        "default/ff/readme",
        "default/zz/x",
        "other/x",
        kin,
    ]:
        store.write(name, [b"theirs"])
    theirs = UnifiedCache(world.config.but(namespace="other"))
    theirs.put(LARGE, of="somebody else")
    theirs.close()

    whole = world.cache.verify_integrity()
    parts = [world.cache.verify_integrity(shard=shard) for shard in range(256)]
    assert kinds(whole) == {"orphaned": 1, "dangling": 1, "foreign": 7}
    assert sorted(map(str, functools.reduce(operator.add, parts))) == sorted(map(str, whole))
    assert (sum(part.entries for part in parts), sum(part.blobs for part in parts)) == (whole.entries, whole.blobs)


def test_the_last_shard_looks_at_one_blob_of_each_other_shard(world, monkeypatch):
    store, listed = world.cache._store.blobs, []
    session = "0123456789abcdef"
    for n in range(40):
        store.write(f"default/{n % 4:02x}/{n % 4:02x}{n:062x}.{session}.{n:016x}", [b"lost"])
        store.write(f"other/{n % 4:02x}/{n % 4:02x}{n:062x}.{session}.{n:016x}", [b"theirs"])
    store.write("default/zz/x", [b"theirs"])
    scan = type(store).scan

    def listing(self, prefix="", *, after=""):
        for info in scan(self, prefix, after=after):
            listed.append(info.name)
            yield info

    monkeypatch.setattr(type(store), "scan", listing)
    assert [issue.subject for issue in world.cache.verify_integrity(shard=255)] == ["default/zz/x"]
    assert len(listed) == 4 + 4 + 1 + (MARKER in listed)


def test_a_shard_sees_only_its_own(world):
    for n in range(20):
        world.cache.put(LARGE + bytes([n]), n=n)
    shards = {int(entry["cache_key"][:2], 16) for entry in world.cache.list_entries()}
    reports = [world.cache.verify_integrity(shard=shard) for shard in sorted(shards)]
    assert sum(report.blobs for report in reports) == 20
    assert sum(report.entries for report in reports) == 20
    assert all(len(report) == 0 for report in reports)


@pytest.mark.slow
def test_implausible_damage_stops_the_repair_unless_forced(world):
    with world.cache.write_batch():
        for n in range(120):
            world.cache.put(os.urandom(33_000), n=n)
    store = blobs_of(world)
    for entry in world.cache.list_entries():
        store.delete(entry["blob"])
    with pytest.raises(RepairRefused, match="force=True"):
        world.cache.verify_integrity(repair=True)
    assert len(world.cache.list_entries()) == 120
    parts = [world.cache.verify_integrity(shard=shard) for shard in range(256)]
    with pytest.raises(RepairRefused, match="120 entries"):
        functools.reduce(operator.add, parts).require_plausible()
    assert len(world.cache.verify_integrity(repair=True, force=True)) == 120
    assert world.cache.list_entries() == []


HANDS = 8  #: shards that hold everything in these tests


def by_hand(cache: UnifiedCache, **options) -> tuple[int, int]:
    """Repair shard after shard, each call by itself; how many were refused, and how many issues were repaired."""
    refused = repaired = 0
    for shard in range(HANDS):
        try:
            report = cache.verify_integrity(repair=True, shard=shard, **options)
            repaired += sum(issue.repaired for issue in report)
        except RepairRefused:
            refused += 1
    return refused, repaired


def damage(cache: UnifiedCache, how: str, count: int) -> None:
    """Spoil entries of a memory store: blobs that are gone, cut short or changed."""
    blobs = cache._store.blobs
    for entry in random.Random(1).sample(list(cache.iter_entries()), count):
        blobs.delete(entry.blob)
        if how != "gone":
            blobs.write(entry.blob, [bytes(entry.size - (how == "cut short"))])


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    with UnifiedCache(
        cache_dir=tmp_path_factory.mktemp("many"), blob_store=MemoryBlobStore(), inline_max_bytes=0
    ) as cache:
        yield cache


def fill(cache: UnifiedCache, count: int) -> None:
    cache.clear()
    with cache.write_batch():
        for n in range(count):
            cache.put(n, f"{n % HANDS:02x}{n:062x}")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["gone", "cut short", "changed"])
def test_shards_repaired_by_hand_one_after_the_other_are_judged_together(many, how):
    fill(many, 300)
    damage(many, how, 220)
    deep = how == "changed"
    refused, _ = by_hand(many, deep=deep)
    # What is broken inside shows only when it is read: the first hundred are gone by then.
    assert refused >= 4 if deep else refused == HANDS
    assert many.stats()["entries"] >= (200 if deep else 300)
    assert by_hand(many, deep=deep, force=True)[0] == 0
    assert many.stats()["entries"] == 80


def test_shards_whose_damage_is_plausible_together_are_repaired_by_hand(many):
    fill(many, 300)
    damage(many, "gone", 60)
    assert by_hand(many) == (0, 60)


@pytest.mark.slow
def test_orphans_in_all_shards_are_judged_together(many):
    fill(many, 100)
    session = "0123456789abcdef"
    names = [f"default/{n % HANDS:02x}/{n % HANDS:02x}{n:062x}.{session}.{n:016x}" for n in range(1100)]
    for name in names:
        many._store.blobs.write(name, [b"lost"])
    many._store.metadata.condemn({session})
    refused, repaired = by_hand(many)
    assert (refused, repaired) == (HANDS, 0)
    for name in names[:200]:
        many._store.blobs.delete(name)
    assert by_hand(many) == (0, 900)


@pytest.mark.slow
def test_a_report_counts_iterates_prints_and_converts(world):
    kill_a_writer_between_blob_and_row(world.config)
    report = world.cache.verify_integrity()
    assert len(report) == 1
    (issue,) = report
    assert issue.kind == "orphaned"
    assert "1 orphaned" in str(report)
    assert issue.subject in str(report)
    assert report.as_dict()["counts"] == {"orphaned": 1}
    assert report.table()[0]["found"] == 1
    assert (report + report).counts() == {"orphaned": 2}


# whose blobs are these?


@pytest.fixture
def local(tmp_path) -> Path:
    with UnifiedCache(cache_dir=tmp_path / "cache") as cache:
        cache.put(LARGE, k=1)
    return tmp_path / "cache"


def test_a_directory_that_was_renamed_or_is_reached_through_a_link_keeps_its_blobs(local, caplog):
    link = local.with_name("link")
    link.symlink_to(local)
    moved = local.with_name("moved")
    for place in (link, moved):
        if place is moved:
            link.unlink()
            local.rename(moved)
        with UnifiedCache(cache_dir=place) as cache:
            assert len(cache.verify_integrity(repair=True)) == 0
            assert cache.get(k=1) == LARGE
    assert caplog.text == ""


def test_a_user_file_in_the_cache_directory_is_left_alone(local):
    mine = [local / "thesis.tex", local / "blobs" / "thesis.tex", local / "blobs" / "default" / "thesis.tex"]
    for path in mine:
        path.write_text("my only copy")
    with UnifiedCache(cache_dir=local) as cache:
        cache.verify_integrity(repair=True)
        cache.clear()
        cache.verify_integrity(repair=True)
    assert all(path.read_text() == "my only copy" for path in mine)


def test_a_second_database_on_the_same_blobs_may_not_repair(local, tmp_path, caplog):
    other = UnifiedCache(cache_dir=tmp_path / "other", blob_store=f"file://{local / 'blobs'}")
    assert "cacheness adopt" in caplog.text
    with pytest.raises(RepairRefused, match="another database"):
        other.verify_integrity(repair=True)
    other.put(LARGE, k=2)
    other.close()
    with UnifiedCache(cache_dir=local) as cache:
        assert kinds(cache.verify_integrity(repair=True)) == {"unknown": 1}
        assert cache.get(k=1) == LARGE


def test_a_copied_database_may_not_repair_until_adopted(local, tmp_path):
    clone = tmp_path / "clone"
    clone.mkdir()
    for path in local.iterdir():
        if path.is_file():
            shutil.copy(path, clone / path.name)
    blobs = f"file://{local / 'blobs'}"
    with UnifiedCache(cache_dir=local) as cache:
        cache.put(LARGE, k=2)  # the clone does not know this one
    with UnifiedCache(cache_dir=clone, blob_store=blobs) as staging:
        with pytest.raises(RepairRefused, match="cacheness adopt"):
            staging.verify_integrity(repair=True)
        staging.adopt()
        staging.verify_integrity(repair=True)
    with UnifiedCache(cache_dir=local) as cache, pytest.raises(RepairRefused):
        cache.verify_integrity(repair=True)


def test_a_directory_that_was_copied_whole_may_repair(local, tmp_path, caplog):
    shutil.copytree(local, tmp_path / "copy")
    with UnifiedCache(cache_dir=tmp_path / "copy") as cache:
        cache.put(LARGE, k=2)
        assert list(cache.verify_integrity(repair=True)) == []
        assert cache.get(k=1) == LARGE
    assert caplog.text == ""


def test_a_database_restored_from_before_the_last_repair_may_not_repair(local, tmp_path):
    backup = (local / "metadata.sqlite").read_bytes()
    with UnifiedCache(cache_dir=local) as cache:
        cache.verify_integrity(repair=True)
        cache.verify_integrity(repair=True)
    for leftover in local.glob("metadata.sqlite-*"):
        leftover.unlink()
    (local / "metadata.sqlite").write_bytes(backup)
    with UnifiedCache(cache_dir=local) as cache, pytest.raises(RepairRefused, match="backup"):
        cache.verify_integrity(repair=True)


def test_what_a_policy_forbids_to_delete_is_not_reported_as_repaired(tmp_path):
    class NoDelete(MemoryBlobStore):
        def delete(self, name):
            raise StoreRefused("a policy denies s3:DeleteObject")

    with UnifiedCache(cache_dir=tmp_path, blob_store=NoDelete()) as cache:
        cache.put(LARGE, n=1)
        cache.put(LARGE + b"!", n=1)  # a tombstone for the first blob
        cache._store.blobs.write(f"default/00/{'0' * 64}.{'a' * 16}.{'b' * 16}", [b"lost"])
        cache._store.metadata.condemn({"a" * 16})
        for _ in range(2):
            report = cache.verify_integrity(repair=True)
            assert report.counts() == {"orphaned": 1, "tombstone": 1}
            assert not any(issue.repaired for issue in report)
            assert all("a policy denies" in issue.detail for issue in report)
