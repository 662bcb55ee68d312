"""Policies, blocks and results behave as Prefect's documentation leads one to expect."""

from __future__ import annotations

import asyncio
import copy
import pickle
import time
import tomllib
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
from prefect import flow, task
from prefect.cache_policies import INPUTS, NO_CACHE, TASK_SOURCE
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from prefect.results import ResultStore
from prefect.settings import PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK, temporary_settings
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.transactions import CommitMode, transaction
from pydantic.json_schema import GenerateJsonSchema

from cacheness.blobs.object_store import ObjectStore
from cacheness.deadlines import Limits
from cacheness.results.signing_keys import new_private_key, public_keys_of
from cacheness_prefect import CachenessStorage, cacheness_key, integrity_repair
from tests.conftest import SIGNING_KEY

ROOT = Path(__file__).parents[2]


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


def test_a_block_on_its_way_to_another_process_makes_no_schema_again(store, monkeypatch: pytest.MonkeyPatch) -> None:
    results = ResultStore(result_storage=store, metadata_storage=store.key_storage())
    schema = store.model_json_schema()
    schema.clear()  # whose it is

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the schema was made once more")

    monkeypatch.setattr(GenerateJsonSchema, "generate", refuse)
    dumped = results.model_dump(serialize_as_any=True, context={"include_secrets": True})
    assert dumped["result_storage"]["cache_dir"] == store.cache_dir
    assert store.model_json_schema()["secret_fields"] == ["metadata_backend", "blob_store", "signing_key"]


def test_a_block_that_only_reads_hands_on_no_private_key(make_store) -> None:
    shared = {"metadata_backend": "postgresql://user@host/db", "blob_store": "s3://bucket"}
    private = new_private_key("ci")
    seed = private.rpartition(":")[2]
    writing, reading = (make_store(signing_key=private, mode=mode, **shared) for mode in ("readwrite", "read"))
    assert pickle.loads(cloudpickle.dumps(writing)).config() == writing.config()
    there = pickle.loads(cloudpickle.dumps(reading))
    assert seed not in str(there.model_dump(mode="json")) + str(there.config().signing_key)
    assert seed.encode() not in cloudpickle.dumps(reading)
    assert there.config().trust == public_keys_of(private)[0]
    assert reading.config().signing_key == private


def test_secrets_do_not_show(store) -> None:
    secrets = {"metadata_backend": "postgresql://user:secret@host/db", "signing_key": "a secret of some length"}
    block = CachenessStorage(**secrets, blob_store="s3://bucket")
    assert "secret" not in repr(block)
    assert "secret" not in block.model_dump_json()
    assert block.config().metadata_backend == "postgresql://user:secret@host/db"


def test_the_form_of_a_block_leads_to_no_page_of_others() -> None:
    assert "urls" not in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert CachenessStorage._to_block_type().documentation_url is None


# policies


def test_a_policy_survives_travel_configuration_and_use(store, runner) -> None:
    policy = store.policy(version="1", tags=["a"], ignore=["x"])

    @task(cache_policy=policy)
    def make(x: int) -> int:
        return x

    @flow(task_runner=runner)
    def work(*tasks: Any) -> list[str]:
        return names(*[each.submit(1, return_state=True) for each in tasks])

    assert work(make) == ["Completed"]
    again = policy.configure(key_storage=store.key_storage()).configure(lock_manager=policy.lock_manager)
    travelled = [pickle.loads(cloudpickle.dumps(policy)), copy.deepcopy(policy), copy.deepcopy(again)]
    assert travelled == [policy] * 3
    assert pickle.loads(cloudpickle.dumps(make)).cache_policy == policy
    parts = [pickle.loads(cloudpickle.dumps(part)) == part for part in (store, policy.lock_manager, policy.key_storage)]
    assert all(parts)
    assert work(*[make.with_options(cache_policy=each) for each in travelled]) == ["Cached"] * 3


