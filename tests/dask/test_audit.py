"""`check`: hits that are computed again, from inputs in the cache; what comes out differently is disputed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import pytest
from workloads import WORKLOADS, each, write_inputs

import cacheness_dask as cd
from cacheness import UnifiedCache
from cacheness_dask import loading

pytestmark = pytest.mark.timeout(120)


def numbers(n: int) -> list[int]:
    return list(range(n))


def rated(items: list[int]) -> float:
    return sum(items) * float(os.environ.get("NEDDIH"[::-1], "1"))


def failing(items: list[int]) -> int:
    if os.environ.get("NEDDIH"[::-1]):
        raise OSError("no network")
    return len(items)


def growing(items: list[int]) -> int:
    items.append(1)
    return len(items)


@pytest.fixture
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UnifiedCache]:
    monkeypatch.delenv("HIDDEN", raising=False)
    with UnifiedCache(tmp_path / "cache", incomplete="serve") as cache:
        yield cache


def compute(cache: UnifiedCache, function: Any, scheduler: str = "sync", **options: Any) -> tuple[Any, Any]:
    with cd.caching(cache, which="all", scheduler=scheduler, **options) as run:
        value = dask.delayed(function)(dask.delayed(numbers)(4)).compute()
    return value, run


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_what_comes_out_differently_is_disputed_until_somebody_decides(
    quiet: UnifiedCache, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = quiet
    assert compute(cache, rated, scheduler)[0] == 6.0
    assert compute(cache, rated, scheduler, check=1)[0] == 6.0
    monkeypatch.setenv("HIDDEN", "2")
    assert compute(cache, rated, scheduler)[0] == 6.0
    assert compute(cache, rated, scheduler, check=1)[0] == 12.0
    (dispute,) = cache.disputes()
    assert "6.0 is stored, 12.0 was computed" in dispute.detail
    assert "environ" in dispute.detail
    for _ in range(2):  # computed, and not stored
        value, run = compute(cache, rated, scheduler)
        assert value == 12.0
        assert run.unstored["rated"].total() == 1
    assert cache.disputes() == [dispute]
    cache.settle(dispute.key, keep="new")
    assert compute(cache, rated, scheduler)[1].history[-1].misses == 1
    assert compute(cache, rated, scheduler, check=1)[1].history[-1].hits == 1
    assert cache.disputes() == []


def test_a_share_of_hits_is_checked(quiet: UnifiedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    compute(quiet, rated)
    checked: list[int] = []
    monkeypatch.setattr(loading.CheckedLoad, "_is_disputed", lambda *_: bool(checked.append(1)))
    for _ in range(20):
        compute(quiet, rated, check=0.25)
    assert 4 <= len(checked) <= 6


def test_the_share_comes_from_the_block_the_cache_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[int] = []
    monkeypatch.setattr(loading.CheckedLoad, "_is_disputed", lambda *_: bool(checked.append(1)))

    def count(cache: Any, **options: Any) -> int:
        checked.clear()
        compute(cache, rated, incomplete="serve", **options)
        return len(checked)

    where = str(tmp_path / "cache")
    with UnifiedCache(where, check=1) as cache:
        assert [count(cache), count(cache), count(cache, check=0)] == [0, 1, 0]
    assert count(where) == 0
    monkeypatch.setenv("CACHENESS_CHECK", "1")
    assert [count(where), count(where, check=0)] == [1, 0]


def test_what_fails_changes_its_input_or_lacks_it_is_let_alone(
    quiet: UnifiedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = quiet
    for function in (failing, growing, rated):
        compute(cache, function)
    monkeypatch.setenv("HIDDEN", "2")
    assert compute(cache, failing, check=1)[0] == 4
    assert compute(cache, growing, check=1)[0] == 5
    cache.delete_matching(function="numbers")
    assert compute(cache, rated, check=1)[0] == 6.0  # its input is not in the cache
    assert cache.disputes() == []


@pytest.mark.slow
def test_nothing_is_disputed_in_the_workloads(
    quiet: UnifiedCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = sorted(name for name in WORKLOADS if not name.startswith("p2p"))  # which need a cluster
    monkeypatch.setenv("COUNT_FILE", str(tmp_path / "count"))
    write_inputs(tmp_path)
    checked: list[bool] = []
    look = loading.CheckedLoad._is_disputed
    monkeypatch.setattr(
        loading.CheckedLoad, "_is_disputed", lambda self, *found: checked.append(True) or look(self, *found)
    )
    for check in (0, 1):
        with cd.caching(quiet, which="all", scheduler="sync", check=check):
            for _, collection in each(names, tmp_path):
                dask.compute(collection)
    assert len(checked) >= 30
    assert quiet.disputes() == []
