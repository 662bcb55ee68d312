"""What was asked of the scheduler holds for misses and for hits: priorities, retries, resources, workers, key names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dask
import pytest
from distributed import Client, get_worker, wait
from workloads import inc, ran, runs

import cacheness_dask as cd
from cacheness import UnifiedCache

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def golden(client: Client) -> Iterator[str]:
    """The address of the only worker that has GOLD."""
    _, chosen = client.scheduler_info()["workers"]

    async def give(amount: int, dask_worker: Any) -> None:
        await dask_worker.set_resources(GOLD=amount)

    client.run(give, 1, workers=[chosen])
    yield chosen
    client.run(give, 0, workers=[chosen])


def asked(client: Client, key: str) -> dict[str, Any]:
    """What the scheduler knows of a task."""

    def look(dask_scheduler: Any) -> dict[str, Any]:
        task = dask_scheduler.tasks[key]
        return {
            "priority": task.priority[0],
            "retries": task.retries,
            "resources": task.resource_restrictions,
            "workers": sorted(task.worker_restrictions or ()),
            "ran on": [worker.address for worker in task.who_has],
        }

    return client.run_on_scheduler(look)  # type: ignore[no-any-return]


def where(x: int) -> str:
    ran()
    return str(get_worker().address)


def echo(address: str, times: int) -> str:
    return address * times


@pytest.mark.slow
def test_annotations_of_collections(cache: UnifiedCache, client: Client, golden: str) -> None:
    with cd.caching(cache, which="all") as run:
        for times in (1, 2):
            with dask.annotate(priority=7, retries=3, resources={"GOLD": 1}):
                one = dask.delayed(where)(1, dask_key_name="annotated")
            both = dask.delayed(echo)(one, times, dask_key_name="plain")
            persisted, also = dask.persist(both, one, optimize_graph=False)
            wait([persisted, also])
            assert asked(client, "annotated") == {
                "priority": -7,
                "retries": 3,
                "resources": {"GOLD": 1},
                "workers": [],
                "ran on": [golden],
            }
            assert not asked(client, "plain")["resources"]
            assert persisted.compute() == golden * times
            del persisted, also
            run.flush()
    assert runs() == 1
    assert [(record.hits, record.misses) for record in run.history[::2]] == [(0, 2), (1, 1)]


def test_options_of_compute(cache: UnifiedCache, client: Client, golden: str) -> None:
    with cd.caching(cache, which="all"):
        for _ in range(2):
            assert dask.delayed(where)(2).compute(resources={"GOLD": 1}, priority=3) == golden
    assert runs() == 1


def test_options_of_submit(cache: UnifiedCache, cluster: Any, golden: str) -> None:
    for _ in range(2):
        with Client(cluster) as client:
            run = cd.install(client, cache)
            future = client.submit(where, 3, key="mine", priority=5, retries=2, resources={"GOLD": 1}, workers=[golden])
            assert future.result() == golden
            assert asked(client, "mine") == {
                "priority": -5,
                "retries": 2,
                "resources": {"GOLD": 1},
                "workers": [golden],
                "ran on": [golden],
            }
            del future
            cd.uninstall(client)
    assert runs() == 1
    assert run.history[0].hits == 1


def test_key_names_of_futures(cache: UnifiedCache, cluster: Any) -> None:
    for _ in range(2):
        with Client(cluster) as client:
            cd.install(client, cache)
            futures = client.map(inc, range(3), key=["a", "b", "c"])
            assert [future.key for future in futures] == ["a", "b", "c"]
            assert client.gather(futures) == [1, 2, 3]
            del futures
            cd.uninstall(client)
    assert runs() == 3
