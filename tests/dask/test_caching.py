"""compute() and persist() with a cache, on every scheduler: the same values, from the store the second time."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.bag as db
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster
from workloads import ddf, inc, ran, runs, total

import cacheness_dask as cd
from cacheness import UnifiedCache
from cacheness_dask import worker
from tests.keys.edits import load

pytestmark = pytest.mark.timeout(120)


def twelve() -> Any:
    return dask.delayed(total)([dask.delayed(inc)(i) for i in (1, 2, 6)])


COLLECTIONS = {
    "delayed": twelve,
    "bag": lambda: db.from_sequence(range(6), npartitions=2).map(inc).map(lambda x: x * 2),
    "array": lambda: da.from_array(np.arange(8.0), chunks=4).map_blocks(inc) + 1,
    "dataframe": lambda: ddf().map_partitions(seen).a.sum(),
}


def seen(df: pd.DataFrame) -> pd.DataFrame:
    if len(df) > 2:
        ran()
    return df


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["sync", "threads", "processes"])
@pytest.mark.parametrize("kind", COLLECTIONS)
def test_the_second_compute_runs_nothing(cache: UnifiedCache, scheduler: str, kind: str) -> None:
    if scheduler == "processes" and kind != "bag":
        scheduler = "threads"  # a pool of processes takes seconds to start
    (plain,) = dask.compute(COLLECTIONS[kind](), scheduler="sync")
    with cd.caching(cache, scheduler=scheduler) as run:
        collection = COLLECTIONS[kind]()
        (first,) = dask.compute(collection)
        runs()
        (second,) = dask.compute(COLLECTIONS[kind]())
        assert runs() == 0
    assert np.array_equal(first, plain)
    assert np.array_equal(second, plain)
    assert run.history[-1].misses == 0
    assert run.history[0].stored > 0


@pytest.mark.parametrize("kind", COLLECTIONS)
def test_persist_stores_and_finds_on_the_cluster(cache: UnifiedCache, client: Client, kind: str) -> None:
    (plain,) = dask.compute(COLLECTIONS[kind](), scheduler="sync")
    with cd.caching(cache) as run:
        collection = COLLECTIONS[kind]()
        persisted = collection.persist()
        assert type(persisted) is type(collection)
        assert np.array_equal(persisted.compute(), plain)
        del persisted
        run.flush()
        runs()
        again = COLLECTIONS[kind]().persist()
        assert np.array_equal(again.compute(), plain)
        assert runs() == 0
    assert [record.misses for record in run.history][2] == 0


def test_a_collection_built_on_persisted_futures_is_found_again(cache: UnifiedCache, client: Client) -> None:
    with cd.caching(cache) as run:
        for _ in range(2):
            persisted = da.from_array(np.arange(8.0), chunks=4).map_blocks(inc).persist()
            assert (persisted * 2).sum().compute() == 72
            del persisted
            run.flush()  # else the second round may come before the first is stored
    assert [record.misses > 0 for record in run.history] == [True, True, False, False]
    assert all(record.refused == 0 for record in run.history)


def test_what_the_client_computes_already_is_left_alone(cache: UnifiedCache, client: Client) -> None:
    with cd.caching(cache):
        first = da.from_array(np.arange(8.0), chunks=4).map_blocks(inc).persist()
        second = da.from_array(np.arange(8.0), chunks=4).map_blocks(inc).persist()
        assert first.compute().tolist() == second.compute().tolist()
        assert runs() <= 2 + 4  # two blocks, and what building calls on empty data


@pytest.mark.slow
def test_a_new_client_on_a_new_cluster_gets_every_hit_and_loads_no_value_itself(
    cache: UnifiedCache, client: Client
) -> None:
    with cd.caching(cache):
        assert COLLECTIONS["array"]().persist().sum().compute() == 44
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster),
        cd.caching(cache) as run,
    ):
        persisted = COLLECTIONS["array"]().persist()
        assert persisted.sum().compute() == 44
        # The scheduler runs in this process, as the client does; neither has opened a store to load from.
        assert worker._open == {}
    assert [record.misses for record in run.history] == [0, 0]


def test_key_names_and_results_of_intermediate_keys_survive(cache: UnifiedCache) -> None:
    class Names(dask.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__(pretask=lambda key, graph, state: self.names.add(key))
            self.names: set[Any] = set()

    collection = dask.delayed(inc)(dask.delayed(inc)(1, dask_key_name="inner"), dask_key_name="outer")
    with cd.caching(cache, scheduler="sync"):
        with Names() as cold:
            collection.compute()
        with Names() as warm:
            collection.compute()
    assert (cold.names, warm.names) == ({"inner", "outer"}, {"outer"})


def flaky(path: str) -> int:
    ran()
    if not os.path.exists(path):
        Path(path).touch()
        raise RuntimeError("the first time it fails")
    return 5


def test_retries_retry(cache: UnifiedCache, client: Client, tmp_path: Path) -> None:
    with cd.caching(cache) as run:  # the trace of a failed attempt is no file that the task names
        assert dask.delayed(lambda folder: flaky(f"{folder}/tried"))(str(tmp_path)).compute(retries=2) == 5
    assert runs() == 2
    assert run.history[0].stored == 1


def test_a_failing_task_raises_its_own_error_and_stores_nothing(cache: UnifiedCache) -> None:
    with cd.caching(cache, scheduler="sync"), pytest.raises(ZeroDivisionError):
        dask.delayed(lambda x: 1 // x)(0).compute()
    assert cache.list_entries() == []


# when things go wrong


def test_entries_deleted_after_the_lookup_are_computed_again(cache: UnifiedCache, monkeypatch: Any) -> None:
    with cd.caching(cache, scheduler="threads"):
        twelve().compute()
        runs()
        present = cache.present

        def present_and_then_gone(keys: Any) -> Any:
            found = present(keys)
            cache.clear()
            return found

        monkeypatch.setattr(cache, "present", present_and_then_gone)
        assert twelve().compute() == 12
        assert runs() == 4


@pytest.mark.slow
def test_entries_with_many_ancestors_that_vanish_run_the_graph_again(
    cache: UnifiedCache, client: Client, monkeypatch: Any
) -> None:
    many = dask.delayed(sum)([dask.delayed(inc)(i) for i in range(80)])
    with cd.caching(cache):
        assert many.compute() == 3240
        runs()
        present, asked = cache.present, []

        def present_and_then_gone(keys: Any) -> Any:
            found = present(keys)
            asked.append(len(found))
            cache.clear()
            return found

        monkeypatch.setattr(cache, "present", present_and_then_gone)
        assert many.compute() == 3240
    assert runs() >= 80  # a worker that was slow to store may let some run twice
    assert len(asked) >= 2


def test_a_persisted_hit_that_vanishes_is_computed_on_the_worker(
    cache: UnifiedCache, client: Client, monkeypatch: Any
) -> None:
    many = dask.delayed(sum)([dask.delayed(inc)(i) for i in range(80)])
    with cd.caching(cache) as run:
        assert many.compute() == 3240
        run.flush()
        present = cache.present

        def present_and_then_gone(keys: Any) -> Any:
            found = present(keys)
            cache.clear()
            return found

        monkeypatch.setattr(cache, "present", present_and_then_gone)
        assert many.persist().compute() == 3240


def test_a_store_that_is_down_costs_one_warning_and_no_failure(tmp_path: Path) -> None:
    down = UnifiedCache(
        metadata_backend="postgresql://nobody@127.0.0.1:1/none",
        cache_dir=tmp_path,
        shared_path=True,
        allow_unsigned=True,
        connect_timeout=0.2,
    )
    with pytest.warns(cd.CacheUnavailable) as warned, cd.caching(down, scheduler="sync"):  # noqa: PT031
        for _ in range(3):
            assert twelve().compute() == 12
    assert len(warned) == 1
    assert runs() == 12


def test_a_store_that_goes_down_after_the_lookup_costs_one_warning(cache: UnifiedCache) -> None:
    sync = cd.caching(cache, scheduler="sync", which="all")
    with pytest.warns(cd.CacheUnavailable) as warned, sync as run:  # noqa: PT031
        worker.Store(run._config, run._policy).opened().cache().close()
        assert twelve().compute() == 12
        assert dask.delayed(inc)(7).compute() == 8
    assert [str(warning.message)[:28] for warning in warned] == ["Some results are not stored:"]


def test_nocache_computes_and_stores_nothing(cache: UnifiedCache) -> None:
    with cd.caching(cache, scheduler="sync") as run, cd.nocache():
        assert twelve().compute() == 12
        assert twelve().persist().compute() == 12
    assert run.history == []
    assert cache.list_entries() == []


def test_a_block_within_a_block_uses_the_same_scheduler(cache: UnifiedCache, tmp_path: Path) -> None:
    with (
        UnifiedCache(cache_dir=tmp_path / "inner") as other,
        cd.caching(cache, scheduler="sync") as outer,
        cd.caching(other) as inner,
    ):
        assert dask.delayed(threading.get_ident)().compute() == threading.get_ident()
    assert (len(outer.history), len(inner.history)) == (0, 1)


def test_one_question_for_each_graph(cache: UnifiedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    present, asked = cache.present, []
    monkeypatch.setattr(cache, "present", lambda keys: (asked.append(len(keys)), present(keys))[1])
    with cd.caching(cache, scheduler="sync"):
        twelve().compute()
        twelve().compute()
    assert asked == [4, 4]


def test_entries_say_which_function_made_them(cache: UnifiedCache) -> None:
    with cd.caching(cache, scheduler="sync", which="all"):
        twelve().compute()
        ddf().map_partitions(seen).compute()
    names = {entry["function"] for entry in cache.list_entries()}
    assert {"inc", "total", "seen"} <= names
    entry = cache.list_entries(function="inc")[0]
    assert entry["provenance"]["by"] == "cacheness_dask"
    assert cache.get(**entry["args"]) == cache.get(entry["cache_key"])


def test_a_task_whose_key_is_incomplete_is_told_once_a_function(
    cache: UnifiedCache, caplog: pytest.LogCaptureFixture
) -> None:
    hidden = load("running = (n for n in range(9))\ndef one(x): return x + 0 * hash(running)\n", "hidden_from_dask").one
    tasks = [dask.delayed(hidden)(n) for n in (1, 2)]
    with cd.caching(cache, scheduler="sync", incomplete="refuse") as run:
        assert dask.compute(*tasks) == (1, 2)
        assert run.history[-1].refused == 2
        assert all("incomplete" in reason for reason in run.history[-1].reasons.values())
    assert not caplog.records
    with cd.caching(cache, scheduler="sync") as run:
        assert dask.compute(*tasks) == dask.compute(*tasks) == (1, 2)
        rows = cd.explain(tasks[0])
    assert len([record for record in caplog.records if "hidden_from_dask" in record.getMessage()]) == 1
    assert (run.history[0].misses, run.history[1].hits) == (2, 2)
    assert all("not seen: hidden_from_dask.one: global running: builtins.generator" in row.why for row in rows)
