"""Large graphs go to the scheduler as they are, with the decisions beside them: the same results, fewer bytes."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask._task_spec import Task, TaskRef, execute_graph, fuse_linear_task_spec
from dask.base import collections_to_expr
from dask.core import flatten
from distributed import Client
from workloads import WORKLOADS, inc, ran, runs, shown, total, write_inputs

import cacheness_dask as cd
from cacheness import UnifiedCache
from cacheness.records import Presence
from cacheness_dask import ship
from cacheness_dask.apply import apply
from cacheness_dask.decide import decide
from cacheness_dask.decisions import CachedResults, GraphRequest
from cacheness_dask.fingerprint import fingerprints
from cacheness_dask.graphs import as_expression, materialised
from cacheness_dask.policy import Policy
from cacheness_dask.result_keys import entry_key
from cacheness_dask.worker import Store

HERE = Path(__file__).parent

NOTHING = CachedResults({}, {}, 0.0)


def part(number: int) -> pd.DataFrame:
    ran()
    return pd.DataFrame({"a": range(number, number + 3)})


def doubled(df: pd.DataFrame) -> pd.DataFrame:
    return df * 2


def frame(parts: int) -> Any:
    return dd.from_map(part, range(parts), meta={"a": "int64"}).map_partitions(doubled, meta={"a": "int64"})


COLLECTIONS = {
    "delayed": lambda: dask.delayed(total)([dask.delayed(inc)(i) for i in range(5)]),
    "bag": lambda: db.from_sequence(range(6), npartitions=3).map(inc),
    "array": lambda: da.from_array(np.arange(8.0), chunks=4).map_blocks(inc) + 1,
    "dataframe": lambda: frame(4).a.sum(),
}


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("not this way")


@pytest.fixture
def only_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every graph counts as large, and none may be rewritten by the client."""
    monkeypatch.setattr(ship, "LARGE", 1)
    monkeypatch.setattr(ship, "as_expression", refuse)


@pytest.fixture
def never_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ship, "LARGE", 1)
    monkeypatch.setattr(ship, "Beside", refuse)


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize("kind", COLLECTIONS)
def test_what_was_stored_by_a_graph_sent_as_it_is_is_found_again(
    cache: UnifiedCache, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    (plain,) = dask.compute(COLLECTIONS[kind](), scheduler="sync")
    with cd.caching(cache) as run:
        with monkeypatch.context() as patch:
            patch.setattr(ship, "LARGE", 1)
            patch.setattr(ship, "as_expression", refuse)
            (first,) = dask.compute(COLLECTIONS[kind]())
        collection = COLLECTIONS[kind]()
        runs()
        (second,) = dask.compute(collection)
        assert runs() == 0
    assert np.array_equal(first, plain)
    assert np.array_equal(second, plain)
    assert (run.history[0].hits, run.history[1].misses) == (0, 0)
    assert run.history[0].stored > 0


@pytest.mark.usefixtures("client", "only_beside")
def test_hits_and_misses_of_one_graph_are_decided_beside_it(cache: UnifiedCache) -> None:
    with cd.caching(cache, which="all") as run:
        few, many = frame(3), frame(8)
        assert len(few.compute()) == 9
        runs()
        assert many.a.sum().compute() == sum(2 * (3 * n + 3) for n in range(8))
        assert runs() == 5
    assert [record.hits for record in run.history] == [0, 3]
    assert run.history[1].stored == run.history[1].misses


@pytest.mark.usefixtures("client", "never_beside")
def test_an_array_with_hits_is_rewritten_where_its_fusion_is_known(cache: UnifiedCache) -> None:
    known, other = (da.from_array(np.arange(start, start + 8.0), chunks=4).map_blocks(inc) for start in (0, 8))
    with cd.caching(cache, which="all") as run:
        with cd.nocache():
            other.compute()
        with pytest.raises(AssertionError, match="not this way"):
            known.compute()  # nothing is known yet, so nothing is lost
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ship, "LARGE", 100)
            known.compute()
        assert da.concatenate([known, other]).compute().sum() == 136
    assert run.history[-1].hits == 2
    assert run.history[-1].misses >= 2


@pytest.mark.usefixtures("client", "only_beside")
def test_a_marked_part_of_a_data_frame_is_stored(cache: UnifiedCache) -> None:
    with cd.caching(cache, which="marked") as run:
        assert cd.mark(frame(3)).compute().a.sum() == 36
    assert run.history[0].stored == 3


