"""Retry calls to a server within limits, and stop calling a server that does not answer.

Each driver limits a single attempt. This module limits the total time of several attempts, and the
cost of a server that is down: after `failures` failed attempts in a row, or once they have taken
`total` seconds, the circuit opens. Then every call fails immediately, except one: after 1, 2, 4 …
`cooldown` seconds one call makes a single attempt, and an answer closes the circuit. Waiting for
other processes' locks is no failure; an error in the caller's request is an answer.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final, ParamSpec, TypeVar

from cacheness import forks
from cacheness.deadlines import Limits
from cacheness.errors import CachenessError, CommitUnanswered, StoreBusy, StoreUnavailable
from cacheness.jitter import between

P = ParamSpec("P")
T = TypeVar("T")

#: Whether an outer open circuit is testing whether its server answers.
_trying: ContextVar[bool] = ContextVar("cacheness_trying", default=False)

#: Seconds until an open circuit makes its first attempt; then twice as long each time.
FIRST_TRY: Final = 1.0


class Guard:
    """Limits the calls to one server. One per store and process; shared by its threads."""

    def __init__(self, what: str, limits: Limits) -> None:
        self._what = what
        self._limits = limits
        self._lock = threading.RLock()
        self._failed = 0
        self._wasted = 0.0
        self._counted_at = float("-inf")  #: when the last failure was counted
        self._last = ""
        self._pause = 0.0  #: seconds between the last attempt and the next; 0 while the circuit is closed
        self._open_until = 0.0
        self._is_trying = False
        forks.watch_forks(self)

    def call(self, attempt: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `attempt`, again if the store was unavailable, within the limits.

        An attempt must be harmless to repeat. A commit without an answer is never repeated here.
        """
        try:
            return self.once(attempt, *args, **kwargs)
        except StoreUnavailable as error:
            if not self._is_worth_retrying(error):
                raise
        return self._again(functools.partial(attempt, *args, **kwargs))

    def once(self, attempt: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `attempt` once, behind the same circuit."""
        if self._pause:
            return self._try_once(functools.partial(attempt, *args, **kwargs))
        began = time.monotonic()
        try:
            result = attempt(*args, **kwargs)
        except CachenessError as error:
            self._count(error, began)
            raise
        if self._failed or self._pause:
            self._reset_failures()
        return result

    def reset_after_fork(self) -> None:
        """Make a new lock: a thread of the parent may hold the old one."""
        self._lock, self._is_trying = threading.RLock(), False

    def _again(self, attempt: Callable[[], T]) -> T:
        # The first attempt ran without stamina, whose import takes longer than a new process has
        # for its first hit, and whose call costs more than a cached read.
        with forks.no_fork():  # a child forked during a thread's import could never import that module
            import stamina

        _hush()
        limits = self._limits
        retrying = stamina.retry(
            on=self._is_worth_retrying,
            attempts=max(limits.attempts - 1, 1),
            timeout=limits.total,
            # stamina's jitter would draw from the generator that a user may have seeded.
            wait_initial=between(0.05, 0.15),
            wait_max=1.0,
            wait_jitter=0.0,
        )
        return retrying(self.once)(attempt)

    def _try_once(self, attempt: Callable[[], T]) -> T:
        """Run `attempt` if an attempt is due while the circuit is open."""
        self._refuse_while_open()
        token, began = _trying.set(True), time.monotonic()
        try:
            result = attempt()
        except CachenessError as error:
            self._count(error, began, is_try=True)
            raise
        else:
            self._reset_failures()
            return result
        finally:
            _trying.reset(token)
            self._is_trying = False

    def _count(self, error: CachenessError, began: float, *, is_try: bool = False) -> None:
        if isinstance(error, StoreBusy):
            return  # neither a failure nor an answer: a lock of another process shows nothing about the server
        if isinstance(error, StoreUnavailable):
            self._count_failure(error, began, is_try=is_try)
        else:
            self._reset_failures()  # an error, but an answer

    def _reset_failures(self) -> None:
        self._failed = 0
        self._wasted = 0.0
        self._pause = 0.0

    def _is_worth_retrying(self, error: Exception) -> bool:
        if isinstance(error, CommitUnanswered | StoreBusy) or not isinstance(error, StoreUnavailable):
            return False
        return not self._pause and not _trying.get()

    def _count_failure(self, error: StoreUnavailable, began: float, *, is_try: bool) -> None:
        with self._lock:
            self._last = str(error)
            # Parallel failures count as one: a server that rejects a burst may accept the same calls a moment later.
            if (self._pause or began < self._counted_at) and not is_try:
                return
            self._counted_at = time.monotonic()
            self._failed += 1
            self._wasted += self._counted_at - began
            if self._pause or self._failed >= self._limits.failures or self._wasted >= self._limits.total:
                longest = self._limits.cooldown
                self._pause = min(2 * self._pause if self._pause else FIRST_TRY, longest)
                self._open_until = time.monotonic() + self._pause

    def _refuse_while_open(self) -> None:
        """Let one caller make an attempt when it is due. Raises StoreUnavailable for all others."""
        with self._lock:
            left = self._open_until - time.monotonic()
            if left <= 0 and not self._is_trying:
                self._is_trying = True
                return
        raise StoreUnavailable(
            f"{self._last} ({self._what} failed several times in a row"
            f" and is not called again for {max(left, 0):.0f} s)"
        )


class _NotOurs(logging.Filter):
    """Drops stamina's log line about a retry of ours: a final failure is logged once."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.__dict__.get("stamina.callable", "")).startswith("cacheness.")


@functools.cache
def _hush() -> None:
    logging.getLogger("stamina").addFilter(_NotOurs())
