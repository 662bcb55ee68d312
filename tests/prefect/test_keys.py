"""A key covers the values and the code, and is the same in every process."""

from __future__ import annotations

import dataclasses
import enum
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from prefect import Task, flow, task
from prefect.cache_policies import FLOW_PARAMETERS, INPUTS, RUN_ID, TASK_SOURCE, CachePolicy

from cacheness_prefect import CachenessPolicy
from tests.keys.edits import load
from tests.prefect.conftest import RUNNERS

POLICY = CachenessPolicy()


class Level(enum.IntEnum):
    ONE = 1


@task
def take(x: Any) -> Any:
    return x


def key(x: Any) -> str:
    return POLICY.key(take, {"x": x}).digest.hex()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({1: "a"}, {"1": "a"}),
        ((1, 2), [1, 2]),
        (Level.ONE, 1),
        (True, 1),
        (1.0, 1),
        ("1", 1),
        (pd.DataFrame({"a": [1], "b": [2]}), pd.DataFrame({"b": [2], "a": [1]})),
        (np.arange(6).reshape(2, 3), np.arange(6).reshape(3, 2)),
        (b"a", "a"),
        ({1, 2}, frozenset({1, 2})),
    ],
    ids=repr,
)
def test_different_values_have_different_keys(one: Any, other: Any) -> None:
    assert key(one) != key(other)


ONE_PROCESS = """
import dataclasses, sys
import numpy as np, pandas as pd
from prefect import task
from cacheness_prefect import CachenessPolicy

@dataclasses.dataclass
class Point:
    x: int
    labels: frozenset

@task
def take(x):
    return {x, "a", "b"} & {"a", "c"}

values = [
    {"b", "a", "c"},
    frozenset({"x", "y", ("z", 1)}),
    pd.DataFrame({"a": [1.0, None], "b": ["x", "y"], "c": pd.Categorical(["u", "v"])}),
    Point(1, frozenset({"p", "q"})),
    {"b": 1, "a": {2, 3}},
    np.arange(10.0),
]
print([CachenessPolicy().key(take, {"x": value}).digest.hex() for value in values])
"""


def test_keys_agree_in_two_processes(tmp_path: Path) -> None:
    script = tmp_path / "one_process.py"
    script.write_text(ONE_PROCESS)
    running = [
        subprocess.Popen(
            [sys.executable, str(script)], env={**os.environ, "PYTHONHASHSEED": seed}, stdout=subprocess.PIPE, text=True
        )
        for seed in ("1", "2")
    ]
    found = {process.communicate()[0] for process in running}
    assert len(found) == 1
    assert found != {""}


CODE = """
from prefect import task

def deeper(x):
    return x + {number}

def helper(x):
    return deeper(x)

def make_task(scale):
    @task
    def work(x):
        return helper(x) * scale
    return work

@task
def calls_a_task(x):
    return make_task(1).fn(x) + other_task(x)

@task(retries={number})
def other_task(x):
    return x + 1
"""


def tasks_of(code: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "some_script"}
    exec(compile(code, "some_script.py", "exec"), namespace)
    return namespace


def key_of(code: str, scale: int = 1) -> str:
    return POLICY.key(tasks_of(code)["make_task"](scale), {"x": 1}).digest.hex()


def test_a_changed_helper_or_closure_is_a_miss_and_formatting_is_a_hit() -> None:
    original = key_of(CODE.format(number=1))
    assert key_of(CODE.format(number=2)) != original, "a helper of a helper"
    assert key_of(CODE.format(number=1), scale=2) != original, "a closure"
    spaced = CODE.format(number=1).replace("\n    return", "\n\n    # said differently\n    return")
    assert key_of(spaced) == original, "formatting and comments"


def test_a_task_that_calls_a_task_counts_its_code_and_not_its_settings() -> None:
    def key_with(**changes: str) -> str:
        code = CODE.format(number=1)
        for old, new in changes.items():
            code = code.replace(old, new)
        return POLICY.key(tasks_of(code)["calls_a_task"], {"x": 1}).digest.hex()

    assert key_with() == key_with(**{"retries=1": "retries=5"})
    assert key_with() != key_with(**{"return x + 1\n": "return x + 2\n"})


def test_version_pins_the_code_and_code_false_leaves_it_out() -> None:
    one, two = (tasks_of(CODE.format(number=n))["make_task"](1) for n in (1, 2))
    pinned, plain = CachenessPolicy(version="7"), CachenessPolicy(code=False)
    for policy in (pinned, plain):
        assert policy.key(one, {"x": 1}) == policy.key(two, {"x": 1})
    assert pinned.key(one, {"x": 1}) != CachenessPolicy(version="8").key(one, {"x": 1})
    renamed: Task[..., Any] = one.with_options(name="another")
    assert plain.key(one, {"x": 1}) != plain.key(renamed, {"x": 1})


