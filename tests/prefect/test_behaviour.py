"""Policies, blocks and results behave as Prefect's documentation leads one to expect."""

from __future__ import annotations

import asyncio
import copy
import pickle
import time
from datetime import timedelta
from typing import Any

import cloudpickle
import numpy as np
import pytest
from prefect import flow, task
from prefect.cache_policies import INPUTS, NO_CACHE, TASK_SOURCE
from prefect.results import ResultStore
from prefect.settings import PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK, temporary_settings
from prefect.states import Completed, Failed
from prefect.transactions import CommitMode, transaction

from cacheness_prefect import CachenessStorage, cacheness_key


def names(*states: Any) -> list[str]:
    return [state.name for state in states]


# where it is configured


def test_flow_level_storage_and_the_default_block_cache_in_worker_processes(store, runner, tally) -> None:
    @task(cache_policy=INPUTS, persist_result=True)
    def plain(x: int) -> int:
        tally.add()
        return x

    @flow(task_runner=runner, result_storage=store, persist_result=True)
    def by_flow() -> list[Any]:
        return [plain.submit(1, return_state=True) for _ in range(2)]

    @flow(task_runner=runner, persist_result=True)
    def by_default() -> list[Any]:
        return [plain.submit(1, return_state=True) for _ in range(2)]

    first = by_flow(return_state=True)
    states = first.result()
    assert names(*states) == ["Completed", "Cached"]
    with temporary_settings({PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK: f"cacheness-storage/{store.saved_as}"}):
        states += by_default()
    assert names(*states) == ["Completed", "Cached", "Cached", "Cached"]
    assert len(tally) == 1
    assert {state.data.metadata.storage_block_id for state in states} == {store._block_document_id}
    assert first.data.metadata.storage_block_id == store._block_document_id


def test_a_block_keeps_its_identity_on_its_way_to_another_process(store) -> None:
    results = ResultStore(result_storage=store, metadata_storage=store.key_storage())
    dumped = results.model_dump(serialize_as_any=True, exclude_unset=True, context={"include_secrets": True})
    there = ResultStore(**dumped)
    assert there.result_storage_block_id == store._block_document_id
    assert there.result_storage == store
    assert there.metadata_storage == store.key_storage()
    assert pickle.loads(cloudpickle.dumps(store)) == copy.deepcopy(store) == store
    loaded = CachenessStorage.load(store.saved_as)
    assert loaded.config() == store.config()


def test_secrets_do_not_show(store) -> None:
    block = CachenessStorage(metadata_backend="postgresql://user:secret@host/db", signing_key="secret")
    assert "secret" not in repr(block)
    assert "secret" not in block.model_dump_json()
    assert block.config().metadata_backend == "postgresql://user:secret@host/db"


# policies


def test_a_policy_survives_travel_configuration_and_use(store) -> None:
    policy = store.policy(version="1", tags=["a"], ignore=["x"])

    @task(cache_policy=policy)
    def make(x: int) -> int:
        return x

    @flow
    def work() -> None:
        make(1)

    work()
    assert pickle.loads(cloudpickle.dumps(policy)) == policy
    assert copy.deepcopy(policy) == policy
    again = policy.configure(key_storage=store.key_storage()).configure(lock_manager=policy.lock_manager)
    assert again == policy
    assert pickle.loads(cloudpickle.dumps(make)).cache_policy == policy


def test_policies_compose(store, tally) -> None:
    policy = store.policy()
    made: dict[str, Any] = {
        "alone": policy,
        "minus": policy - "noise",
        "plus": policy + INPUTS,
        "under": INPUTS + policy,
        "plus minus": (policy + INPUTS) - "noise",
        "source": policy + TASK_SOURCE,
        "nothing": policy + NO_CACHE,
    }

    def make_task(made_of: Any) -> Any:
        @task(cache_policy=made_of)
        def make(x: int, noise: int) -> int:
            tally.add()
            return x

        return make

    tasks = {name: make_task(made_of) for name, made_of in made.items()}

    @flow
    def work() -> dict[str, list[str]]:
        return {
            name: names(*[make(x, noise=n, return_state=True) for x, n in [(1, 1), (1, 1), (1, 2), (2, 1)]])
            for name, make in tasks.items()
        }

    found = work()
    computed, cached = "Completed", "Cached"
    # The same code and arguments: the first of these tasks computes for the others.
    assert found.pop("alone") == [computed, cached, computed, computed]
    assert found.pop("nothing") == [cached] * 4
    assert found.pop("under") == [cached] * 4, "the order does not matter"
    for name, states in found.items():
        assert states == [computed, cached, cached if "minus" in name else computed, computed], name