@pytest.mark.usefixtures("only_beside")
def test_annotations_of_a_graph_sent_as_it_is_reach_the_scheduler(cache: UnifiedCache, client: Client) -> None:
    with dask.annotate(priority=7, retries=3, resources={"GOLD": 1}):
        one = dask.delayed(inc)(1, dask_key_name="annotated")
    both = dask.delayed(inc)(one, dask_key_name="plain")

    def look(dask_scheduler: Any) -> Any:
        found = dask_scheduler.tasks
        if "annotated" not in found:
            return None  # the graph is still on its way
        return found["annotated"].annotations, found["annotated"].resource_restrictions, found["plain"].annotations

    with cd.caching(cache):
        future = both.persist(optimize_graph=False)
        while not (seen := client.run_on_scheduler(look)):
            pass
        del future
    assert seen == ({"priority": 7, "retries": 3, "resources": {"GOLD": 1}}, {"GOLD": 1}, {})


@pytest.mark.usefixtures("only_beside")
def test_futures_and_what_is_built_on_them(cache: UnifiedCache, cluster: object) -> None:
    def work(client: Client) -> Any:
        first = client.map(inc, range(4))
        persisted = client.persist(frame(3))
        return client.submit(total, first).result(), int(persisted.a.sum().compute())

    with Client(cluster) as client:
        run = cd.install(client, cache)
        assert work(client) == (10, 36)
        cd.uninstall(client)
    assert sum(record.stored for record in run.history) > 7
    with Client(cluster) as client, pytest.MonkeyPatch.context() as patch:
        patch.setattr(ship, "as_expression", as_expression)
        run = cd.install(client, cache)
        runs()
        assert work(client) == (10, 36)
        cd.uninstall(client)
    assert runs() == 0
    assert sum(record.misses for record in run.history) == 0


