"""Run the steps of a call: in the caller's thread for a function, in another one for a coroutine function.

The steps are coroutines in both cases. Those of a plain function never wait for an event loop, so
that `InThread.finish` runs them to their end like a call.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any, Final, ParamSpec, Protocol, TypeVar

from cacheness import forks
from cacheness.coordination.leases import ComputeLeases
from cacheness.deadlines import Patience
from cacheness.keys import Key, unseen
from cacheness.memoize.body import Body
from cacheness.memoize.function import MemoizedFunction, Without
from cacheness.off_loop import to_the_end

P = ParamSpec("P")
T = TypeVar("T")

#: Seconds that a call waits for locks of the cache in total.
PATIENCE: Final = 5.0


class ComputeLease:
    """The right to compute one key, for one call."""

    def __init__(self, leases: Callable[[], ComputeLeases]) -> None:
        self._leases = leases
        self._token = ""
        self._key = ""
        self.begun = False

    def begin(self, key: Key) -> bool:
        """Take it; return False when another process has it."""
        self._key, self._token = key.hex, self._token or os.urandom(16).hex()
        self.begun = True  # even if the answer is lost
        self._generation = forks.generation()
        self._taken_of = self._leases()
        taken = self._taken_of.acquire(self._key, self._token)
        self.begun = taken
        return taken

    def end(self) -> None:
        """Release it. In a child that was forked during the computation, it is still the parent's."""
        if self._generation == forks.generation():
            self._leases().release(self._key, self._token)

    def abandon(self) -> None:
        """Have the heartbeat release it, because a coroutine that is collected cannot wait."""
        if self.begun and self._generation == forks.generation():
            self._taken_of.abandon(self._key, self._token)
        self.begun = False


class Steps(Protocol):
    """What the steps of a call await. They share the seconds that the call may wait for locks."""

    lease: ComputeLease

    async def run(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what this work of the cache returns."""
        ...

    async def ask(self, question: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T | Without:
        """Return the cache's answer, or that it failed."""
        ...

    async def run_body(self, body: Body) -> Any:
        """Return what the function returns; `Failed` if an audit's function raised."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Pause for a while."""
        ...


class _Runner:
    """What both ways to run steps share.

    The steps are the cache's work: their waits for locks are limited in total, and the files that
    they open are not the function's. The body of the function is an interruption of this work.
    """

    def __init__(self, cached: MemoizedFunction, patience: Patience | None = None) -> None:
        self._cached = cached
        self._patience = patience or Patience(PATIENCE)
        self._unseen = unseen()
        self.lease = ComputeLease(cached.leases)

    def _begin_work(self) -> None:
        self._patience.__enter__()
        self._unseen.__enter__()

    def _end_work(self) -> None:
        self._unseen.__exit__()
        self._patience.__exit__()


class _BodyToRun:
    """Passes a body to `InThread.finish`, which runs it, and returns its result."""

    def __init__(self, body: Body) -> None:
        self._body = body

    def __await__(self) -> Generator[Body, Any, Any]:
        return (yield self._body)


class InThread(_Runner):
    """Runs steps in the caller's thread."""

    _stop: StopIteration | None = None  #: raised by user code; a coroutine cannot raise it itself

    def finish(self, steps: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the result of steps, and release the lease that they took."""
        self._begin_work()
        running, result = steps(*args, **kwargs), None
        try:
            while True:
                # Not within the steps: their frames would count towards the depth to which the function may call
                # itself, and they cannot pass its StopIteration on.
                result = self._run_now(running.send(result))
        except StopIteration as done:
            if self._stop is None:
                value: T = done.value
                return value
            raise
        except RuntimeError:
            if self._stop is None:
                raise
        finally:
            try:
                running.close()
                if self.lease.begun:
                    self._cached.ask(self.lease.end)
            finally:
                self._end_work()
        raise self._stop

    def _run_now(self, body: Body) -> Any:
        self._end_work()
        try:
            with body:
                try:
                    return self._cached.__wrapped__(*body.call.args, **body.call.kwargs)
                except Exception as error:  # noqa: BLE001  raised again, but for an audit
                    return body.failed(error)
        except StopIteration as stop:
            self._stop = stop
            raise
        finally:
            self._begin_work()

    async def run(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what this work of the cache returns."""
        try:
            return work(*args, **kwargs)
        except StopIteration as stop:
            self._stop = stop
            raise

    async def ask(self, question: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T | Without:
        """Return the cache's answer, or that it failed."""
        return self._cached.ask(question, *args, **kwargs)

    async def run_body(self, body: Body) -> Any:
        """Return what the function returns; `Failed` if an audit's function raised."""
        return await _BodyToRun(body)

    async def sleep(self, seconds: float) -> None:
        """Pause for a while."""
        time.sleep(seconds)  # noqa: ASYNC251 - there is no event loop


class OffLoop(_Runner):
    """Runs the cache's steps in another thread, and the function in the event loop."""

    async def finish(self, steps: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the result of steps, and release the lease that they took."""
        self._begin_work()
        try:
            return await steps(*args, **kwargs)
        except GeneratorExit:
            self.lease.abandon()
            raise
        finally:
            try:
                if self.lease.begun:
                    await self.ask(self.lease.end)
            finally:
                self._end_work()

    async def run(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what this work of the cache returns."""
        return await to_the_end(partial(work, *args, **kwargs))

    async def ask(self, question: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T | Without:
        """Return the cache's answer, or that it failed."""
        return await to_the_end(lambda: self._cached.ask(question, *args, **kwargs))

    async def run_body(self, body: Body) -> Any:
        """Return what the coroutine returns; `Failed` if an audit's function raised."""
        self._end_work()
        try:
            with body:
                try:
                    return await self._cached.__wrapped__(*body.call.args, **body.call.kwargs)
                except Exception as error:  # noqa: BLE001  raised again, but for an audit
                    return body.failed(error)
        finally:
            self._begin_work()

    async def sleep(self, seconds: float) -> None:
        """Pause for a while."""
        import asyncio

        await asyncio.sleep(seconds)


def runner_for(cached: MemoizedFunction) -> InThread | OffLoop:
    """Return what runs the steps of a call of this function, by its kind."""
    return OffLoop(cached) if cached.is_coroutine else InThread(cached)
