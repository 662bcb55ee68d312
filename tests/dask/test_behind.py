"""The write-behind queue: bounded by bytes, drops nothing, stores what the task returned."""

from __future__ import annotations

import itertools
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import pytest
from workloads import inc

import cacheness_dask as cd
from cacheness import UnifiedCache
from cacheness.keys import make_key
from cacheness_dask import write_behind
from cacheness_dask.policy import Meter
from cacheness_dask.sources_and_sinks import why_not
from cacheness_dask.write_behind import ComputeDetails, Late, WriteBehind


class Gated(UnifiedCache):
    """A store that does not answer until the gate is opened."""

    def __init__(self, path: Path) -> None:
        super().__init__(cache_dir=path)
        self.gate = threading.Event()
        self.batches: list[str] = []

    @contextmanager
    def write_batch(self) -> Iterator[None]:
        self.batches.append(threading.current_thread().name)
        assert self.gate.wait(30)
        with super().write_batch():
            yield


@pytest.fixture
def gated(tmp_path: Path) -> Iterator[Gated]:
    with Gated(tmp_path / "gated") as cache:
        yield cache


def queue_on(cache: UnifiedCache, limit: int, warned: list[BaseException] | None = None) -> WriteBehind:
    return WriteBehind(Late(lambda: cache), Meter(0.0), limit, (warned if warned is not None else []).append)


def put(queue: WriteBehind, number: int, value: Any, size: int) -> None:
    queue.put(make_key(args={"n": number}), value, size, ComputeDetails(0.1, {}))


def test_a_full_queue_stores_inline_and_drops_nothing(gated: Gated) -> None:
    queue = queue_on(gated, limit=10_000)
    for number in range(5):  # half of the limit: an encoded copy may need the other half
        put(queue, number, bytes(1000), 1000)
    overflow = threading.Thread(target=put, args=(queue, 5, bytes(1000), 1000), name="overflow")
    overflow.start()
    overflow.join(0.3)
    assert overflow.is_alive()  # its own task waits, instead of memory growing
    assert queue.waiting == 5000
    gated.gate.set()
    overflow.join()
    assert queue.flush() == 6
    assert len(gated.list_entries()) == 6
    assert "overflow" in gated.batches
    assert len(gated.batches) <= 3  # what waited together was stored together


def test_results_that_keep_coming_share_a_batch_and_then_wait_no_longer(gated: Gated) -> None:
    gated.gate.set()
    queue = queue_on(gated, limit=1 << 20)
    for number in range(200):
        put(queue, number, number, 28)
    stored = threading.Event()
    while queue.waiting:
        assert not stored.wait(0.001)  # nobody flushes
    assert len(gated.batches) < 50
    assert queue.flush() == 200


def test_tasks_go_first_until_a_caller_waits(cache: UnifiedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_behind, "_TASKS_SHARE", 1e9)  # for good, while results come
    queue = queue_on(cache, limit=1 << 20)
    ended = threading.Event()

    def tasks() -> None:
        for number in itertools.count():
            put(queue, number, number, 28)
            if ended.wait(0.001):
                return

    running = threading.Thread(target=tasks)
    running.start()
    try:
        while queue.waiting < 28 * 50:
            time.sleep(0.001)
        assert queue.flush() >= 50
    finally:
        ended.set()
        running.join()
    queue.close()


def test_a_value_larger_than_the_queue_is_stored_at_once(cache: UnifiedCache) -> None:
    queue = queue_on(cache, limit=100)
    put(queue, 0, bytes(1000), 1000)
    assert len(cache.list_entries()) == 1


@pytest.mark.parametrize(
    "value",
    [np.arange(5), pd.DataFrame({"a": [1, 2]}), [1, [2]], {"a": 1}, np.array([[1], 2], dtype=object)],
    ids=lambda value: type(value).__name__,
)
def test_what_is_stored_is_what_the_task_returned(gated: Gated, value: Any) -> None:
    queue = queue_on(gated, limit=1 << 20)
    before = repr(value)
    put(queue, 0, value, 100)
    match value:
        case pd.DataFrame() | dict():
            value["b"] = 5
        case list():
            value[1].append(3)
        case _:
            value[1] = 9
    assert repr(value) != before
    gated.gate.set()
    queue.flush()
    assert repr(gated.get(n=0)) == before


def test_a_value_that_cannot_be_stored_is_said_and_the_others_are_stored(cache: UnifiedCache) -> None:
    warned: list[BaseException] = []
    queue = queue_on(cache, limit=1 << 20, warned=warned)
    with pytest.raises(TypeError):
        put(queue, 0, threading.Lock(), 10)  # the caller says it
    put(queue, 1, 5, 10)
    assert queue.flush() == 1
    assert cache.get(n=1) == 5


class Exits:
    """An object that ends the process that unpickles it."""

    def __reduce__(self) -> Any:
        return sys.exit, (3,)


def test_a_value_that_cannot_be_read_again_leaves_its_batch_alone(gated: Gated) -> None:
    warned: list[BaseException] = []
    queue = queue_on(gated, 1 << 20, warned)
    for number, value in enumerate(([1], [Exits()], [2])):
        put(queue, number, value, 100)
    gated.gate.set()
    queue.flush()
    assert [gated.get(make_key(args={"n": n})) for n in range(3)] == [[1], None, [2]]
    assert ["SystemExit" in str(one) for one in warned] == [True]