def test_policies_compose(store, runner, tally) -> None:
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

    @flow(task_runner=runner)
    def work() -> dict[str, list[str]]:
        def run(make: Any) -> list[str]:
            return names(*[make.submit(x, noise=n, return_state=True) for x, n in [(1, 1), (1, 1), (1, 2), (2, 1)]])

        return {name: run(make) for name, make in tasks.items()}

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


def test_refresh_and_expiration(store, runner) -> None:
    @task(cache_policy=store.policy(), cache_expiration=timedelta(hours=1))
    def make(x: int) -> int:
        return x

    refreshed = make.with_options(refresh_cache=True)
    brief = make.with_options(cache_expiration=timedelta(seconds=0.5))

    @flow(task_runner=runner)
    def work() -> list[str]:
        found = names(*[each.submit(1, return_state=True) for each in (make, make, refreshed, make)])
        found.append(brief.submit(2, return_state=True).name)
        time.sleep(0.6)
        return [*found, brief.submit(2, return_state=True).name]

    assert work() == ["Completed", "Cached", "Completed", "Cached", "Completed", "Completed"]
    lifetimes = [entry["expires_at"] - entry["created_at"] for entry in store.open().list_entries()]
    assert timedelta(minutes=59) < max(lifetimes) <= timedelta(hours=1)


# kinds of tasks


def test_mapped_tasks_subflows_states_and_generators(store, runner, tally) -> None:
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

    @flow(task_runner=runner)
    def below() -> int:
        return double.submit(21).result()

    @flow(task_runner=runner)
    def work() -> Any:
        results = [
            sum(f.result() for f in double.map([1, 2, 3])),
            below(),
            returns_a_state.submit(5, return_state=True).result(),
        ]
        return [*results, list(counts(3)), fails.submit(1, return_state=True).name]

    for _ in range(2):
        assert work() == [12, 42, 5, [0, 1, 2], "Failed"]
    words = tally.words()
    assert words.count("double") == 4
    assert words.count("state") == 1
    assert words.count("fail") == 2, "what failed is not a result"
    assert words.count("generator") == 2, "Prefect runs generators always"


def test_failed_runs_and_runs_without_a_key_expire_from_database_and_bucket(
    make_store, runner, emptied_url, s3_url
) -> None:
    store = make_store(
        metadata_backend=emptied_url, blob_store=s3_url, signing_key=SIGNING_KEY, inline_max_bytes=0, result_ttl=600
    )

    @task(cache_policy=store.policy())
    def fail() -> None:
        raise ValueError("no")

    @task(cache_policy=store.policy())
    def keep() -> int:
        return 1

    @task(cache_policy=INPUTS, result_storage=store, persist_result=True)
    def without_a_policy_of_ours(x: int) -> int:
        return 1

    @flow(task_runner=runner, result_storage=store, persist_result=True)
    def work() -> int:
        fail.submit(return_state=True)
        return keep.submit().result() + without_a_policy_of_ours.submit(1).result()

    work()
    blobs = ObjectStore.from_url(s3_url, limits=Limits())

    def stored() -> int:
        return sum(info.name.count(".") == 2 for info in blobs.scan())

    assert stored() == 4
    cache = store.open()
    passing = [entry["cache_key"] for entry in cache.list_entries() if entry["expires_at"] is not None]
    assert all(cache.touch(key, ttl=0.01) for key in passing)
    time.sleep(0.1)
    # What the repair flow deletes depends on no runner, and its look at 256 shards of a bucket takes seconds.
    once = isinstance(runner, ThreadPoolTaskRunner)
    assert (integrity_repair(store, "repair", tasks=1)["expired"] if once else cache.evict()) == 3
    assert stored() == 1
    (entry,) = store.open().list_entries()
    assert (entry["provenance"]["prefect"]["task"], entry["expires_at"]) == ("keep", None)
    blobs.close()


# transactions


