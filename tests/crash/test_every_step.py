"""Fail, crash or be killed at the first, second, third … step, until a run passes untouched."""

from __future__ import annotations

import contextlib
import random
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from cacheness import StoreUnavailable, UnifiedCache
from cacheness.config import Config
from cacheness.file_locks import unlock, wait_in_line
from cacheness.testing.faults import Countdown, Crashed, crash, failing_with, kill, stepwise
from tests.crash.children import CONTEXT

OLD, NEW, LOST = (random.Random(n).randbytes(60_000) for n in range(3))


def put_new(cache: UnifiedCache) -> None:
    cache.put(NEW, k=1)


def put_small(cache: UnifiedCache) -> None:
    cache.put(b"small", k=1)


def invalidate(cache: UnifiedCache) -> None:
    cache.invalidate(k=1)


def batch(cache: UnifiedCache) -> None:
    with cache.write_batch():
        cache.put(NEW, k=1)
        cache.put(NEW, k=2)


def evict(cache: UnifiedCache) -> None:
    cache.evict()


def repair(cache: UnifiedCache) -> None:
    cache.verify_integrity(repair=True)


#: What may be found under k=1 after the operation was cut short anywhere.
OPERATIONS: dict[str, tuple[Callable[[UnifiedCache], None], set[Any]]] = {
    "put": (put_new, {OLD, NEW}),
    "put inline": (put_small, {OLD, b"small"}),
    "invalidate": (invalidate, {OLD, None}),
    "batch": (batch, {OLD, NEW}),
    "evict": (evict, {OLD}),
    "repair": (repair, {OLD}),
}
operations = pytest.mark.parametrize("operation", OPERATIONS)


def check(world, allowed: set[Any]) -> None:
    """I1 to I6 after the fact: old or new, and after one repair as many blobs as rows."""
    cache = world.reopen()
    assert cache.get(k=1) in allowed
    cache.evict()  # what has expired is not listed, yet has its blob
    cache.verify_integrity(repair=True)
    assert cache.get(k=1) in allowed
    left = cache.verify_integrity(deep=True)
    assert list(left) == []
    assert left.blobs == sum(entry["blob"] is not None for entry in cache.list_entries())


def prepare(world) -> None:
    """An old value to lose, an expired one to evict, and an orphan for a repair to find."""
    world.cache.put(OLD, k=1)
    world.cache.put(OLD, k=9, ttl=0.000001)
    leave_orphan(world.config)


def leave_orphan(config: Config) -> None:
    def after_the_blob(step: str, when: str) -> None:
        if (step, when) == ("metadata.commit", "before"):
            raise Crashed

    cache = stepwise(config, after_the_blob)
    with pytest.raises(Crashed):
        cache.put(LOST, k=8)
    cache.close()


def run(operate: Callable[[UnifiedCache], None], config: Config, countdown: Countdown) -> None:
    with stepwise(config, countdown) as cache:
        operate(cache)


@operations
def test_i1_i2_a_crash_at_any_step_leaves_old_or_new(world, operation):
    operate, allowed = OPERATIONS[operation]
    n, reached = 0, True
    while reached:
        n += 1
        prepare(world)
        countdown = Countdown(n, crash)
        with contextlib.suppress(Crashed):
            run(operate, world.config, countdown)
        reached = countdown.reached
        check(world, allowed)
        world.cache.clear()
    assert n > 3


@operations
def test_i2_a_store_that_fails_at_any_step_loses_nothing(world, operation):
    operate, allowed = OPERATIONS[operation]
    n, reached = 0, True
    while reached:
        n += 1
        prepare(world)
        countdown = Countdown(n, failing_with(StoreUnavailable("pulled the plug")))
        with contextlib.suppress(StoreUnavailable):
            run(operate, world.config, countdown)
        reached = countdown.reached
        check(world, allowed)
        world.cache.clear()


def run_and_die(config: Config, operation: str, n: int, untouched: Any) -> None:
    """In a child process: before the n-th step it dies. After a step would leave the same as before the next one."""
    countdown = Countdown(n, kill)

    def before(step: str, when: str) -> None:
        if when == "before":
            countdown(step, when)

    cache = stepwise(config, before)
    OPERATIONS[operation][0](cache)
    cache.close()
    untouched.set()