@pytest.mark.usefixtures("client", "only_beside")
def test_an_entry_that_vanishes_runs_the_graph_again(cache: UnifiedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cacheness_dask.apply.FALLBACK_TASKS", 0)  # the scheduler of this cluster is in this process
    with cd.caching(cache, which="all") as run:
        assert len(frame(3).compute()) == 9
        present = cache.present

        def present_and_then_gone(keys: Any) -> Any:
            found = present(keys)
            monkeypatch.setattr(cache, "present", present)
            cache.clear()
            return found

        monkeypatch.setattr(cache, "present", present_and_then_gone)
        assert len(frame(6).compute()) == 18
    assert [record.hits > 0 for record in run.history[:2]] == [False, True]
    assert len(run.history) == 3


def planned(collection: Any, cache: UnifiedCache, which: Any) -> tuple[Any, Any, Any]:
    expression = collections_to_expr([collection]).optimize()
    graph, annotations = materialised(expression)
    keys = list(flatten(expression.__dask_keys__()))
    store = Store(cache.config, Policy(which=which))
    return expression, annotations, decide(GraphRequest(graph, keys), fingerprints(graph, keys), NOTHING, store)


LARGE_GRAPHS = {
    "array": lambda: da.ones((300, 300), chunks=(3, 3)).map_blocks(inc).T + 1,
    "dataframe": lambda: frame(2_600).shift(1),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", LARGE_GRAPHS)
def test_a_large_graph_is_sent_in_few_bytes(cache: UnifiedCache, kind: str) -> None:
    collection = LARGE_GRAPHS[kind]()
    expression, annotations, plan = planned(collection, cache, "auto")
    tasks, graph = len(plan.runs), plan.graph
    sent = ship.shipped(plan, expression, annotations, client=object())
    assert tasks >= ship.LARGE
    assert pickle.loads(pickle.dumps(plan.decisions)) == plan.decisions
    assert len(pickle.dumps(sent)) < 65 * tasks
    assert len(pickle.dumps(sent)) * 2 < len(pickle.dumps(as_expression(apply(plan.decisions, graph), annotations)))
    assert plan.graph == {}
    rebuilt = pickle.loads(pickle.dumps(sent)).__dask_graph__()
    assert rebuilt.keys() == graph.keys()


@pytest.mark.slow
def test_what_is_not_to_be_stored_costs_nothing(cache: UnifiedCache) -> None:
    expression, annotations, plan = planned(LARGE_GRAPHS["dataframe"]().sum(), cache, "outputs")
    tasks = len(plan.runs)
    assert len(pickle.dumps(ship.shipped(plan, expression, annotations, client=object()))) < tasks


def test_a_small_graph_and_one_that_mostly_hits_are_rewritten_by_the_client(
    cache: UnifiedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    expression, annotations, plan = planned(frame(100), cache, "auto")
    assert type(ship.shipped(plan, expression, annotations, client=object())).__name__ == "HLGExpr"
    monkeypatch.setattr(ship, "LARGE", 1)
    expression, annotations, plan = planned(frame(100), cache, "auto")
    plan.runs = set(list(plan.runs)[:40])
    assert type(ship.shipped(plan, expression, annotations, client=object())).__name__ == "HLGExpr"


def test_decisions_hold_for_a_graph_that_is_fused_in_another_way(cache: UnifiedCache) -> None:
    apart = {
        "a": Task("a", inc, 1),
        "b": Task("b", inc, TaskRef("a")),
        "c": Task("c", total, TaskRef("b")),
    }
    fused = fuse_linear_task_spec(dict(apart), keys={"c"})
    assert fused.keys() == {"a-b-c", "c"}
    digest = fingerprints(apart, ["c"]).digests["c"]
    store = Store(cache.config, Policy(which="outputs"))
    for known, other, task in ((apart, fused, "a-b-c"), (fused, apart, "c")):
        plan = decide(GraphRequest(known, ["c"]), fingerprints(known, ["c"]), NOTHING, store)
        made = apply(plan.decisions, other)
        assert made.keys() == other.keys()
        assert (made[task].func._task[0], made[task].func._wanted) == (digest, True)


def test_a_hit_that_is_fused_away_is_computed(cache: UnifiedCache) -> None:
    apart = {"a": Task("a", inc, 1), "b": Task("b", inc, TaskRef("a"))}
    fused = fuse_linear_task_spec(dict(apart), keys={"b"})
    store = Store(cache.config, Policy(which="marked"))
    prints = fingerprints(apart, ["b"])
    hit = entry_key(prints.digests["a"])
    plan = decide(GraphRequest(apart, ["b"]), prints, CachedResults({hit: Presence(10, 10, 0.1)}, {}, 0.0), store)
    assert plan.hits == {"a": hit}
    assert execute_graph(apply(plan.decisions, fused), keys=["b"])["b"] == 3


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory, count_file: Path) -> Iterator[Client]:
    """A client of a scheduler and a worker that are processes of their own, with other hash seeds."""
    folder = tmp_path_factory.mktemp("elsewhere")
    file = folder / "scheduler.json"
    python_path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "dask", *command, "--scheduler-file", str(file), "--dashboard-address", ":0"],
            env={**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": python_path, "COUNT_FILE": str(count_file)},
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for seed, command in enumerate(
            [["scheduler", "--host", "127.0.0.1", "--port", "0"], ["worker", "--nthreads", "1", "--no-nanny"]], start=1
        )
    ]
    try:
        with Client(scheduler_file=str(file), set_as_default=False) as client:
            client.wait_for_workers(1, timeout=60)
            yield client
            client.shutdown()
        assert [process.wait(timeout=60) is not None for process in started] == [True, True]
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["array_svd", "array_overlap", "frame_merge", "p2p_merge", "xarray_mean"])
def test_a_scheduler_with_another_hash_seed_decides_the_same(
    elsewhere: Client, cache: UnifiedCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_inputs(tmp_path)
    (plain,) = dask.compute(WORKLOADS[name](tmp_path), scheduler=elsewhere)
    with cd.caching(cache, scheduler=elsewhere) as run:
        with monkeypatch.context() as patch:
            patch.setattr(ship, "LARGE", 1)
            patch.setattr(ship, "as_expression", refuse)
            (first,) = dask.compute(WORKLOADS[name](tmp_path))
        collection = WORKLOADS[name](tmp_path)
        runs()
        (second,) = dask.compute(collection)
        assert runs() == 0
    assert json.dumps([shown(first), shown(second)]) == json.dumps([shown(plain)] * 2)
    assert (run.history[0].hits, run.history[1].misses) == (0, 0)
