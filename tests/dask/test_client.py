"""install(client): submit, map, compute, persist, gather and futures as inputs, on real worker processes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import pytest
from distributed import Client, Future, Variable, as_completed, worker_client
from workloads import inc, runs, total

import cacheness_dask as cd
from cacheness import UnifiedCache
from cacheness.errors import CachenessError

pytestmark = pytest.mark.timeout(120)


@contextlib.contextmanager
def installed(cluster: Any, cache: UnifiedCache) -> Iterator[tuple[Client, cd.Run]]:
    """A fresh client with the cache installed: it holds no futures of an earlier one."""
    with Client(cluster) as client:
        run = cd.install(client, cache)
        yield client, run
        cd.uninstall(client)


def twice(cluster: Any, cache: UnifiedCache, work: Any) -> list[Any]:
    """The results of two sessions, the second of which must run nothing."""
    results = []
    for turn in range(2):
        with installed(cluster, cache) as (client, run):
            runs()
            results.append(work(client))
            run.flush()
            if turn:
                assert runs() == 0
                assert sum(record.misses for record in run.history) == 0
    return results


def test_submit_and_gather(cluster: Any, cache: UnifiedCache) -> None:
    assert twice(cluster, cache, lambda client: client.submit(inc, 1).result()) == [2, 2]


def test_map(cluster: Any, cache: UnifiedCache) -> None:
    assert twice(cluster, cache, lambda client: client.gather(client.map(inc, range(4)))) == [[1, 2, 3, 4]] * 2


def test_map_in_batches_with_keywords(cluster: Any, cache: UnifiedCache) -> None:
    def work(client: Client) -> Any:
        return client.gather(client.map(inc, range(4), by=3, batch_size=2))

    assert twice(cluster, cache, work) == [[3, 4, 5, 6]] * 2


def test_futures_as_inputs(cluster: Any, cache: UnifiedCache) -> None:
    def work(client: Client) -> Any:
        first = client.map(inc, range(3))
        second = client.submit(total, first)
        return client.submit(inc, second, by=first[0]).result()

    assert twice(cluster, cache, work) == [7, 7]


def test_compute_persist_and_collections_on_futures(cluster: Any, cache: UnifiedCache) -> None:
    def work(client: Client) -> Any:
        array = client.persist(da.ones((4, 4), chunks=2).map_blocks(inc))
        value = client.compute(dask.delayed(inc)(dask.delayed(inc)(1))).result()
        return float(array.sum().compute()), value

    assert twice(cluster, cache, work) == [(32.0, 3)] * 2


def test_what_is_said_to_be_impure_runs_each_time(cluster: Any, cache: UnifiedCache) -> None:
    for _ in range(2):
        with installed(cluster, cache) as (client, run):
            runs()
            assert client.submit(inc, 1, pure=False, priority=3).result() == 2
            assert (runs(), run.history) == (1, [])


def test_a_key_that_is_still_held_means_what_it_meant_first(cluster: Any, cache: UnifiedCache) -> None:
    with installed(cluster, cache) as (client, _):
        first = client.submit(inc, 1, key="mine")
        second = client.submit(inc, 100, key="mine")  # Dask gives the first, because it is still there
        assert client.submit(inc, second).result() == 3
    with installed(cluster, cache) as (client, _):
        other = client.submit(inc, 100, key="mine")
        assert client.submit(inc, other).result() == 102
    del first, second


def test_uninstall_leaves_the_client_as_it_was(client: Client, cache: UnifiedCache) -> None:
    before = Client._graph_to_futures
    cd.install(client, cache)
    assert Client._graph_to_futures is not before
    cd.uninstall(client)
    cd.uninstall(client)
    assert Client._graph_to_futures is before
    assert client.submit(inc, 1).result() == 2
    assert cache.list_entries() == []


def test_a_path_opens_a_cache_for_an_installed_client(tmp_path: Path, client: Client) -> None:
    run = cd.install(client, tmp_path)
    assert client.submit(inc, 1).result() == 2
    cd.uninstall(client)
    assert run.history[0].stored == 1
    with pytest.raises(CachenessError, match="closed"):
        run.cache.get(x=1)


def test_each_client_has_its_own_cache(cluster: Any, cache: UnifiedCache, tmp_path: Path) -> None:
    other_cache = UnifiedCache(cache_dir=tmp_path / "other")
    with installed(cluster, cache) as (one, _), installed(cluster, other_cache) as (two, _), Client(cluster) as three:
        for n, client in enumerate((one, two, three)):
            assert client.submit(inc, n).result() == n + 1
    assert [len(place.list_entries()) for place in (cache, other_cache)] == [1, 1]
    other_cache.close()


def test_another_distributed_is_left_alone_with_a_warning(
    client: Client, cache: UnifiedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Client, "_graph_to_futures", lambda self, graph: graph)
        with pytest.warns(cd.CacheUnavailable, match="does not support"):
            cd.install(client, cache)
        assert client._graph_to_futures("as before") == "as before"
    cd.uninstall(client)


def test_explain_finds_the_installed_cache(cluster: Any, cache: UnifiedCache) -> None:
    with installed(cluster, cache) as (client, run):
        assert client.submit(inc, 1).result() == 2
        run.flush()
        assert [row.status for row in cd.explain(dask.delayed(inc)(1))] == ["hit"]


def test_a_key_that_somebody_else_took_up_again_is_not_what_it_was(cluster: Any, cache: UnifiedCache) -> None:
    with installed(cluster, cache) as (client, run), Client(cluster, set_as_default=False) as other:
        first = client.submit(inc, 1, key="mine")
        assert client.submit(inc, first).result() == 3
        del first
        while client.run_on_scheduler(lambda dask_scheduler: "mine" in dask_scheduler.tasks):
            pass
        theirs = other.submit(inc, 100, key="mine")
        taken = Future("mine", client)
        assert client.submit(inc, taken).result() == 102
        assert run.history[-1].refused == 1
        del taken
        with cd.nocache():
            mine = client.submit(inc, 100, key="mine")  # of which nothing is noted
        assert client.submit(inc, mine).result() == 102
        del theirs


def test_futures_in_variables_and_other_clients_are_taken_as_they_are(cluster: Any, cache: UnifiedCache) -> None:
    def work(client: Client) -> Any:
        shared = Variable("shared", client=client)
        one = client.submit(inc, 1)  # while we hold it ourselves, we know what it is
        shared.set(one)
        via_variable = client.submit(inc, shared.get()).result()
        shared.delete()
        finished = sorted(result for _, result in as_completed(client.map(inc, range(3)), with_results=True))
        within = client.submit(sum_on_the_worker, 4).result()
        return via_variable, finished, within

    assert twice(cluster, cache, work) == [(3, [1, 2, 3], 10)] * 2


def sum_on_the_worker(n: int) -> int:
    with worker_client() as client:
        return sum(client.gather(client.map(inc, range(n))))


def test_an_asynchronous_client(cluster: Any, cache: UnifiedCache) -> None:
    async def work() -> Any:
        async with Client(cluster.scheduler_address, asynchronous=True) as client:
            cd.install(client, cache)
            found = await client.submit(inc, 1), await client.compute(dask.delayed(inc)(9))
            cd.uninstall(client)
            return found

    assert [asyncio.run(work()) for _ in range(2)] == [(2, 10)] * 2