def test_a_transaction_that_rolls_back_stores_nothing(store, runner, tally) -> None:
    @task(cache_policy=store.policy())
    def make(x: int) -> int:
        tally.add()
        return x

    @make.on_rollback
    def undo(txn: Any) -> None:
        tally.add("undone")

    @task(persist_result=False)
    def both(fail: bool) -> list[str]:
        with transaction():
            found = names(make(1, return_state=True))
            if fail:
                raise ValueError("fail")
        return found

    @flow(task_runner=runner)
    def work(fail: bool) -> list[str]:
        return both.submit(fail).result()

    with pytest.raises(ValueError, match="fail"):
        work(fail=True)
    assert tally.words() == ["run", "undone"]
    assert store.open().stats()["entries"] == 0
    assert work(fail=False) == ["Completed"]
    assert work(fail=False) == ["Cached"]
    assert tally.words() == ["run", "undone", "run"]


@pytest.mark.parametrize("serializer", ["cacheness", "pickle"])
def test_what_changes_after_a_task_returned_it_is_stored_as_it_was(store, runner, serializer) -> None:
    @task(cache_policy=store.policy(), result_serializer=serializer)
    def make(x: int) -> dict[str, Any]:
        return {"list": [x], "array": np.zeros(3)}

    def change(value: dict[str, Any]) -> None:
        value["list"].append(2)
        value["array"][0] = 5

    @task(persist_result=False)
    def in_a_transaction(x: int, mode: CommitMode) -> None:
        with transaction(commit_mode=mode):
            change(make(x))

    @task(cache_policy=store.policy())
    def in_the_transaction_of_a_task(x: int) -> str:
        change(make(x))
        return "done"

    @flow(task_runner=runner)
    def work() -> None:
        futures = [in_a_transaction.submit(1, CommitMode.LAZY), in_a_transaction.submit(2, CommitMode.EAGER)]
        for future in [*futures, in_the_transaction_of_a_task.submit(3)]:
            future.result()

    @flow(task_runner=runner)
    def look() -> list[Any]:
        states = [make.submit(x, return_state=True) for x in (1, 2, 3)]
        return [(state.name, state.result()["list"], float(state.result()["array"][0])) for state in states]

    work()
    assert look() == [("Cached", [x], 0.0) for x in (1, 2, 3)]


def test_what_changes_in_a_transaction_of_the_flow_is_stored_as_it_was(store) -> None:
    @task(cache_policy=store.policy())
    def make() -> list[int]:
        return [1]

    @flow
    def work() -> Any:
        with transaction(commit_mode=CommitMode.LAZY):
            state = make(return_state=True)
            state.result().append(2)
        return state.name, state.result()

    assert work() == ("Completed", [1, 2])
    assert work() == ("Cached", [1, 2]), "which is the 1 that was stored, and the 2 of this run"


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


def test_async_tasks_are_cached_under_every_runner(store, runner, tally) -> None:
    @task(cache_policy=store.policy())
    async def double(x: int) -> int:
        tally.add()
        await asyncio.sleep(0)
        return 2 * x

    @flow(task_runner=runner)
    async def work() -> list[tuple[str, int]]:
        futures = double.map([1, 2])
        return [(future.wait() or future.state.name, future.result()) for future in futures]

    assert asyncio.run(work()) == [("Completed", 2), ("Completed", 4)]
    assert asyncio.run(work()) == [("Cached", 2), ("Cached", 4)]
    assert len(tally) == 2


# finding and removing


@dataclass
class Made:
    """Four results of two tasks in two flows, the first of them run by a deployment."""

    one: Any
    two: Any
    first: Any
    second: Any
    deployment: Any
    key: str = ""
    run: str = ""

    def fill(self) -> None:
        with get_client(sync_client=True) as client:
            run = client.create_flow_run_from_deployment(self.deployment, parameters={"day": "monday"})
        self.key = run_flow(self.first, flow_run=run, parameters={"day": "monday"})
        self.run = str(run.id)
        self.second()


