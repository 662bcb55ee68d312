"""One computation of a key at a time; and nobody waits for himself, for the dead, or for a result that is there."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from prefect import flow, task
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.transactions import CommitMode, transaction

from cacheness_prefect import CachenessLockManager


def test_six_submissions_are_one_execution_and_a_nested_run_does_not_wait_for_its_parent(store, runner, tally) -> None:
    policy = store.policy(code=False, wait=60)

    @task(cache_policy=store.policy())
    def slow(x: int) -> int:
        tally.add()
        time.sleep(1)
        return x

    @task(name="same", cache_policy=policy)
    def inner(x: int) -> int:
        return x

    @task(name="same", cache_policy=policy)
    def outer(x: int) -> int:
        return inner(x)

    @flow(task_runner=runner)
    def work() -> tuple[list[int], float, list[str]]:
        results = [future.result() for future in [slow.submit(7) for _ in range(6)]]
        began = time.monotonic()
        names = [outer.submit(1, return_state=True).name for _ in range(2)]
        return results, time.monotonic() - began, names

    results, seconds, names = work()
    assert results == [7] * 6
    assert len(tally) == 1
    assert seconds < 30
    assert names == ["Completed", "Cached"]


def test_a_nested_run_that_is_submitted_does_not_wait_for_its_parent(store, tally) -> None:
    policy = store.policy(code=False, wait=60)

    @task(name="same", cache_policy=policy)
    def inner(x: int) -> int:
        return x

    @task(name="same", cache_policy=policy)
    def outer(x: int) -> int:
        return inner.submit(x).result()

    @flow
    def work() -> str:
        return outer.submit(1, return_state=True).name

    began = time.monotonic()
    assert work() == "Completed"
    assert time.monotonic() - began < 30
    assert work() == "Cached"


def test_concurrent_hits_do_not_wait_for_each_other(store) -> None:
    @task(cache_policy=store.policy())
    def make() -> Any:
        return SlowToLoad()

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=8))
    def work(count: int) -> tuple[list[str], float]:
        began = time.monotonic()
        states = [future.wait() or future.state.name for future in [make.submit() for _ in range(count)]]
        return states, time.monotonic() - began

    work(1)
    names, seconds = work(8)
    assert set(names) == {"Cached"}
    assert seconds < 1.5


class SlowToLoad:
    def __reduce__(self) -> Any:
        return (_load_slowly, ())


def _load_slowly() -> SlowToLoad:
    time.sleep(0.3)
    return SlowToLoad()


def test_two_runs_of_one_key_in_one_transaction_do_not_wait_for_its_end(store, tally) -> None:
    @task(cache_policy=store.policy(wait=60))
    def make(x: int) -> int:
        tally.add()
        return x

    @flow
    def work() -> list[str]:
        with transaction(commit_mode=CommitMode.LAZY):
            return [make(1, return_state=True).name for _ in range(2)]

    began = time.monotonic()
    assert work() == ["Completed", "Completed"]
    assert time.monotonic() - began < 20
    assert work() == ["Cached", "Cached"]


FLOW = """
import os, sys, time
from prefect import flow, task
from cacheness_prefect import CachenessStorage
directory, mark, seconds, value = sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4]
store = CachenessStorage(cache_dir=directory)

def compute(mark, seconds, value):
    with open(mark, "a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(seconds)
    return value

@task(cache_policy=store.policy(version="1", ignore=("mark", "seconds", "value"), lease=3))
def slow(mark, seconds, value):
    return compute(mark, seconds, value)

@flow
def work():
    state = slow(mark, seconds, value, return_state=True)
    return f"{state.name}:{state.result()}"

print("RESULT", work())
"""


@pytest.fixture
def run_flow(prefect_api, tmp_path):
    """Runs FLOW in processes of their own, on one store."""
    running: list[subprocess.Popen[str]] = []
    script = tmp_path / "script.py"
    script.write_text(FLOW)
    mark = tmp_path / "computing"

    def start(seconds: float, value: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(script), str(tmp_path / "cache"), str(mark), str(seconds), value]
        running.append(
            subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
        )
        return running[-1]

    start.mark = mark
    yield start
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def result_of(process: subprocess.Popen[str], timeout: float = 60) -> str:
    out, err = process.communicate(timeout=timeout)
    assert "RESULT" in out, err
    return out.split("RESULT ")[1].strip()


def wait_for(mark: Path, lines: int) -> list[int]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = mark.read_text().splitlines() if mark.exists() else []
        if len(found) >= lines:
            return [int(line) for line in found]
        time.sleep(0.05)
    pytest.fail(f"{mark} did not reach {lines} lines")


def test_two_flows_in_two_processes_compute_a_key_once(run_flow) -> None:
    first = run_flow(8, "first")
    wait_for(run_flow.mark, 1)
    second = run_flow(0, "second")
    assert {result_of(first), result_of(second)} == {"Completed:first", "Cached:first"}
    assert len(run_flow.mark.read_text().splitlines()) == 1


def test_a_killed_holder_costs_one_lease(run_flow) -> None:
    first = run_flow(600, "first")
    (pid,) = wait_for(run_flow.mark, 1)
    second = run_flow(0, "second")
    time.sleep(3)  # it is waiting, or about to
    os.kill(pid, signal.SIGKILL)
    first.wait()
    killed = time.monotonic()
    assert result_of(second) == "Completed:second"
    assert time.monotonic() - killed < 30


def test_the_late_write_of_a_holder_that_was_thought_dead_is_refused(run_flow, tmp_path) -> None:
    first = run_flow(4, "first")
    (pid,) = wait_for(run_flow.mark, 1)
    os.kill(pid, signal.SIGSTOP)
    assert result_of(run_flow(0, "second")) == "Completed:second"
    os.kill(pid, signal.SIGCONT)
    assert result_of(first) == "Completed:first", "its own run keeps what it computed"
    assert result_of(run_flow(0, "third")) == "Cached:second"


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
