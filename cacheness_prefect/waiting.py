"""Wait for a key: in a thread or on an event loop, in a queue per process.

Of a process's runs for one key, one at a time requests it from the database; the others wait in a
queue. Otherwise five hundred runs of one key would each poll the database.
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
    """What a run waits for: so many seconds, or a future, with a time limit."""

    seconds: float
    until: Future[bool] | None = None


#: A run's steps to a key: short calls to a store, and pauses in between; returns whether it got the key.
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
    """The runs of one process for one key: the one with the turn, and the queue."""

    run: str
    waiting: deque[tuple[str, Future[bool]]] = field(default_factory=deque)


class Turns:
    """Decides which run of this process may request a key from the database."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._lines: dict[Hashable, _Line] = {}

    def ask(self, place: Hashable, run: str, above: Collection[str]) -> Future[bool]:
        """Join the queue. Return True for the turn, False to continue without it, because no run must wait any more.

        No run waits for a turn of its outer runs (`above`), which wait for it.
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
        """Give the turn to the next in the queue."""
        with self._lock:
            line = self._lines[place]
            while line.waiting:
                line.run, turn = line.waiting.popleft()
                if turn.set_running_or_notify_cancel():
                    turn.set_result(True)
                    return
            del self._lines[place]

    def end(self, place: Hashable) -> None:
        """Let all runs in the queue continue: their result is there."""
        with self._lock:
            for _, turn in self._lines.pop(place).waiting:
                if turn.set_running_or_notify_cancel():
                    turn.set_result(False)


turns = Turns()


def _begin_in_child() -> None:
    turns.__init__()  # type: ignore[misc]  # the lines are the parent's


os.register_at_fork(after_in_child=_begin_in_child)
