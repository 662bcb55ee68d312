"""Small hits are read by the task that takes them: fewer tasks, and otherwise nothing is different."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from counting import Executed
from distributed import Client
from workloads import inc, runs

import cacheness_dask as cd
from cacheness import UnifiedCache
from cacheness_dask import apply, decide, worker
from cacheness_dask.live import Callback, Progress

pytestmark = pytest.mark.timeout(120)


def added(numbers: list[int], more: int) -> int:
    return sum(numbers) + more


def zeros(size: int) -> np.ndarray[Any, Any]:
    return np.zeros(size, np.uint8)


def numbers(count: int = 6) -> list[Any]:
    return [dask.delayed(inc)(n) for n in range(count)]


def over(parts: list[Any], more: int) -> Any:
    return dask.delayed(added)(parts, more)


@pytest.fixture
def known(cache: UnifiedCache) -> UnifiedCache:
    """A cache that has the numbers."""
    with cd.caching(cache, scheduler="sync", which="all"):
        over(numbers(), 0).compute()
    runs()
    return cache


def counted(run: Callable[[], Any]) -> tuple[Any, list[Any]]:
    """The result, and the keys that were executed."""
    names: list[Any] = []
    with dask.callbacks.Callback(pretask=lambda key, *_: names.append(key)):
        return run(), names


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_one_task_reads_all_the_small_hits_that_it_takes(known: UnifiedCache, scheduler: str) -> None:
    told: list[Progress] = []
    with Callback(told.append), cd.caching(known, scheduler=scheduler) as run:
        value, names = counted(lambda: over(numbers(), 1).compute())
    assert (value, len(names), runs()) == (22, 1, 0)
    assert (run.history[0].hits, run.history[0].misses) == (6, 1)
    assert sum(one.loaded for one in told) == 6
    assert {row.name: row.calls for row in known.report(by="outcome")}["hit"] == 6


def test_a_task_that_takes_many_is_looked_at_once(known: UnifiedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Any] = []
    may_read = apply._may_read
    monkeypatch.setattr(apply, "_may_read", lambda node, graph: looked.append(node.key) or may_read(node, graph))
    with cd.caching(known, scheduler="sync"):
        assert over(numbers(), 1).compute() == 22
    assert len(looked) == 1


@pytest.fixture
def executed(cluster: Any) -> Iterator[Executed]:
    counter = Executed()
    counter.watch(cluster)
    yield counter
    cluster.scheduler.remove_plugin("executed")


def test_it_does_so_on_workers(known: UnifiedCache, client: Client, executed: Executed) -> None:
    with cd.caching(known, which="all") as run:
        assert over(numbers(), 1).compute() == 22
        assert over([*numbers(), dask.delayed(inc)(50)], 2).compute() == 74
    assert (executed.number, runs()) == (3, 1)
    assert [(record.hits, record.misses, record.stored) for record in run.history] == [(6, 1, 1), (6, 2, 2)]


def test_what_it_makes_of_them_is_found_again(known: UnifiedCache) -> None:
    with cd.caching(known, scheduler="sync") as run:
        for _ in range(2):
            assert over(numbers(), 1).compute() == 22
    assert (run.history[1].hits, run.history[1].misses) == (1, 0)


@pytest.mark.parametrize(
    ("make", "loads"),
    [
        (lambda: [over(parts, 1) for parts in [numbers(2)] for _ in range(2)], 2),  # two take each
        (lambda: [each for parts in [numbers(2)] for each in (over(parts, 1), parts[0])], 1),  # one is wanted by itself
        (lambda: [dask.delayed(operator.getitem)(dask.delayed(zeros)(decide.SMALL + 1), 5)], 1),  # it is large
        (lambda: [dask.delayed(operator.getitem)(dask.delayed(zeros)(100), 5)], 0),
    ],
)
def test_other_hits_are_tasks_of_their_own(cache: UnifiedCache, make: Callable[[], list[Any]], loads: int) -> None:
    with cd.caching(cache, scheduler="sync", which="all") as run:
        dask.compute(numbers(2), dask.delayed(zeros)(decide.SMALL + 1), dask.delayed(zeros)(100))
        values, names = counted(lambda: dask.compute(*make()))
        assert len(names) == loads + run.history[-1].misses
    assert values == dask.compute(*make(), scheduler="sync")


def test_a_task_reads_no_more_than_fits(known: UnifiedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    size = max(entry.raw_size for entry in known.iter_entries())
    monkeypatch.setattr(apply, "SMALL_TOTAL", 4 * size)
    with cd.caching(known, scheduler="sync"):
        value, names = counted(lambda: over(numbers(), 1).compute())
    assert (value, len(names)) == (22, 1 + 2)


@pytest.mark.parametrize("where", [{"workers": "nobody"}, {"resources": {"GPU": 1}}])
def test_a_hit_that_is_told_where_to_run_is_loaded_there(known: UnifiedCache, where: dict[str, Any]) -> None:
    with dask.annotate(**where):
        parts = numbers()
    with cd.caching(known, scheduler="sync"):
        value, names = counted(lambda: over(parts, 1).compute(optimize_graph=False))
    assert (value, len(names)) == (22, 1 + 6)


def appended(lists: list[list[int]], turn: int) -> list[int]:
    for one in lists:
        one.append(len(one))
    return [len(one) for one in lists]


def test_two_tasks_with_one_result_give_two_values(cache: UnifiedCache) -> None:
    with cd.caching(cache, scheduler="sync", which="all") as run:
        for turn in range(2):
            same = [dask.delayed(list)((7, 8), dask_key_name=f"{name}-{turn}") for name in ("one", "other")]
            assert dask.delayed(appended)(same, turn).compute() == [3, 3]
    assert run.history[1].hits == 2


def deleted(cache: UnifiedCache, blobs: list[Path]) -> None:
    cache.clear()


def damaged(cache: UnifiedCache, blobs: list[Path]) -> None:
    assert len(blobs) == 7
    for blob in blobs:
        blob.write_bytes(b"?" * blob.stat().st_size)


def partly_gone(cache: UnifiedCache, blobs: list[Path]) -> None:
    for blob in blobs[:3]:
        blob.unlink()


@pytest.mark.parametrize("harm", [deleted, damaged, partly_gone])
def test_what_cannot_be_read_any_more_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[[UnifiedCache, list[Path]], None]
) -> None:
    with (
        UnifiedCache(cache_dir=tmp_path, inline_max_bytes=0) as cache,
        cd.caching(cache, scheduler="threads", which="all") as run,
    ):
        over(numbers(), 0).compute()
        runs()
        run.flush()
        present = cache.present

        def present_and_then_not(keys: Any) -> Any:
            found = present(keys)
            harm(cache, sorted(path for path in (tmp_path / "blobs").rglob("*.*.*") if path.is_file()))
            return found

        with monkeypatch.context() as patch:
            patch.setattr(cache, "present", present_and_then_not)
            value, names = counted(lambda: over(numbers(), 1).compute())
        assert (value, len(names)) == (22, 1)
        assert 0 < runs() <= 6
        assert run.history[1].stored == 1


def test_a_store_that_goes_down_costs_one_warning(known: UnifiedCache) -> None:
    with pytest.warns(cd.CacheUnavailable) as warned, cd.caching(known, scheduler="sync") as run:  # noqa: PT031
        worker.Store(run._config, run._policy).opened().cache().close()
        assert over(numbers(), 1).compute() == 22
    assert runs() == 6
    assert len(warned) == 1


def test_what_takes_too_much_to_compute_again_runs_the_graph_again(
    known: UnifiedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apply, "FALLBACK_TASKS", 0)
    present = known.present

    def present_and_then_gone(keys: Any) -> Any:
        found = present(keys)
        monkeypatch.setattr(known, "present", present)
        known.clear()
        return found

    monkeypatch.setattr(known, "present", present_and_then_gone)
    with cd.caching(known, scheduler="sync") as run:
        assert over(numbers(), 1).compute() == 22
    assert [record.hits for record in run.history] == [6, 0]
    assert runs() == 6


@pytest.mark.usefixtures("client")
def test_a_future_that_goes_with_small_hits_stays_one(known: UnifiedCache, client: Client) -> None:
    future = client.submit(inc, 99, key="ninety-nine")
    with cd.caching(known):
        assert over([*numbers(), dask.delayed(future)], 1).compute() == 122
