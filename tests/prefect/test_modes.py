"""Modes of a block: what becomes of a task, and where its result is."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from prefect import flow, task
from prefect.cache_policies import RUN_ID

from cacheness import NotCached
from cacheness.modes import MODES
from cacheness_prefect import CachenessStorage
from tests.cache.table_of_modes import cells
from tests.prefect.conftest import Tally

X = {"Prefect task, there": 1, "Prefect task, not there": 2}


def double_with(store: CachenessStorage, tally: Tally) -> Any:
    @task(cache_policy=store.policy(), persist_result=True)
    def double(x: int) -> int:
        tally.add()
        return 2 * x

    return double


@pytest.mark.parametrize("mode", MODES)
def test_a_task_does_what_the_table_says(
    mode: Any, make_store: Callable[..., CachenessStorage], tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store()
    narrow = make_store(mode=mode)

    @flow
    def once(asked: CachenessStorage, x: int) -> Any:
        return double_with(asked, tally)(x, return_state=True)

    assert once(store, 1, return_state=True).is_completed()
    cache = store.open()
    for call, _, does in [cell for cell in cells(*X) if cell[1] == mode]:
        before, computed = {(e.key, e.created_at) for e in cache.iter_entries(tag="task:double")}, len(tally)
        try:
            state = once(narrow, X[call])
            done = "computed" if len(tally) > computed else "loaded"
        except NotCached as error:
            done = type(error).__name__
            assert len(tally) == computed
        stored = {(e.key, e.created_at) for e in cache.iter_entries(tag="task:double")} != before
        if done != "NotCached":  # as another process reads it, which has the state's data alone
            assert pickle.loads(pickle.dumps(state)).result() == 2 * X[call]
        assert done + ", stored" * stored == does


def test_off_in_a_sum_of_policies_leaves_no_key_without_the_values(
    make_store: Callable[..., CachenessStorage], tally: Tally
) -> None:
    @task(cache_policy=RUN_ID + make_store(mode="off").policy())
    def double(x: int) -> int:
        tally.add()
        return 2 * x

    @flow
    def twice() -> list[int]:
        return [double(1), double(2), double(1)]

    assert twice() == [2, 4, 2]
    assert len(tally) == 3


def test_what_a_run_refreshes_travels_with_the_block(store: CachenessStorage) -> None:
    narrow = CachenessStorage(**{**dict(store), "mode": "refresh"})
    sent = pickle.loads(pickle.dumps(narrow))
    assert sent.config().refresh_since == narrow.open().config.refresh_since is not None
    keys = pickle.loads(pickle.dumps(narrow.policy())).key_storage
    assert keys.config() == sent.config()