@operations
def test_i5_i6_a_process_killed_at_any_step_leaves_at_most_what_one_repair_removes(world, operation):
    _, allowed = OPERATIONS[operation]
    untouched = CONTEXT.Event()
    n = 0
    while not untouched.is_set():
        n += 1
        prepare(world)
        child = CONTEXT.Process(target=run_and_die, args=(world.config, operation, n, untouched))
        child.start()
        child.join()
        assert child.exitcode == (0 if untouched.is_set() else -signal.SIGKILL)
        check(world, allowed)
        world.cache.clear()
    assert n > 3


# An interrupt between opening a file and remembering it leaves it to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <function (Lease.__del__|WeakSet.*_remove):pytest.PytestUnraisableExceptionWarning"
)
def test_i2_a_signal_at_any_moment_leaves_old_or_new_and_no_litter(tmp_path):
    """Interrupted 60 times, each time a little later: Ctrl-C between any two instructions of a put.

    Python reports what a destructor or a weak reference's callback raises and goes on: the put is then not
    interrupted, and succeeds.
    """
    with UnifiedCache(cache_dir=tmp_path) as cache:
        cache.put(OLD, k=1)

        def interrupt(_number: int, _frame: object) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, interrupt)
        interrupted = 0
        try:
            for n in range(60):
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.0001 + n * 0.0001)
                    cache.put(NEW if n % 2 else OLD, k=1)
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except KeyboardInterrupt:
                    interrupted += 1
                assert cache.get(k=1) in {OLD, NEW}
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert interrupted > 0
        cache.put(NEW, k=1)
        cache.verify_integrity(repair=True)
        report = cache.verify_integrity(deep=True)
        assert (list(report), report.blobs) == ([], 1)


@pytest.mark.parametrize("operation", ["put", "invalidate"])
def test_i2_an_interruption_at_any_line_of_the_store_keeps_nobody_from_writing(tmp_path, operation):
    """Neither this thread nor others: no lock, no place in line and no open transaction stays behind.

    In a process of its own, because a trace, unlike a signal, can interrupt a `with` before it gives its lock back.
    """
    child = CONTEXT.Process(target=interrupt_everywhere, args=(tmp_path, operation))
    child.start()
    child.join()
    assert child.exitcode == 0


def interrupt_everywhere(folder: Path, operation: str) -> None:
    operate, allowed = OPERATIONS[operation]
    with UnifiedCache(cache_dir=folder, busy_timeout=1.0) as cache:
        moment, reached = 0, True
        while reached:
            moment += 1
            cache.put(OLD, k=1)
            reached = interrupt_at_line(moment, "/cacheness/metadata/", lambda: operate(cache))
            assert cache.get(k=1) in allowed
            with contextlib.closing(sqlite3.connect(folder / "metadata.sqlite", timeout=5)) as other:
                other.execute("BEGIN IMMEDIATE")
            turn = wait_in_line(folder / "metadata.sqlite-line", 5)
            assert turn is not None
            unlock(turn)
    assert moment > 50


def interrupt_at_line(moment: int, where: str, operate: Callable[[], None]) -> bool:
    """Interrupt a call before the n-th line that it runs in files of a folder: whether it came that far."""
    left = moment

    def trace(frame: FrameType, event: str, _arg: object) -> Callable[..., Any] | None:
        nonlocal left
        if event == "call" and (where not in frame.f_code.co_filename or frame.f_code.co_name == "__del__"):
            return None
        left -= event == "line"
        if left == 0 and event == "line":
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    with contextlib.suppress(KeyboardInterrupt):
        operate()
    sys.settrace(None)
    return left <= 0


def test_a_session_that_could_not_be_ended_is_ended_when_the_database_answers_again(world):
    """Or its orphan would stay for as long as this process lives."""
    down = [False]

    def fail_while_down(step: str, when: str) -> None:
        down[0] = down[0] or (step, when) == ("metadata.commit", "before")
        if down[0] and step.startswith("metadata."):
            raise StoreUnavailable("down")

    cache = stepwise(world.config, fail_while_down)
    with pytest.raises(StoreUnavailable):
        cache.put(NEW, k=1)
    assert len(world.cache.verify_integrity()) == 0  # for all that anybody knows, it is still being written
    down[:] = [False]
    cache._store.metadata._on_step = lambda step, when: None
    cache.put(NEW, k=2)
    assert world.cache.verify_integrity(repair=True).counts() == {"orphaned": 1}
    cache.close()
