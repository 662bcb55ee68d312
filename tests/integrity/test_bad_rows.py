"""One bad row, whatever is in it, spoils nothing for the others."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from cacheness import CodecError, UnifiedCache, factory
from cacheness.keys import make_key
from cacheness.maintenance.copying import copy, every_row
from cacheness.records import Entry
from cacheness.results.store import PutDetails

COLUMNS = sorted({field.name for field in fields(Entry)} - {"namespace"})
VALUES: list[Any] = ["text", b"bytes", 1 << 62]
GOOD = 4


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[UnifiedCache]:
    with UnifiedCache(cache_dir=tmp_path / "cache", max_entries=GOOD + 1) as cache:
        for number in range(GOOD):
            cache.put(number, k=number, tags=["t"], prefix="p")
        yield cache


def spoil(cache: UnifiedCache, column: str, value: Any) -> bool:
    """Change one column of one row; False where the database does not take it."""
    key = cache.put("bad", bad=1, tags=["t"], prefix="p", ttl=3600).key
    with closing(sqlite3.connect(f"{cache.config.cache_dir}/{factory.SQLITE_FILE}")) as database, database:
        try:
            database.execute(f"UPDATE entries SET {column} = ? WHERE key = ?", (value, key))
        except sqlite3.IntegrityError:
            return False
    return True


@pytest.mark.parametrize("column", COLUMNS)
def test_a_row_with_anything_in_a_column_spoils_nothing(cache: UnifiedCache, column: str) -> None:
    good = [cache.key(k=number, prefix="p") for number in range(GOOD)]
    bad = cache.key(bad=1, prefix="p")
    for value in VALUES:
        if not spoil(cache, column, value):
            continue
        assert cache.get(bad, default="missed") in ("bad", "missed")
        assert [cache.get(key) for key in good] == list(range(GOOD))
        hits = cache.get_many([*good, bad])
        assert {hits[key.hex].value for key in good} == set(range(GOOD))
        assert {key.hex for key in good} <= set(cache.present([*good, bad]))
        for condition in ({}, {"tag": "t"}):
            listed = {entry["cache_key"] for entry in cache.list_entries(**condition)}
            assert {key.hex for key in good} <= listed
        assert cache.stats()["entries"] >= GOOD
        cache.touch(bad, ttl=60)
        cache.verify_integrity(deep=True)
        copied = copy(cache._store, cache._store, every_row(cache._store), skipped=lambda *_: None)
        assert copied.already_there >= GOOD
        cache.evict()
        assert cache.stats()["entries"] >= GOOD
        assert cache.delete_matching(tag="t") >= GOOD - 1
        with closing(sqlite3.connect(f"{cache.config.cache_dir}/{factory.SQLITE_FILE}")) as database, database:
            database.execute("DELETE FROM entries")
        cache.verify_integrity(repair=True)  # counts anew what is left, which is nothing
        for number in range(GOOD):
            cache.put(number, k=number, tags=["t"], prefix="p")


def test_what_cannot_be_shown_of_a_genuine_row_says_why(cache: UnifiedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = cache._store
    draft = parts.draft(make_key(args={"x": 1}), "value", PutDetails())
    strange = replace(draft.entry, args=b"not an encoding", provenance="not JSON", created_at=1 << 60)
    parts.publish([replace(draft, entry=strange)], fresh=False)
    listed = {entry["cache_key"]: entry for entry in cache.list_entries()}
    assert len(listed) == GOOD + 1
    shown = listed[draft.entry.cache_key]
    assert shown["args"].startswith("not readable: ")
    assert shown["provenance"].startswith("not readable: ")
    assert shown["created_at"].year == 9999
    assert cache.get(make_key(args={"x": 1})) == "value"


def test_an_entry_of_an_unknown_codec_is_left_out_of_many(cache: UnifiedCache) -> None:
    parts = cache._store
    draft = parts.draft(make_key(args={"x": 1}), "value", PutDetails())
    parts.publish([replace(draft, entry=replace(draft.entry, codec="of-tomorrow"))], fresh=False)
    with pytest.raises(CodecError, match="of-tomorrow"):
        cache.get(x=1)
    hits = cache.get_many([cache.key(x=1), cache.key(k=1, prefix="p")])
    assert [hit.value for hit in hits.values()] == [1]
    assert len(cache.list_entries()) == GOOD + 1
