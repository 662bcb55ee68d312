"""A result is computed once, in one entry, and read once."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest
from prefect import flow, task
from prefect.cache_policies import INPUTS
from prefect.results import ResultStore

from cacheness_prefect import CachenessSerializer, CachenessTextSerializer


@pytest.fixture
def reads(store, monkeypatch) -> Counter[str]:
    """Counts what one process asks of the stores themselves."""
    counted: Counter[str] = Counter()
    parts = store.open()._parts.cache

    def counting(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            counted[name] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    for name in ("find", "find_many", "present", "scan"):
        counting(parts.metadata, name)
    counting(parts.blobs, "read")
    return counted


def test_a_second_flow_run_is_cached_and_executes_nothing(store, runner, tally) -> None:
    @task(cache_policy=store.policy())
    def double(x: int) -> np.ndarray:
        tally.add()
        return np.full(10_000, 2 * x)

    @flow(task_runner=runner)
    def work() -> list[Any]:
        states = [double.submit(x, return_state=True) for x in (1, 2)]
        return [(state.name, int(state.result()[0])) for state in states]

    assert work() == [("Completed", 2), ("Completed", 4)]
    assert work() == [("Cached", 2), ("Cached", 4)]
    assert len(tally) == 2


def test_a_hit_reads_the_payload_once_and_the_metadata_at_most_twice(store, reads) -> None:
    @task(cache_policy=store.policy())
    def make() -> np.ndarray:
        return np.random.default_rng(1).random(100_000)

    @flow
    def work() -> str:
        return make(return_state=True).name

    assert work() == "Completed"
    reads.clear()
    assert work() == "Cached"
    assert reads["read"] == 1
    assert sum(reads.values()) - reads["read"] <= 2


async def _run_async(store) -> list[str]:
    @task(cache_policy=store.policy())
    async def make(x: int) -> np.ndarray:
        return np.full(100_000, x)

    @flow
    async def work() -> list[str]:
        return [(await make(x, return_state=True)).name for x in (1, 2)]

    return [*(await work()), *(await work())]


def test_async_tasks_are_cached_and_read_as_sparingly(store, reads) -> None:
    import asyncio

    assert asyncio.run(_run_async(store)) == ["Completed", "Completed", "Cached", "Cached"]
    assert reads["read"] == 0, "so regular an array compresses into the row"
    assert sum(reads.values()) <= 2 * 4 + 2


def test_stored_bytes_are_hardly_more_than_the_pickle(store) -> None:
    value = {"noise": np.random.default_rng(1).bytes(3_000_000), "array": np.random.default_rng(2).random(100_000)}

    @task(cache_policy=store.policy())
    def make() -> dict[str, Any]:
        return value

    @flow
    def work() -> None:
        make()

    work()
    assert store.open().stats()["bytes"] <= 1.01 * len(pickle.dumps(value, protocol=5))
    assert store.open().stats()["entries"] == 1


def test_an_array_is_stored_as_an_array_and_the_core_reads_it_by_its_key(store) -> None:
    @task(cache_policy=store.policy())
    def make() -> np.ndarray:
        return np.random.default_rng(1).random(10_000)

    @flow
    def work() -> str:
        return make(return_state=True).data.metadata.storage_key

    key = work()
    hit = store.open().lookup(key)
    assert hit.entry.codec == "numpy"
    assert hit.entry.function.endswith("make")
    assert hit.value.shape == (10_000,)


def test_none_is_a_result_like_any_other(store, tally) -> None:
    @task(cache_policy=store.policy())
    def nothing() -> None:
        tally.add()

    @flow
    def work() -> None:
        assert nothing() is None

    work()
    work()
    assert len(tally) == 1


@pytest.mark.parametrize("serializer", ["cacheness", "cacheness/text", "json", "pickle", "compressed/pickle"])
def test_any_serializer_works_with_the_policy(store, tally, serializer: str) -> None:
    @task(cache_policy=store.policy(), result_serializer=serializer)
    def make() -> dict[str, list[int]]:
        tally.add()
        return {"a": [1, 2, 3]}

    @flow
    def work() -> Any:
        state = make(return_state=True)
        return state.name, state.result()

    assert work() == ("Completed", {"a": [1, 2, 3]})
    assert work() == ("Cached", {"a": [1, 2, 3]})
    assert len(tally) == 1


def test_text_works_without_key_storage_and_binary_with_it(store, tally) -> None:
    options: dict[str, Any] = {"result_storage": store, "persist_result": True}

    @task(cache_policy=INPUTS, result_serializer="cacheness/text", **options)
    def as_text(x: int) -> int:
        tally.add()
        return x

    @task(cache_policy=INPUTS.configure(key_storage=store.key_storage()), result_serializer="cacheness", **options)
    def as_bytes(x: int) -> int:
        tally.add()
        return x

    @flow
    def work() -> list[str]:
        return [as_text(1, return_state=True).name, as_bytes(2, return_state=True).name]

    assert work() == ["Completed", "Completed"]
    assert work() == ["Cached", "Cached"]
    assert len(tally) == 2


@pytest.mark.parametrize("serializer", [CachenessSerializer(), CachenessTextSerializer()])
def test_serializers_round_trip_and_refuse_what_they_did_not_write(serializer) -> None:
    value = {"array": np.arange(1000.0), "text": "ä", "nested": [None, {1: (2, b"3")}]}
    back = serializer.loads(serializer.dumps(value))
    assert back["nested"] == value["nested"]
    assert np.array_equal(back["array"], value["array"])
    back["array"][0] = 5  # writable
    for damaged in (b"", b"cacheness", serializer.dumps(value)[:-7]):
        with pytest.raises(ValueError, match=r"cacheness serializer|base64|padding"):
            serializer.loads(damaged)


def test_the_storage_keeps_plain_bytes_for_anyone(store) -> None:
    store.write_path("reports/today.txt", b"all is well")
    assert store.read_path("reports/today.txt") == b"all is well"
    with pytest.raises(FileNotFoundError, match=r"reports/yesterday\.txt"):
        store.read_path("reports/yesterday.txt")


def test_a_result_store_works_with_storage_and_keys_directly(store) -> None:
    results = ResultStore(result_storage=store, metadata_storage=store.key_storage(), serializer=CachenessSerializer())
    results.write({"x": 1}, key="by-hand")
    assert results.exists("by-hand")
    assert results.read("by-hand").result == {"x": 1}
    assert not results.exists("never")


FRESH = """
import sys, asyncio, uuid
from prefect.client.orchestration import get_client
from prefect.plugins import load_prefect_collections
load_prefect_collections()
with get_client(sync_client=True) as client:
    run = client.read_task_run(uuid.UUID(sys.argv[1]))
print(run.state.data.storage_block_id, asyncio.run(run.state.aresult()).sum())
"""


def test_a_result_can_be_read_in_a_fresh_process_by_its_state(store) -> None:
    @task(cache_policy=store.policy())
    def make() -> np.ndarray:
        return np.arange(5)

    @flow
    def work() -> str:
        return str(make(return_state=True).state_details.task_run_id)

    run = work()
    for _ in range(5):  # task runs reach the server a moment later
        found = subprocess.run([sys.executable, "-c", FRESH, run], text=True, capture_output=True, check=False)
        if found.returncode == 0:
            break
    assert found.stdout.split() == [str(store._block_document_id), "10"], found.stderr
