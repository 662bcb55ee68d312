"""Graphs that run at the same time in one run or process: what ends first takes nothing from the others."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask
import pytest
from distributed import Client
from distributed.client import FutureState

import cacheness_dask as cd
from cacheness import UnifiedCache
from cacheness_dask import reports
from cacheness_dask.decisions import GraphPlan
from cacheness_dask.learned import Learned
from cacheness_dask.policy import Meter, Policy
from cacheness_dask.pools import Pools
from cacheness_dask.reading import delete_stale
from cacheness_dask.reasons import FILE, SINK
from cacheness_dask.result_keys import entry_key, failure_key, result_key
from cacheness_dask.under_way import GraphsUnderWay, UnderWay
from cacheness_dask.write_behind import ComputeDetails, Late, WriteBehind

STARTED, GO = threading.Event(), threading.Event()


def wait(number: int) -> int:
    STARTED.set()
    GO.wait(20)
    return number


def read(number: int, path: Path) -> str:
    return path.read_text()


def length(text: str) -> int:
    return len(text)


def divided(number: int) -> float:
    assert STARTED.wait(20)
    GO.wait(20)
    return number / 0


def double(number: int) -> int:
    return 2 * number


def length_of(path: Path) -> Any:
    return dask.delayed(length)(dask.delayed(read)(dask.delayed(wait)(1), path))


def raised(error: BaseException) -> None:
    raise AssertionError from error


@pytest.fixture(autouse=True)
def not_started() -> None:
    STARTED.clear()
    GO.clear()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("old")
    return path


@contextmanager
def in_a_thread(work: Callable[[], Any]) -> Iterator[list[Any]]:
    """Run a graph that waits for GO in the same block; the list has its result after the block."""
    made: list[Any] = []
    context = contextvars.copy_context()
    thread = threading.Thread(target=lambda: made.append(context.run(work)))
    thread.start()
    try:
        assert STARTED.wait(20)
        yield made
    finally:
        GO.set()
        thread.join()


def value_of_old(cache: UnifiedCache, file: Path) -> Any:
    file.write_text("old")
    with cd.caching(cache, which="outputs"):
        return length_of(file).compute(scheduler="sync")


def test_a_file_that_changes_after_another_thread_is_done_keeps_no_result(cache: UnifiedCache, file: Path) -> None:
    with cd.caching(cache, which="outputs") as run:
        with in_a_thread(lambda: length_of(file).compute(scheduler="threads")) as made:
            assert dask.delayed(double)(21).compute(scheduler="threads") == 42
            run.flush()
            file.write_text("newer!")
        assert made == [6]
    assert value_of_old(cache, file) == 3


@pytest.mark.slow
def test_a_file_that_changes_under_a_persisted_graph_keeps_no_result(cache: UnifiedCache, file: Path) -> None:
    with (
        Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=":0"),
        cd.caching(cache, which="outputs"),
    ):
        kept = length_of(file).persist()
        assert STARTED.wait(20)
        assert dask.delayed(double)(21).compute() == 42
        file.write_text("newer!")
        GO.set()
        assert kept.compute() == 6
    assert value_of_old(cache, file) == 3


@pytest.mark.slow
@pytest.mark.parametrize("is_async", [False, True])
def test_a_block_ends_after_the_graphs_that_read_files(cache: UnifiedCache, file: Path, is_async: bool) -> None:
    def change() -> None:
        assert STARTED.wait(20)
        time.sleep(0.2)  # the block is about to end
        file.write_text("newer!")
        GO.set()

    async def within() -> list[Any]:
        async with Client(processes=False, n_workers=1, dashboard_address=":0", asynchronous=True) as client:
            async with cd.caching(cache, which="outputs"):
                kept = client.compute(length_of(file))
            return [kept.status, await kept]

    other = threading.Thread(target=change)
    other.start()
    if is_async:
        assert asyncio.run(within()) == ["finished", 6]
    else:
        with Client(processes=False, n_workers=1, dashboard_address=":0") as client:
            with cd.caching(cache, which="outputs"):
                kept = client.compute(length_of(file))
            assert [kept.status, kept.result()] == ["finished", 6]
    other.join()
    assert value_of_old(cache, file) == 3


def test_tasks_are_counted_once_whichever_thread_counts_first(cache: UnifiedCache) -> None:
    def work() -> Any:
        with pytest.raises(ZeroDivisionError):
            dask.compute(dask.delayed(wait)(1), dask.delayed(divided)(1), scheduler="threads", num_workers=2)

    with cd.caching(cache, which="all") as run:
        with in_a_thread(work):
            dask.delayed(double)(21).compute(scheduler="threads")
            run.flush()
        # As if another thread, whose graph ends now, took the report of the task that raised.
        run._count_ended([], [reports.failed(run._id)])
        dask.delayed(double)(22).compute(scheduler="threads")
    counted = {row.name.rpartition(".")[2]: (row.misses, row.failed) for row in cache.report()}
    assert counted == {"wait": (1, 0), "divided": (0, 1), "double": (2, 0)}


def test_misses_of_graphs_that_are_dropped_are_counted() -> None:
    plan: Any = SimpleNamespace(files={}, misses={})
    graphs = GraphsUnderWay()
    for _ in range(2_500):
        over = UnderWay(plan, (), Counter({("f", ""): 2}), stores=True)
        over.end()
        graphs.add(over)
    every = graphs.every()
    assert len(every) < 2_000
    assert graphs.taken_misses(every) == {("f", ""): 5_000}
    assert graphs.taken_misses(every) == {}


def test_what_cannot_be_stored_is_learned_beside_another_thread_that_looks_at_it(cache: UnifiedCache) -> None:
    learned = Learned(cache, Policy())

    class Never(dict[bytes, str]):
        def items(self) -> Any:
            for one in super().items():
                other.start()
                other.join(0.05)  # of the look, which must end first
                yield one

    other = threading.Thread(target=learned._never_again, args=(b"2", "why"))
    learned.never = Never({b"1": f"{SINK} it writes"})
    prints: Any = SimpleNamespace(digests={})
    learned.refuse_sinks({}, prints)
    other.join()
    assert set(learned.never) == {b"1", b"2"}


def test_each_run_gets_the_reports_about_its_own_tasks(cache: UnifiedCache) -> None:
    with cd.caching(cache) as other, cd.caching(cache) as run:
        dask.delayed(threading.Lock)().compute(scheduler="sync")  # cannot be stored
        other.flush()
        run.flush()
        assert (other.unstored, sum(map(len, run.unstored.values()))) == ({}, 1)


def test_reports_that_nobody_takes_are_dropped(cache: UnifiedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "_reports", {})
    monkeypatch.setattr(reports, "_MOST_RUNS", 2)
    for run in (b"1", b"2", b"2", b"3"):
        reports.note_failure(run, "f", 1.0)
    taken = [reports.taken(cache.config, run).failed for run in (b"1", b"2", b"3")]
    assert taken == [{}, {"f": (2, 2.0)}, {"f": (1, 1.0)}]


def test_a_pool_is_asked_about_a_graph_when_it_has_ended(cache: UnifiedCache) -> None:
    digest, key = b"d" * 32, "task"
    plan: Any = SimpleNamespace(
        decisions=SimpleNamespace(
            store=SimpleNamespace(pool=b"graph"), stored={key: SimpleNamespace(digest=digest)}, earlier={}
        ),
        graph={key: None},
        hits={},
    )
    pools = Pools(cache)
    pools.begin(plan)
    assert (pools.unstored(()), list(pools.failures())) == ({}, [])  # another thread's graph has ended
    cache.note_unstored({entry_key(digest): "why", failure_key(b"graph", digest): "1.5"})
    pools.ended(plan, failed=True)
    [(_, why)] = pools.unstored(()).values()
    [failed] = pools.failures()
    assert (why, list(failed.values())) == ("why", [(1, 1.5)])
    assert (pools.unstored(()), list(pools.failures())) == ({}, [])


def test_what_follows_a_failed_task_is_deleted_until_no_task_is_under_way(cache: UnifiedCache) -> None:
    learned, key = Learned(cache, Policy()), cache.key(x=1)
    learned.following[b"digest"] = (key.hex,)
    learned.learn({b"digest": ("f", f"{FILE} it changed")})
    for again in (True, True, False):
        cache.put(1, key)
        learned.delete_following(again=again)
        assert key.hex not in cache.present([key])
    cache.put(1, key)
    learned.delete_following(again=False)
    assert cache.get(key) == 1


def test_a_graph_of_futures_is_under_way_until_these_have_ended() -> None:
    plan: Any = SimpleNamespace(files={}, misses={})
    states = [FutureState("a"), FutureState("b")]
    graphs, graph = GraphsUnderWay(), UnderWay(plan, states, Counter(), stores=True)
    graphs.add(graph)
    seen = []
    for state in states:
        seen.append(bool(graphs))
        state.status = "finished"
    assert (seen, bool(graphs)) == ([True, True], False)


def test_graphs_that_are_over_are_dropped_before_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    plan: Any = SimpleNamespace(files={}, misses={})
    graphs = GraphsUnderWay()
    running = [UnderWay(plan, (), Counter(), stores=True) for _ in range(3)]
    for graph in running:
        graphs.add(graph)
    for _ in range(5_000):
        over = UnderWay(plan, (), Counter(), stores=True)
        over.end()
        graphs.add(over)
    assert len(graphs.every()) <= 2_000
    assert running == graphs.every()[:3]


def test_a_failed_graph_is_over(cache: UnifiedCache) -> None:
    with cd.caching(cache, which="all") as run:
        made: list[GraphPlan] = []
        prepare = run.prepare
        run.prepare = lambda *given, **more: made.append(prepare(*given, **more)) or made[-1]  # type: ignore[assignment, func-returns-value]
        with pytest.raises(ZeroDivisionError):
            dask.delayed(divmod)(1, 0).compute(scheduler="sync")
        assert [plan.under_way.is_over for plan in made] == [True]


def test_a_process_of_a_pool_that_stores_late_keeps_nothing_of_a_changed_file(cache: UnifiedCache) -> None:
    late, other = result_key(b"1" * 32, "late"), result_key(b"2" * 32, "other")
    queue = WriteBehind(Late(lambda: UnifiedCache(cache.config)), Meter(0.0), 1 << 20, raised)
    changed: Any = SimpleNamespace(
        changed=lambda: {"text.txt"}, written=lambda _: set(), is_told=False, pool=b"graph", entries=(late.hex,)
    )
    delete_stale([changed], cache, lambda: None)
    queue.put(late, 6, 1, ComputeDetails(1.0, {}, pool=b"graph"))
    queue.put(other, 7, 1, ComputeDetails(1.0, {}, pool=b"another graph"))
    queue.close()
    assert (cache.get(late), cache.get(other)) == (None, 7)
