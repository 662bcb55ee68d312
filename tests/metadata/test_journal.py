"""What only the journal does: lines that a person can read, torn and damaged ones, and rewriting."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cacheness.deadlines import Limits
from cacheness.errors import ConfigError, SchemaMismatch
from cacheness.metadata.journal import store as journal
from cacheness.metadata.journal.file import JOURNAL_VERSION
from cacheness.metadata.journal.store import JournalStore
from cacheness.records import Use, Where
from cacheness.testing.contracts.metadata import NAMESPACE, SOMEBODY, entry, inline, key


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metadata.jsonl"


@pytest.fixture
def open_store(path: Path) -> Iterator[Callable[[], JournalStore]]:
    stores: list[JournalStore] = []

    def open_one() -> JournalStore:
        stores.append(JournalStore(path, limits=Limits()))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


@pytest.fixture
def store(open_store: Callable[[], JournalStore]) -> JournalStore:
    return open_store()


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rewrite the journal as soon as more than half of it is dead."""
    monkeypatch.setattr(journal, "_LEAST_WASTE", 0)


def put(store: JournalStore, *entries: Any) -> list[str]:
    return store.commit(entries, store.open_session(SOMEBODY))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_person_reads_times_tags_and_arguments(store: JournalStore, path: Path) -> None:
    put(store, entry(1, created_at=1_700_000_000_000_001, tags=("prices",), components='{"args":{"x":["ab","1"]}}'))
    shown = lines(path)[-1]["put"]
    assert shown["created_at"] == "2023-11-14T22:13:20.000001+00:00"
    assert shown["tags"] == ["prices"]
    assert shown["components"] == {"args": {"x": ["ab", "1"]}}
    assert shown["key"] == key(1).hex()


def test_a_put_adds_one_line_and_touches_nothing_else(store: JournalStore, path: Path) -> None:
    put(store, *(inline(number) for number in range(1000)))
    before = path.read_bytes()
    put(store, inline(5000))
    after = path.read_bytes()
    assert after.startswith(before)
    assert after.count(b"\n") == before.count(b"\n") + 1


@pytest.mark.parametrize("torn", [b"{", b'{"put": {"namespace": "def', b"\0\0\0\0", b'{"more": true}\n'])
def test_a_torn_last_line_is_no_line_and_the_next_put_repairs_it(
    store: JournalStore, path: Path, torn: bytes, open_store: Callable[[], JournalStore]
) -> None:
    put(store, inline(1))
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(torn)
    again = open_store()
    for reader in (store, again):
        assert reader.find(NAMESPACE, key(1)) == inline(1)
    assert path.read_bytes() == whole + torn  # reading repairs nothing
    put(again, inline(2))
    assert path.read_bytes().startswith(whole + b'{"put"')
    assert store.find(NAMESPACE, key(2)) == inline(2)


def test_a_line_torn_anywhere_is_no_line(path: Path, store: JournalStore, tmp_path: Path) -> None:
    put(store, inline(1))
    start = path.stat().st_size
    put(store, inline(2), inline(3))
    whole = path.read_bytes()
    for end in (*range(start, len(whole), 29), len(whole) - 1):
        cut = tmp_path / "cut" / "metadata.jsonl"
        cut.parent.mkdir(exist_ok=True)
        cut.write_bytes(whole[:end])
        torn = JournalStore(cut, limits=Limits())
        assert [one.key for one in torn.scan(Where(NAMESPACE))] == [key(1)]
        torn.close()


def test_a_damaged_line_is_passed_over_with_a_warning(
    store: JournalStore, path: Path, open_store: Callable[[], JournalStore], caplog: pytest.LogCaptureFixture
) -> None:
    put(store, inline(1))
    put(store, inline(2))
    put(store, inline(3))
    damaged = path.read_bytes().splitlines(keepends=True)
    damaged[2] = damaged[2][:50] + b"\xff\xfe" + damaged[2][52:]
    path.write_bytes(b"".join(damaged))
    again = open_store()
    assert [one.key for one in again.scan(Where(NAMESPACE))] == [key(1), key(3)]
    assert "damaged" in caplog.text


def test_a_journal_of_mostly_dead_lines_is_rewritten_and_says_the_same(
    store: JournalStore, path: Path, open_store: Callable[[], JournalStore], eager: None
) -> None:
    other = open_store()
    buried = entry(1)
    put(store, buried)
    put(store, inline(2, b"kept"), entry(3, namespace="other"))
    store.record_use(NAMESPACE, {key(2): (4, 1_800_000_000_000_000)})
    store.begin_epoch("newest")
    before = store.identity()
    for _ in range(50):
        put(store, inline(1, os.urandom(500)))
    assert len(path.read_bytes()) < 50 * 500
    for reader in (store, other, open_store()):
        assert reader.identity() == before
        assert reader.tombstones() == [buried.blob]
        found = reader.find(NAMESPACE, key(2))
        assert found is not None
        assert found.inline == b"kept"
        assert reader.uses(NAMESPACE, [key(1), key(2)])[key(2)] == Use(1_800_000_000_000_000, 4)
        assert reader.find("other", key(3)) is not None
        assert reader.totals(NAMESPACE).entries == 2


