"""Runs of a task are cached by results of its earlier code, where the change was accepted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import dask
import pytest
from prefect import flow, task

import cacheness_dask
from cacheness import ConfigError, NotAccepted
from cacheness.audit import Sampler
from cacheness.keys import fingerprint

#: Calls, by the code that made them.
calls: list[tuple[str, int]] = []


def before(x: int) -> list[int]:
    calls.append(("before", x))
    y = x + 1
    return [y, y * 2]


def after(x: int) -> list[int]:
    calls.append(("after", x))
    return [x + 1, (x + 1) * 2]


def wrong(x: int) -> list[int]:
    calls.append(("wrong", x))
    return [x, x * 2]


def states_of(store: Any, function: Any, numbers: list[int], **options: Any) -> list[tuple[str, Any]]:
    run = task(function, cache_policy=store.policy(**options))

    @flow
    def work() -> list[Any]:
        states = [run(x, return_state=True) for x in numbers]
        return [(state.name, state.result()) for state in states]

    found: list[tuple[str, Any]] = work()
    return found


def test_an_accepted_change_of_a_task_keeps_its_results(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sampler, "chooses", lambda *_: False)
    numbers = list(range(8))
    expected = [[x + 1, (x + 1) * 2] for x in numbers]
    assert states_of(store, before, numbers) == [("Completed", value) for value in expected]
    former = f"{__name__}:before"
    now, other = (task(function, cache_policy=store.policy()) for function in (after, wrong))
    (refused,) = store.accept(other, former=former)
    assert (refused.state, refused.was) == ("refused", former)
    entries = store.open().stats()["entries"]
    (change,) = store.accept(now, sample=5, former=former)
    assert (change.state, change.equal) == ("accepted", 5)
    assert store.open().stats()["entries"] == entries  # there is no run whose results these were
    calls.clear()
    assert states_of(store, after, numbers) == [("Cached", value) for value in expected]
    assert calls == []
    assert store.explain(now, 3).hit

    inner = store.open().cached(after)

    def calling(x: int) -> Any:
        return inner(x)

    assert states_of(store, calling, [3]) == [("Completed", expected[3])]
    assert calls == [("after", 3)]  # within a task, what earlier code made is not served
    monkeypatch.setattr(Sampler, "chooses", lambda *_: True)
    assert states_of(store, after, [1]) == [("Completed", expected[1])]  # computed all the same, and equal
    assert [one.state for one in store.open().accepted_changes()] == ["accepted"]
    assert states_of(store, after, [1]) == [("Cached", expected[1])]  # under its own key now
    monkeypatch.setattr(Sampler, "chooses", lambda *_: False)
    assert store.open().revoke(change.id)
    assert states_of(store, after, [2]) == [("Completed", expected[2])]
    assert states_of(store, before, [2]) == [("Cached", expected[2])]


def test_the_first_difference_of_a_task_ends_its_change(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sampler, "chooses", lambda *_: False)
    states_of(store, before, [1, 2, 3])
    rare = task(_rare, cache_policy=store.policy())
    assert [one.state for one in store.accept(rare, sample=3, former=f"{__name__}:before")] == ["accepted"]
    monkeypatch.setattr(Sampler, "chooses", lambda *_: True)
    _differs.append(2)
    assert states_of(store, _rare, [2]) == [("Completed", [0])]
    (ended,) = store.open().accepted_changes()
    assert (ended.state, ended.why[:27]) == ("ended", "the code of today makes [0]")
    with pytest.raises(NotAccepted, match="its result_serializer encodes them"):
        store.accept(task(after, cache_policy=store.policy(), result_serializer="json"))


def _in_a_thread(function: Any, *args: Any) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *args).result()


@pytest.mark.parametrize("how", ["nested", "submitted", "in a thread", "cached", "cached in a thread", "graph"])
def test_a_result_of_a_task_never_rests_on_earlier_code(store: Any, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(Sampler, "chooses", lambda *_: False)
    cache = store.open()
    inner, cached = task(wrong, cache_policy=store.policy()), cache.cached(wrong)
    states_of(store, before, [3])
    cache.cached(before)(3)
    evidence = {"function": f"{__name__}:wrong", "state": "accepted", "equal": 200, "by_place": ""}
    one = cache.acceptances.write(fingerprint(wrong).digest, fingerprint(before).digest, {}, evidence)
    assert cached(3) == [4, 8]  # outside of any task
    assert states_of(store, wrong, [3]) == [("Cached", [4, 8])]

    def nested(x: int) -> Any:
        return inner(x)

    def submitted(x: int) -> Any:
        return inner.submit(x).result()

    def in_a_thread(x: int) -> Any:
        return _in_a_thread(copy_context().run, inner, x)

    def cached_in_place(x: int) -> Any:
        return cached(x)

    def cached_in_a_thread(x: int) -> Any:
        return _in_a_thread(cached, x)

    def graph(x: int) -> Any:
        with cacheness_dask.caching(cache, which="all", scheduler="sync"):
            return dask.delayed(wrong)(x).compute()

    ways = dict(
        zip(
            ["nested", "submitted", "in a thread", "cached", "cached in a thread", "graph"],
            [nested, submitted, in_a_thread, cached_in_place, cached_in_a_thread, graph],
            strict=True,
        )
    )
    assert states_of(store, ways[how], [3]) == [("Completed", [3, 6])]
    assert one is not None
    assert cache.revoke(one.id)
    assert states_of(store, ways[how], [3]) == [("Cached", [3, 6])]


class _Unseen(list[int]):
    """Decides results, and no key."""

    def __cacheness_key__(self) -> None:
        return None


_differs = _Unseen()


def _rare(x: int) -> list[int]:
    return [0] if x in _differs else [x + 1, (x + 1) * 2]


def test_runs_are_compared_as_they_miss(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sampler, "chooses", lambda *_: False)
    numbers = list(range(12))
    states_of(store, _first, numbers)
    # The same function, edited: another code under the same name.
    monkeypatch.setattr(_second, "__qualname__", "_first")
    calls.clear()
    found = states_of(store, _second, numbers, accept=4)
    assert [state for state, _ in found] == ["Completed"] * 4 + ["Cached"] * 8
    assert [value for _, value in found] == [x + 1 for x in numbers]
    assert len(calls) == 4
    (change,) = store.open().accepted_changes()
    assert (change.state, change.equal) == ("accepted", 4)
    assert store.open().revoke(change.id)
    assert states_of(store, _second, [11]) == [("Completed", 12)]
    with pytest.raises(ConfigError, match="accept cannot be used: 0 must be at least 1"):
        store.policy(accept=0)


def test_the_first_difference_as_runs_miss_ends_the_change(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = list(range(6))
    states_of(store, _first, numbers)
    monkeypatch.setattr(_third, "__qualname__", "_first")
    found = states_of(store, _third, numbers, accept=2)
    assert found == [("Completed", -1), *(("Completed", x + 1) for x in numbers[1:])]
    assert [one.state for one in store.open().accepted_changes()] == ["ended"]


def _first(x: int) -> int:
    y = x
    return y + 1


def _second(x: int) -> int:
    calls.append(("second", x))
    return 1 + x


def _third(x: int) -> int:
    return x + 1 if x else -1
