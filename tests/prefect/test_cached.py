"""A result is computed once, in one entry, and read once."""

from __future__ import annotations

import asyncio
import functools
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import prefect
import pytest
from prefect import flow, task
from prefect.cache_policies import INPUTS
from prefect.results import ResultStore
from prefect.states import Completed

from cacheness.blobs.object_store import ObjectStore
from cacheness.deadlines import Limits
from cacheness.testing.proxy import Proxy
from cacheness_prefect import CachenessSerializer, CachenessStorage, CachenessTextSerializer
from tests.conftest import SIGNING_KEY
from tests.prefect.conftest import RUNNERS


class Asked:
    """Proxies before a database and a bucket: count what processes ask of the stores, whichever they are."""

    def __init__(self, emptied_url: str, s3_url: str) -> None:
        self.database, self.bucket = Proxy.before(emptied_url), Proxy.before(s3_url)

    def forget(self) -> None:
        self.database.requests.clear()
        self.bucket.requests.clear()

    def payload_reads(self, keys: set[str]) -> int:
        gets = [request for request in self.bucket.requests if request.startswith(b"GET /")]
        return sum(key.encode() in request for request in gets for key in keys)

    def metadata_reads(self, keys: set[str]) -> int:
        """Statements about entries, without those by which a process opens the store."""
        # A statement comes whole, parsed under no name (its length is before that); or prepared, to be bound.
        named = [name for key in keys for name in (key.encode(), bytes.fromhex(key))]
        sent = self.database.requests
        whole = [block for block in sent if block[:1] == b"P" and block[5:6] == b"\0" and b"entries" in block]
        bound = [block for block in sent if block[:1] == b"B" and any(name in block for name in named)]
        return len(whole) + len(bound)


def test_a_reference_is_one_for_a_task_and_no_result_holds_one(store: CachenessStorage) -> None:
    source = store.open().cached(lambda n: [n])

    @task(cache_policy=store.policy())
    def kind(x: Any) -> str:
        return type(x[0] if isinstance(x, tuple) else x).__name__

    @task(cache_policy=store.policy())
    def lazily(n: int) -> Any:
        return source.lazy(n)

    @flow
    def work() -> Any:
        ref = source.lazy(3)
        return [kind(ref), kind([3]), kind((ref,)), kind(([3],)), *(type(lazily(n)).__name__ for n in (1, 1))]

    assert work() == ["Ref", "list", "Ref", "list", "Ref", "Ref"]


@pytest.fixture
def asked(emptied_url, s3_url) -> Iterator[Asked]:
    asked = Asked(emptied_url, s3_url)
    yield asked
    asked.database.close()
    asked.bucket.close()


@pytest.fixture
def shared_store(asked, make_store) -> CachenessStorage:
    return make_store(metadata_backend=asked.database.url, blob_store=asked.bucket.url, signing_key=SIGNING_KEY)


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


class Noise:
    """An incompressible value that a worker process answers for with a number."""

    def __init__(self, seed: int) -> None:
        self.array = np.random.default_rng(seed).random(100_000)

    def __float__(self) -> float:
        return float(self.array[0])


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_hit_reads_the_payload_once_and_the_metadata_at_most_twice(shared_store, asked, runner, kind: str) -> None:
    policy = shared_store.policy(version="1")

    @task(cache_policy=policy, cache_result_in_memory=False)
    def make(seed: int) -> Noise:
        return Noise(seed)

    @task(cache_policy=policy, cache_result_in_memory=False)
    async def amake(seed: int) -> Noise:
        return Noise(seed)

    tasks = {"sync": make, "async": amake}

    @flow(task_runner=runner)
    def work() -> list[tuple[str, str]]:
        states = [tasks[kind].submit(seed, return_state=True) for seed in (1, 2)]
        return [(state.name, state.data.metadata.storage_key) for state in states]

    keys = {key for name, key in work() if name == "Completed"}
    assert len(keys) == 2
    asked.forget()
    assert [name for name, key in work() + work() if key in keys] == ["Cached"] * 4
    assert asked.payload_reads(keys) == 4
    assert 4 <= asked.metadata_reads(keys) <= 8


def test_stored_bytes_are_hardly_more_than_the_pickle(shared_store, runner) -> None:
    @task(cache_policy=shared_store.policy(version="1"))
    def make() -> dict[str, Any]:
        return value()

    @flow(task_runner=runner)
    def work() -> None:
        make.submit().wait()

    work()
    (entry,) = shared_store.open().list_entries()
    stored = sum(
        info.size for info in ObjectStore.from_url(shared_store.blob_store.get_secret_value(), limits=Limits()).scan()
    )
    assert entry["size"] <= stored <= 1.01 * len(pickle.dumps(value(), protocol=5))


def value() -> dict[str, Any]:
    return {"noise": np.random.default_rng(1).bytes(3_000_000), "array": np.random.default_rng(2).random(100_000)}


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
    for storage in ({"metadata_storage": store.key_storage()}, {}):
        with pytest.raises(FileNotFoundError, match="no intact result") as caught:
            ResultStore(result_storage=store, **storage).read("never")
        assert isinstance(caught.value, ValueError), "as with Prefect's own local storage"


def test_one_line_turns_caching_on_for_every_task_of_a_module(store, tally) -> None:
    task = functools.partial(prefect.task, cache_policy=store.policy())

    @task
    def plain(x: int) -> int:
        tally.add()
        return x

    @task(retries=1, cache_policy=store.policy(version="1"))
    async def with_options(x: int) -> int:
        tally.add()
        return x

    @flow
    async def work() -> list[str]:
        mapped = [future.wait() or future.state.name for future in plain.map([1, 2])]
        return [*mapped, (await with_options(3, return_state=True)).name]

    assert [asyncio.run(work()) for _ in range(2)] == [["Completed"] * 3, ["Cached"] * 3]
    assert len(tally) == 3


FRESH = """
import sys, asyncio, uuid
from prefect.client.orchestration import get_client
from prefect.plugins import load_prefect_collections
load_prefect_collections()
with get_client(sync_client=True) as client:
    runs = [client.read_flow_run(uuid.UUID(id)) for id in sys.argv[1:]]
for run in runs:
    print(run.state.data.storage_block_id, asyncio.run(run.state.aresult()).sum())
"""


def test_results_of_any_runner_can_be_read_in_a_fresh_process_by_their_states(store, make_runner) -> None:
    @task(cache_policy=store.policy(version="1"))
    def make(length: int) -> np.ndarray:
        return np.arange(length)

    def run(kind: str, length: int) -> str:
        @flow(task_runner=make_runner(kind), persist_result=True)
        def work() -> Any:
            # A flow ends in the state that it returns, and the server has it at once.
            return Completed(data=make.submit(length, return_state=True).data)

        return str(work(return_state=True).state_details.flow_run_id)

    runs = [run(kind, length) for length, kind in enumerate(RUNNERS, start=4)]
    found = subprocess.run([sys.executable, "-c", FRESH, *runs], text=True, capture_output=True, check=False)
    block = str(store._block_document_id)
    assert found.stdout.splitlines() == [f"{block} 6", f"{block} 10", f"{block} 15"], found.stderr