def test_a_value_for_which_there_is_no_room_leaves_its_batch_alone(tmp_path: Path) -> None:
    values = [np.random.default_rng(n).bytes(300_000 if n in {20, 70} else 10) for n in range(100)]
    with UnifiedCache(tmp_path, max_bytes=200_000) as cache:
        with (
            pytest.warns(cd.CacheUnavailable, match="is not stored"),
            cd.caching(cache, which="all", scheduler="threads"),
        ):
            assert list(dask.compute(*[dask.delayed(same)(value, n) for n, value in enumerate(values)])) == values
        assert cache.stats()["entries"] == 98


def same(value: bytes, number: int) -> bytes:
    return value


def test_an_inner_block_finds_what_the_outer_one_has_computed(tmp_path: Path) -> None:
    tasks = [dask.delayed(inc)(n) for n in range(50)]
    with cd.caching(str(tmp_path), which="all", scheduler="threads") as outer:
        dask.compute(*tasks)
        with cd.caching(str(tmp_path), which="all", scheduler="threads") as inner:
            dask.compute(*tasks)
    assert [(part.hits, part.misses) for part in (*outer.history, *inner.history)] == [(0, 50), (50, 0)]


def test_downstream_changes_in_place_do_not_reach_the_store(cache: UnifiedCache) -> None:
    def grow(frame: pd.DataFrame) -> pd.DataFrame:
        frame["b"] = frame.a * 2
        return frame

    def chain() -> Any:
        first = dask.delayed(pd.DataFrame)({"a": [1, 2, 3]})
        return first, dask.delayed(grow)(first)

    with cd.caching(cache, scheduler="sync", which="all"):
        chain()[1].compute()
        assert list(chain()[0].compute().columns) == ["a"]


def test_tiny_tasks_are_not_stored_unless_they_are_results(cache: UnifiedCache) -> None:
    with cd.caching(cache, scheduler="sync") as run:
        dask.delayed(sum)([dask.delayed(abs)(i) for i in range(200)]).compute()
        assert 1 <= run.history[0].stored < 20  # a busy machine may make a few of them slow


def test_a_slow_task_is_stored_even_in_the_middle(cache: UnifiedCache) -> None:
    def slow(x: int) -> int:
        import time

        time.sleep(0.3)
        return x

    with cd.caching(cache, scheduler="sync"):
        dask.delayed(inc)(dask.delayed(slow)(1)).compute()
    assert "slow" in {entry["function"].rpartition(".")[2] for entry in cache.list_entries()}


@pytest.mark.parametrize(("which", "stored"), [("outputs", 1), ("all", 4), ("marked", 0)])
def test_the_policy_decides_what_is_stored(cache: UnifiedCache, which: Any, stored: int) -> None:
    with cd.caching(cache, scheduler="sync", which=which) as run:
        dask.delayed(sum)([dask.delayed(inc)(i) for i in range(3)]).compute()
        assert run.history[0].stored == stored


def test_a_value_over_the_size_bound_is_not_stored(cache: UnifiedCache) -> None:
    with cd.caching(cache, scheduler="sync", max_value_bytes=1000):
        dask.delayed(np.zeros)(1000).compute()
    assert cache.list_entries() == []


def test_the_meter_learns_latency_and_throughput() -> None:
    meter = Meter(0.010)
    assert meter.load_seconds(10**9) == pytest.approx(0.010)  # nothing is known of large values yet
    for _ in range(30):
        meter.saw(100, 0.030)
        meter.saw(10**8, 1.030)
    assert meter.load_seconds(0) == pytest.approx(0.030, rel=0.1)
    assert meter.load_seconds(10**8) == pytest.approx(1.03, rel=0.1)


def test_placeholders_are_not_storable() -> None:
    assert [bool(why_not(value)) for value in (None, iter([]), (x for x in ()), 0, [], "")] == [True] * 3 + [False] * 3


@pytest.mark.slow
def test_a_forked_child_leaves_the_queue_to_its_parent_and_exits(tmp_path: Path) -> None:
    program = """
        import os, sys, threading
        from cacheness import UnifiedCache
        from cacheness.keys import make_key
        from cacheness_dask.write_behind import ComputeDetails, Late, WriteBehind
        from cacheness_dask.policy import Meter
        gate = threading.Event()
        def open_cache():
            gate.wait(30)
            return UnifiedCache(cache_dir=sys.argv[1])
        queue = WriteBehind(Late(open_cache), Meter(0.0), 1000, print)
        for n in range(5):
            queue.put(make_key(args={"n": n}), n, 1, ComputeDetails(0.1, {}))
        child = os.fork()
        if child:
            assert os.waitpid(child, 0)[1] == 0
            gate.set()
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program), str(tmp_path)]
    subprocess.run(command, check=True, timeout=60)
    with UnifiedCache(cache_dir=tmp_path) as cache:
        assert [cache.get(n=n) for n in range(5)] == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_the_results_of_a_forked_pool_are_stored_at_its_exit(tmp_path: Path) -> None:
    program = """
        import multiprocessing, sys
        from cacheness import Config
        from cacheness.keys import make_key
        from cacheness_dask.write_behind import ComputeDetails
        from cacheness_dask.policy import Policy
        from cacheness_dask.worker import Store
        store = Store(Config(cache_dir=sys.argv[1]), Policy())
        def work(n):
            store.opened().queue.put(make_key(args={"n": n}), n, 1, ComputeDetails(0.1, {}))
        work(0)  # the parent has its own queue open
        children = [multiprocessing.get_context("fork").Process(target=work, args=(n,)) for n in range(1, 4)]
        for child in children:
            child.start()
        for child in children:
            child.join()
            assert child.exitcode == 0
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program), str(tmp_path)]
    subprocess.run(command, check=True, timeout=60)
    with UnifiedCache(cache_dir=tmp_path) as cache:
        assert [cache.get(n=n) for n in range(4)] == [0, 1, 2, 3]
