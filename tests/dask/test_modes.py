"""Modes of a block: what becomes of a graph, and that it is decided before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import pytest
from workloads import inc, runs, total, traces

import cacheness_dask as cd
from cacheness import NotCached, StoreUnavailable, UnifiedCache
from tests.cache.table_of_modes import cells

X = {"Dask graph, there": 1, "Dask graph, not there": 2}


def graph(x: int) -> Any:
    return dask.delayed(total)([dask.delayed(inc)(x), dask.delayed(inc)(5)])


def by_block(cache: UnifiedCache, mode: Any, patch: pytest.MonkeyPatch) -> cd.activation.Caching:
    return cd.caching(cache, mode=mode, scheduler="sync")


def by_directory(cache: UnifiedCache, mode: Any, patch: pytest.MonkeyPatch) -> cd.activation.Caching:
    return cd.caching(cache.config.cache_dir, mode=mode, scheduler="sync")


def by_cache(cache: UnifiedCache, mode: Any, patch: pytest.MonkeyPatch) -> cd.activation.Caching:
    return cd.caching(UnifiedCache(cache.config.but(mode=mode)), scheduler="sync")


def by_environment(cache: UnifiedCache, mode: Any, patch: pytest.MonkeyPatch) -> cd.activation.Caching:
    patch.setenv("CACHENESS_MODE", mode)
    return cd.caching(cache, scheduler="sync")


@pytest.mark.parametrize("enter", [by_block, by_directory, by_cache, by_environment])
@pytest.mark.parametrize(("call", "mode", "does"), cells(*X))
def test_a_graph_does_what_the_table_says(
    *, cache: UnifiedCache, call: str, mode: str, does: str, enter: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with cd.caching(cache, scheduler="sync"):
        graph(1).compute()
    runs()
    before = {(entry.key, entry.created_at) for entry in cache.iter_entries()}
    try:
        with enter(cache, mode, monkeypatch):
            assert graph(X[call]).compute() == X[call] + 7
        done = "computed" if runs() else "loaded"
    except NotCached as error:
        done = type(error).__name__
        assert runs() == 0
    after = {(entry.key, entry.created_at) for entry in cache.iter_entries()}
    assert done + ", stored" * (after != before) == does


def test_offline_names_all_that_is_lacking_and_runs_what_is_never_cached(cache: UnifiedCache, tmp_path: Path) -> None:
    def report(x: int) -> None:
        (tmp_path / "report").write_text(str(x))

    sink = dask.delayed(report)(dask.delayed(inc)(1))
    with cd.caching(cache, scheduler="sync", which="all"):
        sink.compute()
    traces()
    (tmp_path / "report").unlink()
    with cd.caching(cache, mode="offline", scheduler="sync"):
        sink.compute()
        assert runs() == 0
        assert (tmp_path / "report").read_text() == "2"
        with pytest.raises(NotCached, match=r"3 of the results .* 2 x inc, 1 x total"):
            graph(3).compute()
    assert runs() == 0


def test_offline_does_not_compute_when_the_cache_does_not_answer(
    cache: UnifiedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise StoreUnavailable("it is down")

    with cd.caching(cache, mode="offline", scheduler="sync") as run:
        monkeypatch.setattr(run.cache, "present", fail)
        with pytest.raises(NotCached, match="it is down"):
            graph(1).compute()
    assert runs() == 0


@pytest.mark.slow
def test_workers_refresh_what_two_graphs_share_once(cache: UnifiedCache, client: Any) -> None:
    def both() -> list[Any]:
        shared = cd.mark(dask.delayed(inc)(1))
        return [dask.delayed(total)([shared, n]).compute() for n in (1, 2)]

    with cd.caching(cache):
        assert both() == [3, 4]
    assert traces().total() == 3
    for _ in range(2):
        with cd.caching(cache, mode="refresh"):
            assert both() == [3, 4]
            assert both() == [3, 4]
        assert traces().total() == 3
