"""`check`: runs that would be cached compute all the same; what comes out differently is disputed, and no run fails."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from prefect import flow, task
from prefect.cache_policies import INPUTS
from prefect.client.orchestration import get_client

from cacheness import ConfigError
from cacheness_prefect import CachenessStorage, integrity_repair
from cacheness_prefect.run_metadata import address
from tests.prefect.test_repair_flow import artifacts, events

calls: list[str] = []


def hidden() -> str:
    return os.environ.get("NEDDIH"[::-1], "1")


def rated(x: int) -> list[float]:
    calls.append("rated")
    return [x * float(hidden())]


async def awaited(x: int) -> list[float]:
    calls.append("awaited")
    return [x * float(hidden())]


def failing(x: int) -> int:
    calls.append("failing")
    if hidden() != "1":
        raise OSError("no network")
    return x


def growing(items: list[int]) -> int:
    calls.append("growing")
    items.append(1)
    return len(items)


def run(function: Callable[..., Any], policy: Any, argument: Any = 3, **options: Any) -> tuple[str, Any]:
    made = task(function, cache_policy=policy, **options)

    @flow
    def work() -> Any:
        return made(argument, return_state=True)

    @flow
    async def awork() -> Any:
        return await made(argument, return_state=True)

    state: Any
    if function is awaited:
        import asyncio

        state = asyncio.run(awork(return_state=True)).result()
    else:
        state = work()
    return str(state.name), state.result()


@pytest.fixture(autouse=True)
def _nothing_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HIDDEN", raising=False)
    calls.clear()


@pytest.mark.parametrize("function", [rated, awaited])
@pytest.mark.parametrize("sums", [False, True], ids=["alone", "in a sum"])
def test_a_run_that_comes_out_differently_is_disputed(
    store: Any, function: Callable[..., Any], sums: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def policy(**options: Any) -> Any:
        made = store.policy(incomplete="serve", **options)
        return made + INPUTS if sums else made

    assert run(function, policy()) == ("Completed", [3.0])
    assert run(function, policy(check=1)) == ("Completed", [3.0])  # its body has run; what is stored stays
    (entry,) = store.open().iter_entries(tag=f"task:{function.__name__}")
    assert run(function, policy()) == ("Cached", [3.0])
    assert len(calls) == 2
    monkeypatch.setenv("HIDDEN", "2")
    assert run(function, policy()) == ("Cached", [3.0])
    assert run(function, policy(check=1)) == ("Completed", [6.0])
    (dispute,) = store.open().disputes()
    assert dispute.key == entry.key
    assert "[3.0] is stored, [6.0] was computed" in dispute.detail
    assert run(function, policy()) == ("Completed", [6.0])  # nobody is served it, and nothing takes its place
    assert store.open().entry(entry.cache_key) == entry
    assert store.open().disputes() == [dispute]
    store.open().settle(entry.key)
    assert run(function, policy()) == ("Cached", [3.0])
    store.open().dispute(entry, None, None, "again")
    assert run(function, policy(), refresh_cache=True) == ("Completed", [6.0])  # which decides
    assert run(function, policy()) == ("Cached", [6.0])


def test_the_state_of_a_disputed_run_has_its_own_result_elsewhere_too(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = task(rated, cache_policy=store.policy(check=1, incomplete="serve"), cache_result_in_memory=False)

    @flow
    def work() -> Any:
        return made(3, return_state=True)

    def stored_of(state: Any) -> Any:
        metadata = getattr(state.data, "metadata", state.data)
        return store.open().get(address(metadata.storage_key))

    assert stored_of(work()) == [3.0]
    monkeypatch.setenv("HIDDEN", "2")
    for _ in range(2):  # the one that finds the difference, and one that is not served
        assert stored_of(work()) == [6.0]
    assert len(store.open().disputes()) == 1


def test_who_fails_changes_its_argument_or_expires_is_let_alone(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = functools.partial(store.policy, incomplete="serve")
    assert run(failing, policy()) == ("Completed", 3)
    assert run(growing, policy(), [1]) == ("Completed", 2)
    assert run(rated, store.policy(incomplete="serve"), cache_expiration=timedelta(hours=1)) == ("Completed", [3.0])
    monkeypatch.setenv("HIDDEN", "2")
    store.check = 1.0
    assert run(failing, policy()) == ("Cached", 3)  # it has a result, and so no run fails for the check
    assert run(growing, policy(), [1])[1] in (2, 3)
    assert run(rated, policy(), cache_expiration=timedelta(hours=1)) == (
        "Cached",
        [3.0],
    )  # it says that it changes with time
    assert calls == ["failing", "growing", "rated", "failing", "growing"]
    assert store.open().disputes() == []


def test_the_share_comes_from_the_policy_the_block_or_the_environment(
    make_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store()
    states = functools.partial(run, rated)
    states(store.policy(incomplete="serve"))
    monkeypatch.setenv("CACHENESS_CHECK", "1")
    assert states(store.policy(incomplete="serve"))[0] == "Completed"
    assert states(store.policy(incomplete="serve", check=0))[0] == "Cached"
    block = CachenessStorage(cache_dir=store.cache_dir, check=0.0)
    assert states(block.policy(incomplete="serve"))[0] == "Cached"
    monkeypatch.setenv("CACHENESS_CHECK", "much")
    with pytest.raises(ConfigError, match="check cannot be used"):
        CachenessStorage(cache_dir=store.cache_dir)
    monkeypatch.delenv("CACHENESS_CHECK")
    for wrong in (2, "much", True):
        with pytest.raises(ConfigError, match="check cannot be used"):
            store.policy(check=wrong)


def test_same_says_what_is_equal_and_other_serializers_are_compared_as_they_decode(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def close(stored: list[float], computed: list[float]) -> bool:
        return math.isclose(stored[0], computed[0], rel_tol=0.5)

    policy = functools.partial(store.policy, incomplete="serve")
    for options in ({}, {"result_serializer": "json"}):
        run(rated, policy(), **options)
        monkeypatch.setenv("HIDDEN", "1.25")
        assert run(rated, policy(check=1, same=close), **options) == ("Completed", [3.0])
        assert store.open().disputes() == []
        assert run(rated, policy(check=1), **options) == ("Completed", [3.75])
        (dispute,) = store.open().disputes()
        store.open().settle(dispute.key, keep="new")
        monkeypatch.setenv("HIDDEN", "1")


def test_a_dispute_is_an_event_a_warning_and_a_line_of_the_report(
    store: Any, monkeypatch: pytest.MonkeyPatch, told: Callable[[Any], list[str]]
) -> None:
    made = task(rated, cache_policy=store.policy(check=1, incomplete="serve"))

    @flow
    def work() -> Any:
        state = made(3, return_state=True)
        return state.state_details.flow_run_id

    work()
    monkeypatch.setenv("HIDDEN", "2")
    flow_run = work()
    (dispute,) = store.open().disputes()
    (line,) = told(flow_run)
    assert "task 'rated' came out differently: [3.0] is stored, [6.0] was computed. To blame may be" in line
    integrity_repair(store, tasks=1)
    with get_client(sync_client=True) as client:
        (event,) = events(client, "cacheness.result.disputed", store.saved_as)
        assert event["payload"]["key"] == dispute.cache_key
        assert "To blame may be" in event["payload"]["detail"]
        report = artifacts(client, "cacheness-report", store)[-1]["data"]
    assert "**1 result came out differently**" in report
    assert "rated (1)" in report
