"""Workers that are killed and stores that go away, on real processes and real servers: the results are right."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from distributed import Client, wait
from workloads import inc, ran, runs, total

import cacheness_dask as cd
from cacheness import UnifiedCache
from cacheness.testing.proxy import Proxy

pytestmark = pytest.mark.timeout(180)

KEY = "a key that only this test knows"


def large(seed: int, where: str) -> np.ndarray:
    """A result that goes to the blob store, and whose worker can be found."""
    ran("large")
    Path(where, "pid").write_text(str(os.getpid()))
    return np.random.default_rng(seed).random(100_000)


def sum_when_told(values: np.ndarray, where: str) -> float:
    while not Path(where, "go").exists():
        time.sleep(0.01)
    return float(values.sum())


@pytest.mark.parametrize("step", ["blob", "row"])
def test_a_worker_killed_while_storing_leaves_no_partial_entry(
    client: Client, tmp_path: Path, emptied_url: str, s3_url: str, step: str
) -> None:
    expected = float(np.random.default_rng(1).random(100_000).sum())
    graph = dask.delayed(sum_when_told)(dask.delayed(large)(1, f"{tmp_path}"), f"{tmp_path}")
    with Proxy.before(emptied_url) as rows, Proxy.before(s3_url) as blobs:
        parameters = {"metadata_backend": rows.url, "blob_store": blobs.url, "signing_key": KEY}
        with UnifiedCache(**parameters, cache_dir=str(tmp_path)) as cache:
            with cd.caching(cache, which="all"):
                # The worker stands in the middle of an upload, or of the statement that makes the entry visible.
                stalled, match = (blobs, b"PUT /") if step == "blob" else (rows, b"INSERT INTO cacheness.entries")
                stalled.stall_before(match)
                persisted = graph.persist()
                while not stalled.has_struck():
                    time.sleep(0.01)
                os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
                (tmp_path / "go").touch()
                stalled.heal()
                assert persisted.compute() == expected
            assert runs() >= 2  # it was computed on the other worker once more
            found = [cache.lookup(entry["cache_key"]) for entry in cache.list_entries()]
            assert all(found)
            assert {float(np.sum(hit.value)) for hit in found if hit} == {expected}
            cache.verify_integrity(repair=True)
            assert len(cache.verify_integrity(deep=True)) == 0
            with cd.caching(cache) as run:
                assert graph.compute() == expected
            assert run.history[-1].misses == 0


def graph() -> Any:
    return dask.delayed(total)([dask.delayed(inc)(i) for i in range(20)])


def listen(dask_worker: Any) -> None:
    dask_worker.heard = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: dask_worker.heard.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("cacheness").handlers = [handler]


def heard(dask_worker: Any) -> list[str]:
    return list(dask_worker.heard)


@pytest.mark.parametrize("when", ["before the lookup", "before storing", "before loading"])
def test_a_store_that_is_down_costs_one_warning_on_a_whole_cluster(
    client: Client, tmp_path: Path, emptied_url: str, when: str
) -> None:
    with Proxy.before(emptied_url) as proxy:
        cache = UnifiedCache(
            metadata_backend=proxy.url,
            cache_dir=str(tmp_path),
            shared_path=True,
            signing_key=KEY,
            connect_timeout=1,
        )
        if when == "before loading":
            with cd.caching(cache, which="all"):
                graph().compute()
        if when == "before the lookup":
            proxy.refuse()
        present = cache.present

        def present_and_then_down(keys: Any) -> Any:
            found = present(keys)
            proxy.refuse()
            return found

        cache.present = present_and_then_down  # type: ignore[method-assign]
        client.run(listen)
        runs()
        with pytest.warns(cd.CacheUnavailable) as warned, cd.caching(cache, which="all") as run:  # noqa: PT031
            for _ in range(2):
                assert graph().compute() == 210
        assert len(warned) == 1
        assert runs() >= 21
        assert [line for lines in client.run(heard).values() for line in lines] == []
        if when == "before loading":
            assert run.history[0].hits == 1
        cache.close()


def test_entries_deleted_after_the_lookup_are_computed_again_on_the_workers(
    cache: UnifiedCache, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cd.caching(cache, which="all") as run:
        futures = graph().persist()
        wait(futures)
        assert futures.compute() == 210
        del futures
        run.flush()
        present = cache.present

        def present_and_then_gone(keys: Any) -> Any:
            found = present(keys)
            cache.clear()
            return found

        monkeypatch.setattr(cache, "present", present_and_then_gone)
        runs()
        assert dask.delayed(inc)(graph(), by=5).compute() == 215
        assert run.history[-1].hits > 0
        assert runs() >= 22


def compute_in_a_client_of_its_own(address: str, cache_dir: str, barrier: str, number: str) -> int:
    with (
        Client(address) as mine,
        UnifiedCache(cache_dir=cache_dir) as cache,
        cd.caching(cache, scheduler=mine, which="all"),
    ):
        Path(barrier, number).touch()
        while len(list(Path(barrier).iterdir())) < 2:
            time.sleep(0.001)
        return int(dask.delayed(total)([dask.delayed(inc)(i) for i in range(50)]).compute())


@pytest.mark.slow
def test_two_clients_in_processes_of_their_own_store_the_same_results_at_once(
    cluster: Any, cache: UnifiedCache, tmp_path: Path
) -> None:
    barrier = tmp_path / "barrier"
    barrier.mkdir()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) as pool:
        jobs = [
            pool.submit(
                compute_in_a_client_of_its_own,
                cluster.scheduler_address,
                cache.config.cache_dir,
                str(barrier),
                str(number),
            )
            for number in range(2)
        ]
        assert [job.result() for job in jobs] == [sum(range(1, 51))] * 2
    assert len(cache.list_entries()) == 51
    cache.verify_integrity(repair=True)
    assert len(cache.verify_integrity(deep=True)) == 0
