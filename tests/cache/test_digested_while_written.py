"""A large value is digested while the disk writes it: with the digests of any other, and not visible before."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cacheness import StoreFull, UnifiedCache
from cacheness.errors import SessionLost
from cacheness.keys import closed_digest
from cacheness.results import store as results_store
from cacheness.results.store import Cache
from cacheness.testing.faults import Countdown, Crashed, crash, stepwise

SIZE = 200_000  #: bytes
VALUES: dict[str, Callable[[], Any]] = {
    "array": lambda: np.random.default_rng(0).random(SIZE // 8),
    "frame": lambda: pd.DataFrame({"x": np.random.default_rng(0).random(SIZE // 8), "s": "text"}),
    "compressed": lambda: np.zeros(SIZE),
    "bytes": lambda: np.random.default_rng(0).bytes(SIZE),
}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UnifiedCache]:
    monkeypatch.setattr(results_store, "DIGESTED_LATER", SIZE // 2)
    with UnifiedCache(tmp_path / "cache") as cache:
        yield cache


@pytest.fixture
def digesting(monkeypatch: pytest.MonkeyPatch, files: UnifiedCache) -> list[Any]:
    """What blobs there are, unfinished ones too, at each digest of a blob; an exception in it is raised."""
    seen: list[Any] = []
    real = results_store.digest_buffers

    def digest(buffers: Any) -> bytes:
        store = store_of(files)
        seen.append((len(list(store.blobs.scan("default/"))), len(list(store.blobs.uploads()))))
        for error in list(raised):
            raised.remove(error)
            raise error
        return real(buffers)

    raised: list[BaseException] = []
    monkeypatch.setattr(results_store, "digest_buffers", digest)
    seen.append(raised)
    return seen


def store_of(cache: UnifiedCache) -> Cache:
    return cache._opened.cache


def blobs_of(cache: UnifiedCache) -> tuple[list[Any], list[Any]]:
    blobs = store_of(cache).blobs
    return list(blobs.scan("default/")), list(blobs.uploads())


@pytest.mark.parametrize("what", VALUES)
def test_the_entry_is_the_one_of_a_value_that_was_digested_before(files: UnifiedCache, what: str) -> None:
    value = VALUES[what]()
    alone = files.put(value, x=1)
    with files.write_batch():
        files.put(value, x=2)
    in_batch = files.entry(files.key(x=2))
    assert (alone.digest, alone.value, alone.size) == (in_batch.digest, in_batch.value, in_batch.size)
    assert alone.value == closed_digest(value)
    assert alone == files.entry(files.key(x=1))
    assert type(files.get(x=1)) is type(value)
    assert not files.verify_integrity().issues


def test_an_array_is_digested_while_it_is_written(files: UnifiedCache, digesting: list[Any]) -> None:
    files.put(VALUES["array"](), x=1)
    assert digesting[1:] == [(0, 1)]
    assert [len(each) for each in blobs_of(files)] == [1, 0]


def test_what_has_to_be_pickled_is_digested_before(files: UnifiedCache, digesting: list[Any]) -> None:
    files.put(VALUES["bytes"](), x=1)
    assert digesting[1:] == [(0, 0)]


def test_what_lies_in_the_row_is_digested_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results_store, "DIGESTED_LATER", SIZE // 2)
    with UnifiedCache(tmp_path / "cache", inline_max_bytes=2 * SIZE) as cache:
        value = VALUES["array"]()
        entry = cache.put(value, x=1)
        assert entry.blob is None
        assert np.array_equal(cache.get(x=1), value)


def test_an_interrupted_digest_leaves_nothing(files: UnifiedCache, digesting: list[Any]) -> None:
    files.put("old", x=1)
    digesting[0].append(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        files.put(VALUES["array"](), x=1)
    assert blobs_of(files) == ([], [])
    assert files.get(x=1) == "old"


@pytest.mark.parametrize("error", [SessionLost("fenced"), StoreFull("full")])
def test_a_put_that_is_repeated_digests_again(
    files: UnifiedCache, digesting: list[Any], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    metadata, failures = store_of(files).metadata, [error]
    real = metadata.commit

    def commit(*args: Any, **kwargs: Any) -> Any:
        if failures:
            raise failures.pop()
        return real(*args, **kwargs)

    monkeypatch.setattr(metadata, "commit", commit)
    monkeypatch.setattr(files._opened.evictor, "make_room", lambda: True)
    value = VALUES["array"]()
    entry = files.put(value, x=1)
    assert len(digesting[1:]) == 2
    assert entry.value == closed_digest(value)
    assert np.array_equal(files.get(x=1), value)
    assert entry == files.entry(files.key(x=1))


@pytest.mark.slow
def test_a_crash_at_any_step_leaves_the_old_value_or_the_new_one(files: UnifiedCache) -> None:
    old, new = (np.random.default_rng(n).random(SIZE // 8) for n in range(2))
    steps: set[tuple[str, str]] = set()
    n, is_cut = 0, True
    while is_cut:
        n += 1
        files.put(old, x=1)
        countdown = Countdown(n, crash)

        def on_step(step: str, when: str, countdown: Countdown = countdown) -> None:
            steps.add((step, when))
            countdown(step, when)

        with contextlib.suppress(Crashed), stepwise(files.config, on_step) as cache:
            cache.put(new, x=1)
        is_cut = countdown.reached
        assert any(np.array_equal(files.get(x=1), value) for value in (old, new))
        files.verify_integrity(repair=True)
        left = files.verify_integrity(deep=True)
        assert (list(left), left.blobs) == ([], 1)
    assert {("blobs.writing", "before"), ("blobs.writing", "after")} <= steps


@pytest.mark.parametrize("step", ["_digest_of", "digest_buffers"])
def test_a_value_that_another_thread_changes_is_not_served_with_the_digest_of_another(
    files: UnifiedCache, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    value, real = VALUES["array"](), getattr(results_store, step)

    def changing(*given: Any) -> Any:
        found = real(*given)
        value[:] = 7.0
        return found

    monkeypatch.setattr(results_store, step, changing)
    files.put(value, n=1)
    monkeypatch.undo()
    hit = files.lookup(n=1)
    assert hit is None or closed_digest(hit.value) == hit.entry.value


def test_blobs_of_a_batch_for_which_there_is_no_room_are_deleted(
    files: UnifiedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, calls = store_of(files), itertools.count()
    write = store.blobs.write

    def full_after_three(name: str, buffers: Any) -> None:
        if next(calls) == 3:
            raise StoreFull("no room")
        write(name, buffers)

    monkeypatch.setattr(store.blobs, "write", full_after_three)
    values = [np.random.default_rng(n).bytes(SIZE) for n in range(5)]
    with pytest.raises(StoreFull, match="no room"):
        files.put_many([(value, {"n": n}) for n, value in enumerate(values)])
    assert next(calls) > 3
    assert list(store.blobs.scan("default/")) == []