def test_writers_take_turns_across_rewritings(open_store: Callable[[], JournalStore], eager: None) -> None:
    stores = [open_store() for _ in range(3)]
    for number in range(60):
        put(stores[number % 3], inline(number % 7, b"%d" % number))
        for reader in stores:
            found = reader.find(NAMESPACE, key(number % 7))
            assert found is not None
            assert found.inline == b"%d" % number


def test_a_crash_while_rewriting_leaves_the_journal_as_it_was(
    store: JournalStore, path: Path, open_store: Callable[[], JournalStore], eager: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    class Crashed(BaseException):
        pass

    def crash(*_: Any) -> None:
        raise Crashed

    put(store, inline(1, b"x" * 1000))
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", crash)
        with pytest.raises(Crashed):
            for number in range(10):
                put(store, inline(1, b"%d" % number * 500))
    assert path.with_name("metadata.jsonl.new").exists()
    left = open_store().find(NAMESPACE, key(1))
    assert left is not None
    for number in range(10):
        put(store, inline(1, b"after %d" % number))
    assert open_store().find(NAMESPACE, key(1)) == inline(1, b"after 9")
    assert not path.with_name("metadata.jsonl.new").exists()


def test_a_line_of_another_version_is_passed_over_with_a_warning(
    store: JournalStore, path: Path, open_store: Callable[[], JournalStore], caplog: pytest.LogCaptureFixture
) -> None:
    put(store, inline(1))
    old = {"put": {"namespace": NAMESPACE, "key": key(2).hex(), "object": None}}
    for strange in (old, {"put": None}, {"use": [[NAMESPACE, 7, 1, 1]]}, {"delete": 3}):
        with path.open("a") as file:
            file.write(json.dumps(strange) + "\n")
    put(store, inline(3))
    assert [one.key for one in open_store().scan(Where(NAMESPACE))] == [key(1), key(3)]
    assert caplog.text.count("not read by this version") == 2 * 4


def test_a_journal_that_is_replaced_by_a_newer_one_is_refused_by_every_call(store: JournalStore, path: Path) -> None:
    put(store, inline(1))
    newer = path.read_text().replace(f'"min_reader": {JOURNAL_VERSION}', f'"min_reader": {JOURNAL_VERSION + 1}')
    path.with_name("newer").write_text(newer)
    path.with_name("newer").rename(path)
    for _ in range(4):
        with pytest.raises(SchemaMismatch, match="Upgrade cacheness"):
            store.find(NAMESPACE, key(1))
        with pytest.raises(SchemaMismatch, match="Upgrade cacheness"):
            put(store, inline(2))
    assert path.read_text() == newer


def test_a_journal_of_a_newer_library_is_refused(
    store: JournalStore, path: Path, open_store: Callable[[], JournalStore]
) -> None:
    put(store, inline(1))
    store.close()
    text = path.read_text()
    path.write_text(text.replace(f'"min_reader": {JOURNAL_VERSION}', f'"min_reader": {JOURNAL_VERSION + 1}'))
    with pytest.raises(SchemaMismatch, match="Upgrade cacheness"):
        open_store()
    path.write_text("some notes of mine\n")
    with pytest.raises(ConfigError, match="not a journal"):
        open_store()
    assert path.read_text() == "some notes of mine\n"


def test_a_journal_that_is_gone_is_missed_and_not_made_up(store: JournalStore, path: Path) -> None:
    put(store, inline(1))
    path.unlink()
    with pytest.raises(ConfigError, match="cache_dir"):
        store.find(NAMESPACE, key(1))


def test_whatever_is_not_referenced_is_dead_because_the_lock_is_held(store: JournalStore) -> None:
    ids = {store.open_session(SOMEBODY), "0" * 16}
    with store.exclusive():
        assert store.dead_sessions(ids) == ids
        assert store.live_sessions() == []


def test_nobody_waits_for_a_lease(store: JournalStore) -> None:
    assert store.take_compute_lease(NAMESPACE, key(1), "mine", 60)
    assert store.take_compute_lease(NAMESPACE, key(1), "theirs", 60)
    assert store.compute_lease_holder(NAMESPACE, key(1)) is None