@pytest.fixture
def made(store, runner) -> Made:
    @task(cache_policy=store.policy(tags=["prices"]), tags=["nightly"])
    def one(x: int) -> int:
        return x

    @task(cache_policy=store.policy())
    def two(x: int) -> int:
        return x

    @flow(name=f"first {store.saved_as}", task_runner=runner)
    def first(day: str) -> str:
        one.submit(1).wait()
        return two.submit(1, return_state=True).data.metadata.storage_key

    @flow(name=f"second {store.saved_as}", task_runner=runner)
    def second() -> None:
        one.submit(2).wait()
        two.submit(2).wait()

    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(client.create_flow(first), "nightly")
    made = Made(one, two, first, second, deployment)
    made.fill()
    return made


def test_results_are_found_by_who_made_them(store, made) -> None:
    def found(tag: str) -> set[tuple[str, str]]:
        about = [entry["provenance"]["prefect"] for entry in store.open().list_entries(tag=tag)]
        return {(each["flow"].partition(" ")[0], each["task"]) for each in about}

    everything = {(flow, task) for flow in ("first", "second") for task in ("one", "two")}
    assert found("prefect") == everything
    assert found("task:one") == found("prices") == found("nightly") == {("first", "one"), ("second", "one")}
    assert found(f"flow:{made.second.name}") == {("second", "one"), ("second", "two")}
    assert found(f"flow_run:{made.run}") == {("first", "one"), ("first", "two")}
    assert found(f"deployment:{made.deployment}") == {("first", "one"), ("first", "two")}

    listed = store.open().list_entries(tag=f"deployment:{made.deployment}")
    (entry,) = [entry for entry in listed if "task:one" in entry["tags"]]
    about = entry["provenance"]["prefect"]
    assert about["parameters"] == {"day": "'monday'"}
    assert (about["flow_run_id"], about["deployment_id"]) == (made.run, str(made.deployment))
    assert about["task_run"].startswith("one-")
    (by_task_run,) = store.open().list_entries(tag=f"task_run:{about['task_run_id']}")
    assert by_task_run["cache_key"] == entry["cache_key"]
    assert entry["args"]["x"] == 1


@pytest.mark.parametrize("runner", ["threads"], indirect=True)
def test_results_are_removed_by_who_made_them(store, made) -> None:
    def left() -> list[str]:
        about = [entry["provenance"]["prefect"] for entry in store.open().list_entries(prefix="prefect")]
        made.fill()
        return sorted(f"{each['flow'].partition(' ')[0]} {each['task']}" for each in about)

    assert store.invalidate(task=made.one) == 2
    assert left() == ["first two", "second two"]
    assert store.invalidate(task="two") == 2
    assert left() == ["first one", "second one"]
    assert store.invalidate(flow=made.second) == 2
    assert left() == ["first one", "first two"]
    assert store.invalidate(deployment=made.deployment) == 2
    assert left() == ["second one", "second two"]
    assert store.invalidate(deployment=f"{made.first.name}/nightly") == 2
    assert left() == ["second one", "second two"]
    assert store.invalidate(tag="prices", flow=made.first.name) == 1
    assert left() == ["first two", "second one", "second two"]
    assert store.invalidate(key=made.key) == 1
    assert left() == ["first one", "second one", "second two"]
    assert store.invalidate(older_than=timedelta(hours=1)) == 0
    assert store.invalidate(task=made.one, older_than=0) == 2
    assert left() == ["first two", "second two"]
    assert store.invalidate(older_than=0) == 4
    for wrong in ({}, {"key": made.key, "tag": "prices"}):
        with pytest.raises(TypeError, match="key"):
            store.invalidate(**wrong)


def test_a_miss_is_explained(store, runner) -> None:
    @task(cache_policy=store.policy(ignore=["noise"]))
    def make(x: int, *, threshold: float = 0.5, noise: int = 0) -> int:
        return x

    @flow(task_runner=runner)
    def work() -> None:
        make.submit(1, noise=5).wait()

    assert "no earlier entry" in str(store.explain(make, 1))
    work()
    assert store.explain(make, 1).hit
    explained = store.explain(make, 1, threshold=0.6)
    assert not explained.hit
    assert "threshold" in str(explained)
    with pytest.raises(TypeError, match="is not made by a CachenessPolicy"):
        store.explain(task(cache_policy=INPUTS)(lambda x: x), 1)
