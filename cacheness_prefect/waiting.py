"""Waiting for a key: in a thread or on an event loop, and in line within one process.

Of the runs in a process that want one key, one at a time asks the database for it; the others wait
in line. Otherwise five hundred runs of one key would poll the database, each for itself.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Hashable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for_futures
from dataclasses import dataclass, field

from cacheness.off_loop import off_loop, submit


@dataclass(frozen=True, slots=True)
class WaitStep:
    """What a run waits for before it goes on: so many seconds, or a future for so long."""

    seconds: float
    until: Future[bool] | None = None


#: A run on its way to a key: short calls to a store, and pauses in between; at the end whether it got there.
Steps = Generator[WaitStep, None, bool]


def run_steps(steps: Steps) -> bool:
    """Run all steps in this thread."""
    while True:
        try:
            pause = next(steps)
        except StopIteration as done:
            return bool(done.value)
        if pause.until is None:
            time.sleep(pause.seconds)
        else:
            wait_for_futures([pause.until], timeout=pause.seconds)


async def run_steps_off_loop(steps: Steps, undo: Callable[[], object]) -> bool:
    """Run the steps in threads and pause on the event loop; `undo` them when the caller is cancelled."""

    def clean_up() -> None:
        steps.close()
        undo()

    awaited: tuple[Future[bool], asyncio.Future[bool]] | None = None  # one wrapper for all pauses until a future
    while True:
        pause = await off_loop(lambda: _next(steps), on_cancel=clean_up)
        if isinstance(pause, bool):
            return pause
        try:
            if pause.until is None:
                await asyncio.sleep(pause.seconds)
            else:
                if awaited is None or awaited[0] is not pause.until:
                    awaited = (pause.until, asyncio.wrap_future(pause.until))
                await asyncio.wait([awaited[1]], timeout=pause.seconds)
        except asyncio.CancelledError:
            submit(clean_up)
            raise


def _next(steps: Steps) -> WaitStep | bool:
    try:
        return next(steps)
    except StopIteration as done:
        return bool(done.value)


@dataclass(slots=True)
class _Line:
    """The runs of one process that want one key: who has the turn, and who waits for it."""

    run: str
    waiting: deque[tuple[str, Future[bool]]] = field(default_factory=deque)


class Turns:
    """Who in this process may ask the database for a key."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._lines: dict[Hashable, _Line] = {}

    def ask(self, place: Hashable, run: str, above: Collection[str]) -> Future[bool]:
        """Stand in line. True: the turn has come. False: go on without it, for nobody has to wait any more.

        Nobody waits for a turn of the runs `above`, which wait for us.
        """
        turn: Future[bool] = Future()
        with self._lock:
            line = self._lines.get(place)
            if line is None:
                self._lines[place] = _Line(run)
                turn.set_result(True)
            elif line.run in above:
                turn.set_result(False)
            else:
                line.waiting.append((run, turn))
        return turn

    def pass_on(self, place: Hashable) -> None:
        """Give the turn to the next in line."""
        with self._lock:
            line = self._lines[place]
            while line.waiting:
                line.run, turn = line.waiting.popleft()
                if turn.set_running_or_notify_cancel():
                    turn.set_result(True)
                    return
            del self._lines[place]

    def end(self, place: Hashable) -> None:
        """Let everybody in line go on: what they wait for is there."""
        with self._lock:
            for _, turn in self._lines.pop(place).waiting:
                if turn.set_running_or_notify_cancel():
                    turn.set_result(False)


turns = Turns()


def _begin_in_child() -> None:
    turns.__init__()  # type: ignore[misc]  # the lines are the parent's


os.register_at_fork(after_in_child=_begin_in_child)
