"""Which lines of a function run: none is said to be missing that ran, and none that did not run is left out."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cacheness.memoize.lines import LineWatch


@contextmanager
def opened() -> Iterator[int]:
    """A context manager."""
    yield 1


def straight(x: int) -> int:
    """A docstring
    of two lines."""
    y = x + 1  # a comment
    # nothing

    return (
        y
        * 2
    )  # fmt: skip


def branches(x: int) -> str:
    chosen = ""
    if x > 1 and \
        x > 2:  # fmt: skip
        chosen = "many"
    elif x == 1:
        chosen = "one"
    else:
        pass
    return chosen


def loops(x: int) -> int:
    total = 0
    for number in range(x):
        if number == 2:
            continue
        total += number
    total += 1
    while True:
        total += 1
        if total > 5:
            break
    return total


def errors(x: int) -> int:
    try:
        value = 1 // x
    except ZeroDivisionError as error:
        value = len(str(error))
    else:
        value += 1
    finally:
        value += 1
    with opened() as one, \
            opened() as two:  # fmt: skip
        value += one + two
    return value


def within(x: int) -> list[int]:
    def inner(y: int) -> int:
        """Nested."""
        return y + 1

    class Kept:
        z = x

        def get(self) -> int:
            return self.z

    double = lambda y: y * 2
    found = [
        inner(number)
        for number in range(3)
        if number
    ]  # fmt: skip
    return sorted({double(y) for y in found} | {Kept().get()}, key=lambda y: -y)


def matched(x: Any) -> str:
    match x:
        case {"name": str() as name, **rest}:
            return name + str(len(rest))
        case [first, *_] if first:
            return "list"
        case _:
            return "else"


def generating(x: int) -> list[int]:
    def numbers() -> Iterator[int]:
        yield from range(x)
        yield x

    return list(numbers())


async def awaited(x: int) -> int:
    async def numbers() -> AsyncIterator[int]:
        yield x
        await asyncio.sleep(0)

    total = 0
    async for number in numbers():
        total += number
    return total + sum([y async for y in numbers()])


def in_a_thread(x: int) -> int:
    found = []

    def run() -> None:
        found.append(x)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


CALLS: dict[Callable[..., Any], list[Any]] = {
    straight: [1],
    branches: [5, 2, 1, 0],
    loops: [4],
    errors: [1, 0],
    within: [1],
    generating: [2],
    awaited: [2],
    in_a_thread: [3],
    matched: [{"name": "n", "x": 1}, [1], 5],
}


def watched(function: Callable[..., Any], calls: list[Any]) -> dict[str, list[int]]:
    watch = LineWatch({"it": [function.__code__]})  # type: ignore[attr-defined]
    watch.begin()
    try:
        for argument in calls:
            result = function(argument)
            if asyncio.iscoroutine(result):
                asyncio.run(result)
    finally:
        watch.end()
    return watch.missing


@pytest.mark.parametrize("function", CALLS, ids=lambda function: function.__name__)
def test_when_every_line_ran_none_is_missing(function: Callable[..., Any]) -> None:
    assert watched(function, CALLS[function]) == {}


def lines_after(function: Callable[..., Any], *offsets: int) -> dict[str, list[int]]:
    first = function.__code__.co_firstlineno  # type: ignore[attr-defined]
    return {"it": [first + offset for offset in offsets]}


def test_what_did_not_run_is_missing_line_by_line() -> None:
    assert watched(branches, [1]) == lines_after(branches, 3, 4, 8)
    assert watched(branches, [5]) == lines_after(branches, 5, 6, 8)
    assert watched(errors, [1]) == lines_after(errors, 3, 4)
    assert watched(loops, [0]) == lines_after(loops, 3, 4, 5)
    assert watched(within, [])["it"][0] == lines_after(within, 1)["it"][0]


def test_watches_that_overlap_see_their_own_lines_and_nothing_stays_behind() -> None:
    before = sys.gettrace()
    one, two = (LineWatch({"it": [branches.__code__]}) for _ in range(2))
    one.begin()
    branches(5)
    two.begin()
    branches(1)
    one.end()
    branches(0)
    two.end()
    branches(2)
    assert one.missing == lines_after(branches, 8)
    assert two.missing == lines_after(branches, 3, 4)
    assert sys.gettrace() is before
    if sys.version_info >= (3, 12):
        assert sys.monitoring.get_tool(3) is None


def test_lines_that_another_process_saw_are_not_missing() -> None:
    one, two, other = (LineWatch({"it": [branches.__code__], "other": [loops.__code__]}) for _ in range(3))
    one.begin()
    branches(5)
    one.end()
    two.begin()
    loops(4)
    branches(1)
    two.end()
    two.merge(one.state())
    assert two.missing == lines_after(branches, 8)
    other.merge({"it": ["another layout"]})
    assert other.missing.keys() == {"it"}