def test_a_script_that_changes_between_runs_computes_only_what_depends_on_the_change(store, runner) -> None:
    other = CODE.replace("return deeper(x)", "# said\n    # differently\n    return deeper(\n        x\n    )")

    def run(code: str, number: int, scale: int) -> str:
        made = tasks_of(code.format(number=number))["make_task"](scale).with_options(cache_policy=store.policy())

        @flow(task_runner=runner)
        def work() -> str:
            return made.submit(1, return_state=True).name

        return work()

    assert run(CODE, 1, 1) == "Completed"
    assert run(CODE, 2, 1) == "Completed", "a helper of a helper"
    assert run(CODE, 1, 2) == "Completed", "a closure"
    assert [run(other, 1, 1), run(CODE, 2, 1), run(other, 1, 2)] == ["Cached"] * 3


@dataclasses.dataclass
class Point:
    x: int
    labels: frozenset[Any]


VALUES: list[Any] = [
    {"b", "a", "c"},
    frozenset({"x", "y", ("z", 1)}),
    pd.DataFrame({"a": [1.0, None], "b": ["x", "y"]}),
    Point(1, frozenset({"p", "q"})),
    *({1: "a"}, {"1": "a"}, (1, 2), [1, 2], Level.ONE, 1),
    *(pd.DataFrame({"a": [1], "b": [2]}), pd.DataFrame({"b": [2], "a": [1]})),
]


def test_keys_agree_under_all_runners_and_tell_values_apart(store, make_runner) -> None:
    made = take.with_options(cache_policy=store.policy())

    def keys_under(kind: str) -> list[str]:
        @flow(task_runner=make_runner(kind))
        def work() -> list[str]:
            futures = [made.submit(value) for value in VALUES]
            return [future.wait() or future.state.data.metadata.storage_key for future in futures]

        return work()

    found = [keys_under(kind) for kind in RUNNERS]
    assert found == [[key(value) for value in VALUES]] * len(RUNNERS)
    assert len(set(found[0])) == len(VALUES)


HIDDEN = "from prefect import task\nrunning = (n for n in range(9))\ndef one(x): return x + 0 * hash(running)\n"


def test_a_task_whose_key_is_incomplete_is_told_once_and_cached_or_refused(store, caplog: Any) -> None:
    one = load(HIDDEN, "hidden_from_keys").one
    told, refused, silent = (task(one, cache_policy=store.policy(incomplete=c)) for c in ("warn", "refuse", "serve"))

    @flow
    def work() -> list[str]:
        return [t(1, return_state=True).name for t in (refused, told, told, silent)]

    assert work() == ["Completed", "Completed", "Cached", "Cached"]
    lines = [
        r.getMessage() for r in caplog.records if r.levelname == "WARNING" and "hidden_from_keys" in r.getMessage()
    ]
    assert len(lines) == 2  # one says that nothing is cached, one that it is
    assert any("is incomplete" in line for line in lines)
    with pytest.raises(ValueError, match="incomplete cannot be used: 'maybe'"):
        store.policy(incomplete="maybe")


@pytest.mark.parametrize(
    "combine",
    [
        lambda ours: ours - "client",
        lambda ours: (ours - "client") + RUN_ID,
        lambda ours: (ours + RUN_ID) - "client",
        lambda ours: (RUN_ID + ours) - "client",
        lambda ours: (TASK_SOURCE + ours + RUN_ID) - "client",
        lambda ours: (FLOW_PARAMETERS + (RUN_ID + ours)) - "client",
        lambda ours: (ours + INPUTS) - "client",
        lambda ours: (INPUTS + ours) - "client",
        lambda ours: ((ours + RUN_ID) - "client") + TASK_SOURCE,
        lambda ours: ((ours + RUN_ID) - "client").configure(isolation_level="SERIALIZABLE"),
        lambda ours: (ours.configure(isolation_level="SERIALIZABLE") + RUN_ID) - "other" - "client",
    ],
)
def test_an_argument_taken_from_a_sum_of_policies_is_left_out_of_its_key(store, combine) -> None:
    @task(cache_policy=combine(store.policy(version="1")))
    def use(x: int, client: Any, other: int = 0) -> int:
        return x

    @flow
    def work() -> list[str]:
        return [use(x, client, return_state=True).name for x in (1, 2) for client in ("a", "b")]

    assert work() == ["Completed", "Cached", "Completed", "Cached"]


def test_a_sum_of_policies_keeps_what_is_not_taken_from_it(store) -> None:
    policy: CachePolicy = (store.policy(version="1") + RUN_ID) - "other"
    plain = INPUTS + RUN_ID

    @task(cache_policy=policy)
    def use(x: int, client: str) -> int:
        return x

    @flow
    def work() -> list[str]:
        return [use(1, client, return_state=True).name for client in ("a", "b", "a")]

    assert work() == ["Completed", "Completed", "Cached"]
    assert (plain - "client").policies[-1].exclude == ["client"], "sums without a policy of ours are Prefect's"
    assert (RUN_ID + TASK_SOURCE) - "client" == RUN_ID + TASK_SOURCE
