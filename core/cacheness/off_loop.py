"""Run calls for an event loop in separate threads.

Not `asyncio.to_thread`: all users share its few threads, and long waits there would block the
cache. None of the calls made here waits for another one of them.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from cacheness import forks

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

T = TypeVar("T")

THREADS: Final = 16


class _Threads:
    """The threads of this process; a forked child has none of its parent's."""

    def __init__(self) -> None:
        self.reset_after_fork()
        forks.watch_forks(self)

    def reset_after_fork(self) -> None:
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._here = threading.local()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        with forks.no_fork():
            from concurrent.futures import ThreadPoolExecutor

        if getattr(self._here, "is_ours", False):
            # User code in such a call uses a different event loop, so that it does not wait for these threads.
            return ThreadPoolExecutor(1, thread_name_prefix="cacheness-inner").submit(call)
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="cacheness-loop", initializer=self._begin)
            return self._pool.submit(call)

    def _begin(self) -> None:
        self._here.is_ours = True


_threads = _Threads()


def submit(call: Callable[[], T]) -> Future[T]:
    """Run a call in one of the threads, in a copy of the caller's context."""
    context = contextvars.copy_context()
    return _threads.submit(lambda: context.run(call))


async def off_loop(call: Callable[[], T], on_cancel: Callable[[], object] | None = None) -> T:
    """Wait for a call. If it had begun when this was cancelled, it continues, and `on_cancel` follows it."""
    import asyncio

    future = submit(call)
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        if on_cancel is not None:
            undo = on_cancel
            future.add_done_callback(lambda _: submit(undo))
        raise


async def to_the_end(call: Callable[[], T]) -> T:
    """Wait for a call, also after a cancellation: what it takes or writes must not be left behind."""
    import asyncio

    waiting = asyncio.wrap_future(submit(call))
    try:
        return await asyncio.shield(waiting)
    except asyncio.CancelledError:
        while not waiting.done():
            with contextlib.suppress(asyncio.CancelledError):  # cancelled again
                await asyncio.wait([waiting])
        raise
