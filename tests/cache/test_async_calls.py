"""The calls for event loops: in threads of their own, which nothing can fill, and cancelled without leaving a trace."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cacheness import CacheClosed, UnifiedCache
from cacheness.async_calls import AsyncCalls
from cacheness.off_loop import THREADS, off_loop, submit, to_the_end
from tests.forked import ended, fork


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[UnifiedCache]:
    with UnifiedCache(tmp_path) as cache:
        yield cache


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110 - what it waits for happens in threads
        await asyncio.sleep(0.001)


def test_each_call_does_what_its_synchronous_one_does(cache: UnifiedCache) -> None:
    async def main() -> None:
        async with cache:
            entry = await cache.aput([1], day="a", prefix="p", ttl="1h", tags=["t"], version="2")
            assert (entry.tags, entry.expires_at is not None) == (("t",), True)
            assert cache.get(day="a", prefix="p", version="2") == [1]
            assert await cache.aget(entry) == await cache.aget(day="a", prefix="p", version="2") == [1]
            assert await cache.aget(day="b", default="none") == "none"
            hit = await cache.alookup(args={"day": "a"}, prefix="p", version="2")
            assert hit is not None
            assert (await cache.alookup(day="b"), hit.value) == (None, [1])
            found = await cache.aget_many(one for one in [entry, cache.key(day="b")])
            assert {key: hit.value for key, hit in found.items()} == {entry.cache_key: [1]}
            with pytest.raises(TypeError, match="value first"):
                await cache.aput("key", "not a key")
        with pytest.raises(CacheClosed):
            await cache.aget(entry)

    asyncio.run(main())


@pytest.mark.parametrize("name", [name for name in vars(AsyncCalls) if not name.startswith("_")])
def test_the_signatures_are_the_same(name: str) -> None:
    ours, theirs = (
        list(inspect.signature(f).parameters.values())
        for f in (getattr(AsyncCalls, name), getattr(UnifiedCache, name[1:]))
    )
    assert [(p.name, p.kind, p.default, p.annotation) for p in ours[1:]] == [
        (p.name, p.kind, p.default, p.annotation) for p in theirs[1:]
    ]


def test_threads_of_the_loop_that_all_wait_keep_no_call_from_its_answer(cache: UnifiedCache) -> None:
    calls: list[int] = []

    @cache.cached
    async def later(x: int) -> int:
        calls.append(x)
        return x

    async def main() -> list[int]:
        go_on = threading.Event()
        loop = asyncio.get_running_loop()
        full = [loop.run_in_executor(None, go_on.wait) for _ in range(64)]
        try:
            await cache.aput(1, x=1)
            return [await cache.aget(x=1), await later(2), await later(2)]
        finally:
            go_on.set()
            await asyncio.gather(*full)

    assert asyncio.run(main()) == [1, 2, 2]
    assert calls == [2]


def test_no_more_threads_than_the_bound_work_at_once(cache: UnifiedCache) -> None:
    async def main() -> set[str]:
        go_on, seen = threading.Event(), set[str]()

        def wait() -> None:
            seen.add(threading.current_thread().name)
            go_on.wait()

        waiting = [asyncio.create_task(off_loop(wait)) for _ in range(2 * THREADS)]
        await until(lambda: len(seen) == THREADS)
        go_on.set()
        await asyncio.gather(*waiting)
        return seen

    assert len(asyncio.run(main())) == THREADS
    assert len(asyncio.run(cache.aget_many([]))) == 0


def test_a_read_that_is_cancelled_ends_at_once_and_a_write_when_it_is_done() -> None:
    async def cancelled(wait: Callable[[Callable[[], Any]], Any]) -> list[str]:
        began, go_on, order = threading.Event(), threading.Event(), list[str]()

        def work() -> None:
            began.set()
            go_on.wait()
            order.append("done")

        task = asyncio.create_task(wait(work))
        await until(began.is_set)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        with pytest.raises(asyncio.CancelledError):
            await task
        order.append("cancelled")
        await until(lambda: "done" in order)
        return order

    assert asyncio.run(cancelled(off_loop)) == ["cancelled", "done"]
    assert asyncio.run(cancelled(to_the_end)) == ["done", "cancelled"]


def test_a_call_that_waits_for_a_thread_and_is_cancelled_never_begins(cache: UnifiedCache) -> None:
    async def main() -> None:
        go_on = threading.Event()
        full = [submit(go_on.wait) for _ in range(THREADS)]
        task = asyncio.create_task(off_loop(lambda: cache.put(1, x=1)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        assert [one.result(10) for one in full] == [True] * THREADS
        await off_loop(lambda: None)

    asyncio.run(main())
    assert cache.get(x=1) is None


def test_a_loop_within_a_call_does_not_wait_for_the_threads_that_it_fills(cache: UnifiedCache) -> None:
    def within() -> Any:
        return asyncio.run(cache.aget(x=1, default="none"))

    async def main() -> list[Any]:
        return await asyncio.gather(*(off_loop(within) for _ in range(2 * THREADS)))

    assert asyncio.run(main()) == ["none"] * 2 * THREADS


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own(cache: UnifiedCache) -> None:
    cache.put(1, x=1)
    assert asyncio.run(cache.aget(x=1)) == 1

    def work() -> None:
        assert asyncio.run(cache.aget(x=1)) == 1

    assert ended(fork(work)) == 0