def test_a_cache_key_function_makes_the_same_keys(store, tally) -> None:
    @task(cache_key_fn=cacheness_key, result_storage=store, result_serializer="cacheness/text")
    def make(x: set[str]) -> int:
        tally.add()
        return len(x)

    @flow
    def work() -> list[str]:
        states = [make({"a", "b"}, return_state=True) for _ in range(2)]
        return [*names(*states), states[0].data.metadata.storage_key]

    *found, key = work()
    assert found == ["Completed", "Cached"]
    assert key == store.policy().key(make, {"x": {"a", "b"}}).digest.hex()


def test_refresh_and_expiration(store, tally) -> None:
    @task(cache_policy=store.policy(), cache_expiration=timedelta(seconds=3))
    def make(x: int) -> int:
        tally.add()
        return x

    @flow
    def work(refresh: bool = False) -> list[str]:
        chosen = make.with_options(refresh_cache=True) if refresh else make
        return names(chosen(1, return_state=True), chosen(1, return_state=True))

    assert work() == ["Completed", "Cached"]
    (entry,) = store.open().list_entries(prefix="prefect")
    lifetime = entry["expires_at"] - entry["created_at"]
    assert timedelta(seconds=2) < lifetime <= timedelta(seconds=3)
    assert work(refresh=True) == ["Completed", "Completed"]
    time.sleep(3)
    assert work() == ["Completed", "Cached"]


# kinds of tasks


def test_mapped_tasks_subflows_states_and_generators(store, tally) -> None:
    policy = store.policy()

    @task(cache_policy=policy)
    def double(x: int) -> int:
        tally.add("double")
        return 2 * x

    @task(cache_policy=policy)
    def returns_a_state(x: int) -> Any:
        tally.add("state")
        return Completed(data=x)

    @task(cache_policy=policy)
    def fails(x: int) -> Any:
        tally.add("fail")
        return Failed(message="no")

    @task(cache_policy=policy)
    def counts(n: int) -> Any:
        tally.add("generator")
        yield from range(n)

    @flow
    def below() -> int:
        return double(21)

    @flow
    def work() -> Any:
        results = [
            sum(f.result() for f in double.map([1, 2, 3])),
            below(),
            returns_a_state(5, return_state=True).result(),
        ]
        return [*results, list(counts(3)), fails(1, return_state=True).name]

    for _ in range(2):
        assert work() == [12, 42, 5, [0, 1, 2], "Failed"]
    words = tally.path.read_text().split()
    assert words.count("double") == 4
    assert words.count("state") == 1
    assert words.count("fail") == 2, "what failed is not a result"
    assert words.count("generator") == 2, "Prefect runs generators always"


def test_failed_runs_and_runs_without_a_key_expire(make_store) -> None:
    store = make_store(result_ttl=100)

    @task(cache_policy=store.policy())
    def fail() -> None:
        raise ValueError("no")

    @task(cache_policy=INPUTS, result_storage=store)
    def plain(x: int) -> int:
        return x

    @flow(result_storage=store, persist_result=True)
    def work() -> int:
        fail(return_state=True)
        return plain(1)

    work()
    lifetimes = [entry["expires_at"] - entry["created_at"] for entry in store.open().list_entries()]
    assert len(lifetimes) == 3
    assert set(lifetimes) == {timedelta(seconds=100)}


# transactions


def test_a_transaction_that_rolls_back_stores_nothing(store, tally) -> None:
    undone = []

    @task(cache_policy=store.policy())
    def make(x: int) -> int:
        tally.add()
        return x

    @make.on_rollback
    def undo(txn: Any) -> None:
        undone.append(txn.key)

    @flow
    def work(fail: bool) -> list[str]:
        with transaction():
            found = names(make(1, return_state=True))
            if fail:
                raise ValueError("fail")
        return found

    with pytest.raises(ValueError, match="fail"):
        work(fail=True)
    assert len(undone) == 1
    assert store.open().stats()["entries"] == 0
    assert work(fail=False) == ["Completed"]
    assert work(fail=False) == ["Cached"]


