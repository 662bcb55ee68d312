"""One computation of a key at a time; and nobody waits for himself, for the dead, or for a result that is there."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from prefect import flow, task
from prefect.context import TaskRunContext
from prefect.results import ResultStore
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.transactions import CommitMode, IsolationLevel, transaction

from cacheness.coordination.leases import ComputeLeases
from cacheness.testing.proxy import Proxy
from cacheness_prefect import CachenessLockManager
from tests.conftest import SIGNING_KEY
from tests.prefect.conftest import RUNNERS
from tests.prefect.gated import computing, let_go, make_slow, place, wait_for

ROOT = Path(__file__).parents[2]


def test_six_submissions_are_one_execution(store, runner, tally) -> None:
    @task(cache_policy=store.policy())
    def slow(x: int) -> int:
        tally.add()
        time.sleep(1)
        return x

    @flow(task_runner=runner)
    def work() -> list[int]:
        return [future.result() for future in [slow.submit(7) for _ in range(6)]]

    assert work() == [7] * 6
    assert len(tally) == 1


def test_a_nested_run_never_waits_for_the_run_that_waits_for_it(store, runner) -> None:
    policy = store.policy(code=False, ignore=["how"], wait=3600)

    @task(name="same", cache_policy=policy)
    def inner(x: int, how: str) -> int:
        return x

    @task
    def between(x: int) -> int:
        return inner(x, "")

    @task(name="same", cache_policy=policy)
    def outer(x: int, how: str) -> int:
        if how == "called":
            return inner(x, "")
        return (inner.submit(x, "") if how == "submitted" else between.submit(x)).result()

    @flow(task_runner=runner)
    def work() -> list[str]:
        futures = [outer.submit(x, how) for x, how in enumerate(["called", "submitted", "through another"])]
        return [future.wait() or future.state.name for future in futures]

    assert work() == ["Completed"] * 3
    assert work() == ["Cached"] * 3


@pytest.mark.parametrize("runner", ["threads", "dask"], indirect=True)
def test_a_nested_run_knows_who_waits_for_it_two_submissions_up(store, runner) -> None:
    policy = store.policy(code=False, wait=3600)

    @task(name="same", cache_policy=policy)
    def inner(x: int) -> int:
        return x

    @task
    def between(x: int) -> int:
        return inner.submit(x).result()

    @task(name="same", cache_policy=policy)
    def outer(x: int) -> int:
        return between.submit(x).result()

    @flow(task_runner=runner)
    def work() -> str:
        return outer.submit(1, return_state=True).name

    assert [work(), work()] == ["Completed", "Cached"]


class MeetsOthers:
    """A value that is read only when as many others are being read at the same time."""

    def __init__(self, folder: str, others: int) -> None:
        self.folder = folder
        self.others = others

    def __reduce__(self) -> Any:
        return (_meet, (self.folder, self.others))


def _meet(folder: str, others: int) -> MeetsOthers:
    # Else it is only on its way between processes, or read back by the run that stored it.
    if TaskRunContext.get() is not None and os.path.isdir(folder):
        Path(folder, uuid.uuid4().hex).touch()
        wait_for(lambda: len(os.listdir(folder)) >= others)
    return MeetsOthers(folder, others)


def test_concurrent_hits_do_not_wait_for_each_other(store, runner, tmp_path) -> None:
    count = 8 if isinstance(runner, ThreadPoolTaskRunner) else 2
    folder = tmp_path / "met"

    @task(cache_policy=store.policy(version="1"), cache_result_in_memory=False)
    def make() -> Any:
        return MeetsOthers(str(folder), count)

    @flow(task_runner=runner)
    def work(count: int) -> list[str]:
        return [future.wait() or future.state.name for future in [make.submit() for _ in range(count)]]

    assert work(1) == ["Completed"]
    folder.mkdir()
    assert work(count) == ["Cached"] * count


def test_two_runs_of_one_key_in_one_transaction_do_not_wait_for_its_end(store, tally) -> None:
    @task(cache_policy=store.policy(wait=3600))
    def make(x: int) -> int:
        tally.add()
        return x

    @flow
    def work() -> list[str]:
        with transaction(commit_mode=CommitMode.LAZY):
            return [make(1, return_state=True).name for _ in range(2)]

    assert work() == ["Completed", "Completed"]
    assert work() == ["Cached", "Cached"]


@pytest.mark.parametrize("how", ["gathered", "submitted"])
def test_runs_of_one_key_in_one_task_do_not_wait_for_its_end(store, how: str) -> None:
    policy = store.policy(version="1", wait=3600)

    @task(cache_policy=policy)
    async def later(x: int) -> int:
        await asyncio.sleep(0.05)
        return x

    @task(cache_policy=policy)
    def now(x: int) -> int:
        time.sleep(0.05)
        return x

    @task
    async def gathered() -> list[int]:
        return await asyncio.gather(*[later(1) for _ in range(3)])

    @task
    def submitted() -> list[int]:
        return [future.result() for future in [now.submit(1) for _ in range(3)]]

    @flow
    async def work() -> list[int]:
        return await gathered() if how == "gathered" else submitted()

    assert [asyncio.run(work()) for _ in range(2)] == [[1, 1, 1]] * 2
    [entry] = store.open().iter_entries()
    assert entry.function.endswith("later" if how == "gathered" else "now")


# other processes


class Shared:
    """One database, for several processes: what each asks of it goes through a proxy of its own."""

    def __init__(self, emptied_url: str, folder: Path, make_store: Callable[..., Any]) -> None:
        folder.mkdir()
        self.folder = str(folder)
        self._emptied_url = emptied_url
        self._make_store = make_store
        self._proxies: dict[str, Proxy] = {}
        self._processes: list[subprocess.Popen[str]] = []

    def fields(self, who: str) -> dict[str, Any]:
        self._proxies[who] = Proxy.before(self._emptied_url)
        return {"metadata_backend": self._proxies[who].url, "shared_path": True, "signing_key": SIGNING_KEY}

    def store(self, who: str) -> Any:
        return self._make_store(**self.fields(who))

    def until_it_waits(self, who: str) -> None:
        """Until somebody has asked for a flight again and again."""
        wait_for(lambda: sum(b"compute_leases" in request for request in list(self._proxies[who].requests)) >= 5)

    def start(self, who: str, keys: list[int], kind: str = "threads", address: str = "") -> subprocess.Popen[str]:
        told = {"fields": self.fields(who), "kind": kind, "address": address, "folder": self.folder}
        command = [sys.executable, "-m", "tests.prefect.gated", json.dumps({**told, "keys": keys, "value": who})]
        pipes: dict[str, Any] = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self._processes.append(subprocess.Popen(command, **pipes, start_new_session=True, cwd=ROOT))
        return self._processes[-1]

    def until_it_computes(self, key: int, who: str) -> int:
        """The process in which somebody computes a key."""
        here = place(self.folder, key, who)
        wait_for(here.exists)
        return int(here.read_text())

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        for proxy in self._proxies.values():
            proxy.close()


@pytest.fixture
def shared(prefect_api, emptied_url, tmp_path, make_store) -> Iterator[Shared]:
    shared = Shared(emptied_url, tmp_path / "computing", make_store)
    yield shared
    shared.close()


def result_of(process: subprocess.Popen[str]) -> list[str]:
    out, err = process.communicate(timeout=90)
    assert "RESULT" in out, err
    return out.split("RESULT ")[1].split()


def start(action: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=action)
    thread.start()
    return thread


@pytest.mark.parametrize("kind", RUNNERS)
def test_two_flows_in_two_processes_compute_a_key_once(shared, make_runner, request, kind: str) -> None:
    slow, folder = make_slow(shared.store("first"), wait=3600), shared.folder
    address = request.getfixturevalue("dask_address") if kind == "dask" else ""
    found = []

    @flow(task_runner=make_runner(kind))
    def work() -> str:
        return slow.submit(1, "first", folder).result()

    first = start(lambda: found.append(work()))
    shared.until_it_computes(1, "first")
    let_go(folder, 1, "second")
    second = shared.start("second", [1], kind, address)
    shared.until_it_waits("second")
    let_go(folder, 1, "first")
    first.join()
    assert found == ["first"]
    assert result_of(second) == ["Cached:first"]
    assert computing(folder, 1) == {"first"}


def test_waiters_of_a_killed_holder_go_on_within_its_lease(shared, make_runner) -> None:
    keys, folder = dict(enumerate(RUNNERS)), shared.folder
    holder = shared.start("dead", list(keys))
    found: dict[str, str] = {}

    def wait_and_compute(key: int, kind: str) -> Callable[[], None]:
        slow = make_slow(shared.store(kind), wait=3600)

        @flow(task_runner=make_runner(kind))
        def work() -> str:
            state = slow.submit(key, kind, folder, return_state=True)
            return f"{state.name}:{state.result()}"

        return lambda: found.update({kind: work()})

    for key, kind in keys.items():
        shared.until_it_computes(key, "dead")
        let_go(folder, key, kind)
    waiting = [start(run) for run in [wait_and_compute(key, kind) for key, kind in keys.items()]]
    for kind in RUNNERS:
        shared.until_it_waits(kind)
    os.killpg(holder.pid, signal.SIGKILL)
    killed = time.monotonic()
    for thread in waiting:
        thread.join()
    assert found == {kind: f"Completed:{kind}" for kind in RUNNERS}
    assert time.monotonic() - killed < 60, "the holder's lease was 3 seconds, and they would have waited an hour"


@pytest.mark.parametrize("kind", RUNNERS)
def test_a_late_holder_that_was_thought_dead_is_not_rolled_back(shared, make_runner, kind: str) -> None:
    folder, found = shared.folder, []

    def run(who: str, runner: Any) -> str:
        slow = make_slow(shared.store(who), lease=3.0)
        slow.on_rollback(lambda _: place(folder, 1, "rolled back").touch())

        @flow(task_runner=runner)
        def work() -> str:
            state = slow.submit(1, who, folder, return_state=True)
            return f"{state.name}:{state.result()}"

        return work()

    if kind == "threads":
        process = shared.start("late", [1])
        late = start(lambda: found.extend(result_of(process)))
    else:
        runner = make_runner(kind)
        late = start(lambda: found.append(run("late", runner)))
    pid = shared.until_it_computes(1, "late")
    let_go(folder, 1, "second")
    os.kill(pid, signal.SIGSTOP)
    try:
        assert run("second", ThreadPoolTaskRunner()) == "Completed:second"
    finally:
        os.kill(pid, signal.SIGCONT)
        let_go(folder, 1, "late")
        late.join()
    assert found == ["Completed:late"], "its own run keeps what it computed"
    assert run("third", ThreadPoolTaskRunner()) in ("Cached:second", "Cached:late")
    assert not place(folder, 1, "rolled back").exists()


def test_a_run_that_failed_lets_others_in_before_it_tries_again(store, runner, tally) -> None:
    @task(cache_policy=store.policy(version="1", wait=3600), retries=1, retry_delay_seconds=0.5)
    def flaky(x: int) -> int:
        tally.add()
        if len(tally) == 1:
            raise ConnectionError("the first time always")
        return x

    @flow(task_runner=runner)
    def work() -> list[tuple[str, int]]:
        futures = [flaky.submit(1) for _ in range(2)]
        return sorted((future.wait() or future.state.name, future.result()) for future in futures)

    assert work() == [("Cached", 1), ("Completed", 1)]
    assert len(tally) == 2
    assert work() == [("Cached", 1), ("Cached", 1)]


# the lock manager itself


def test_the_lock_manager_is_configuration_and_holds_locks_elsewhere(store) -> None:
    locks = CachenessLockManager(store, wait=1, lease=5)
    assert locks.acquire_lock("a key", "me")
    twins = [pickle.loads(cloudpickle.dumps(locks)), copy.deepcopy(locks)]
    for twin in twins:
        assert twin == locks
        assert twin.is_locked("a key")
        assert twin.is_lock_holder("a key", "me")
        assert not twin.is_lock_holder("a key", "you")
        assert not twin.acquire_lock("a key", "you", acquire_timeout=0.1)
        assert not twin.wait_for_lock("a key", timeout=0.1)
    locks.release_lock("a key", "me")
    assert locks.wait_for_lock("a key", timeout=1)
    assert not locks.is_lock_holder("a key", "me")
    assert locks != CachenessLockManager(store, wait=2, lease=5)


def test_a_wait_that_is_over_means_computing_unlocked(store, tally) -> None:
    locks = CachenessLockManager(store)

    @task(cache_policy=store.policy(wait=0.3))
    def make() -> int:
        tally.add()
        return 1

    @flow
    def work() -> str:
        return make(return_state=True).name

    key = store.policy().key(make, {}).digest.hex()
    assert locks.acquire_lock(key, "somebody else")
    assert work() == "Completed"
    assert len(tally) == 1
    locks.release_lock(key, "somebody else")
    assert work() == "Cached"


def test_a_claim_ends_when_it_has_been_held_for_long_enough(store) -> None:
    locks = CachenessLockManager(store)
    assert locks.acquire_lock("a key", "me", hold_timeout=0.2)
    assert not locks.acquire_lock("a key", "you", acquire_timeout=0)
    assert locks.wait_for_lock("a key", timeout=30)
    assert not locks.is_lock_holder("a key", "me")
    assert locks.acquire_lock("a key", "you", acquire_timeout=30)


def test_a_holder_whose_lease_ran_out_may_write_whatever_others_did(store) -> None:
    locks, key = CachenessLockManager(store), 64 * "a"
    assert locks.acquire_lock(key, "me")
    with closing(sqlite3.connect(Path(store.cache_dir, "metadata.sqlite"))) as connection, connection:
        assert connection.execute("DELETE FROM compute_leases").rowcount == 1
    assert locks.is_locked(key)
    assert locks.is_lock_holder(key, "me")
    store.open().put("another's result", key)
    assert locks.is_lock_holder(key, "me")
    assert not locks.is_lock_holder(key, "you")
    locks.release_lock(key, "me")
    assert not locks.is_lock_holder(key, "me")
    assert not locks.is_locked(key)


def test_async_runs_that_wait_hold_nothing_that_others_need(store, tally) -> None:
    @task(cache_policy=store.policy(version="1", wait=20))
    async def slow(x: int) -> int:
        tally.add()
        await asyncio.sleep(0.2)
        return x

    @flow
    async def work() -> list[int]:
        # More of each kind than an event loop has threads.
        return await asyncio.gather(*[slow(x) for _ in range(40) for x in (1, 2)])

    assert asyncio.run(work()) == 40 * [1, 2]
    assert len(tally) == 2


def test_a_waiter_that_is_cancelled_leaves_its_place_in_line(store) -> None:
    locks = CachenessLockManager(store)

    async def work() -> None:
        assert await locks.aacquire_lock("a key", "first")
        second, third = (asyncio.create_task(locks.aacquire_lock("a key", who)) for who in ("second", "third"))
        await asyncio.sleep(0.1)
        second.cancel()
        await asyncio.wait([second])
        locks.release_lock("a key", "first")
        assert await third
        assert not locks.is_lock_holder("a key", "second")
        locks.release_lock("a key", "third")
        assert not locks.is_locked("a key")

    asyncio.run(work())


def test_a_result_that_arrives_between_look_and_claim_ends_the_claim(store, monkeypatch) -> None:
    locks, key, flights = CachenessLockManager(store), 64 * "b", store.open().compute_leases

    def acquire(*arguments: Any, **options: Any) -> bool:
        store.open().put("another's", key)
        return ComputeLeases.acquire(flights, *arguments, **options)

    monkeypatch.setattr(flights, "acquire", acquire)
    assert locks.acquire_lock(key, "me")
    assert locks.is_lock_holder(key, "me")
    assert not locks.is_locked(key)
    assert locks.wait_for_lock(key, timeout=0)


def test_a_holder_reads_and_writes_again_after_its_first_write(store) -> None:
    results = ResultStore(result_storage=store, lock_manager=CachenessLockManager(store))
    assert results.acquire_lock("a key", holder="me")
    for value in (1, 2):
        results.write(key="a key", obj=value, holder="me")
        assert results.is_lock_holder("a key", "me")
        assert results.read("a key", holder="me").result in (1, value)
    with pytest.raises(RuntimeError, match="lock"):
        results.write(key="a key", obj=3, holder="you")
    results.release_lock("a key", holder="me")


def test_a_reading_transaction_waits_for_the_one_that_writes_its_key(store) -> None:
    results = ResultStore(result_storage=store, lock_manager=CachenessLockManager(store))
    begun, reads = threading.Event(), threading.Event()

    def write() -> None:
        with transaction("a key", store=results, isolation_level=IsolationLevel.SERIALIZABLE) as writing:
            begun.set()
            assert reads.wait(60)
            time.sleep(0.3)
            writing.stage("written")

    writer = start(write)
    assert begun.wait(60)
    with transaction("a key", store=results, write_on_commit=False) as reading:
        reads.set()
        assert reading.read().result == "written"
    writer.join()