@pytest.mark.parametrize("mode", [CommitMode.LAZY, CommitMode.EAGER])
@pytest.mark.parametrize("serializer", ["cacheness", "pickle"])
def test_what_changes_after_a_task_returned_it_is_stored_as_it_was(store, mode, serializer) -> None:
    @task(cache_policy=store.policy(), result_serializer=serializer)
    def make() -> dict[str, Any]:
        return {"list": [1], "array": np.zeros(3)}

    @task(cache_policy=store.policy())
    def parent() -> str:
        inner = make()
        inner["list"].append(2)
        inner["array"][0] = 5
        return "done"

    @flow
    def work() -> None:
        with transaction(commit_mode=mode):
            value = make()
            value["list"].append(2)
            value["array"][0] = 5

    @flow
    def look() -> Any:
        state = make(return_state=True)
        return state.name, state.result()["list"], state.result()["array"][0]

    work()
    assert look() == ("Cached", [1], 0.0)
    store.open().clear()

    @flow
    def nested() -> None:
        parent()

    nested()
    assert look() == ("Cached", [1], 0.0)


# async


def test_async_flows_wait_for_one_execution_without_stopping_the_loop(store, tally) -> None:
    @task(cache_policy=store.policy())
    async def slow(x: int) -> int:
        tally.add()
        await asyncio.sleep(0.5)
        return x

    @flow
    async def work() -> tuple[list[int], int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.create_task(tick())
        results = await asyncio.gather(*[slow(1) for _ in range(4)])
        ticking.cancel()
        return results, ticks

    results, ticks = asyncio.run(work())
    assert results == [1] * 4
    assert len(tally) == 1
    assert ticks > 10


# finding and removing


def test_results_are_found_and_invalidated_by_who_made_them(store, tally) -> None:
    @task(cache_policy=store.policy(tags=["prices"]), tags=["nightly"])
    def one(x: int) -> int:
        return x

    @task(cache_policy=store.policy())
    def two(x: int) -> int:
        return x

    @flow(name="first flow")
    def first(day: str) -> str:
        one(1)
        return two(1, return_state=True).data.metadata.storage_key

    @flow(name="second flow")
    def second() -> None:
        one(2)
        two(2)

    def fill() -> str:
        key = first("monday")
        second()
        assert store.open().stats()["entries"] == 4
        return key

    key = fill()
    (entry,) = [e for e in store.open().list_entries(tag="task:one") if "flow:first flow" in e["tags"]]
    made = entry["provenance"]["prefect"]
    assert (made["flow"], made["task"], made["parameters"]) == ("first flow", "one", {"day": "'monday'"})
    assert {"prices", "nightly", f"flow_run:{made['flow_run_id']}"} <= set(entry["tags"])
    assert entry["args"]["x"] == 1

    assert store.invalidate(key=key) == 1
    assert store.invalidate(task=one, flow="first flow") == 1
    assert store.invalidate(tag="prices") == 1
    assert store.invalidate(flow=second) == 1
    fill()
    assert store.invalidate(older_than=timedelta(hours=1)) == 0
    assert store.invalidate(older_than=0) == 4
    with pytest.raises(TypeError, match="needs a key, task"):
        store.invalidate()


def test_a_miss_is_explained(store) -> None:
    @task(cache_policy=store.policy(ignore=["noise"]))
    def make(x: int, *, threshold: float = 0.5, noise: int = 0) -> int:
        return x

    @flow
    def work() -> None:
        make(1, noise=5)

    assert "no earlier entry" in str(store.explain(make, 1))
    work()
    assert store.explain(make, 1).hit
    explained = store.explain(make, 1, threshold=0.6)
    assert not explained.hit
    assert "threshold" in str(explained)
    with pytest.raises(TypeError, match="is not made by a CachenessPolicy"):
        store.explain(task(cache_policy=INPUTS)(lambda x: x), 1)
