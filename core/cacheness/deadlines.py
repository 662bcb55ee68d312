"""How long a call to a store may take: retries within a bound, and a circuit for dead servers.

Each driver bounds a single attempt. This module bounds what several attempts cost together,
and what a run pays for a server that is down: after `failures` failed attempts in a row, or
once they have cost `total` seconds, the circuit opens, and for `cooldown` seconds every call
fails at once instead of waiting again.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from cacheness.errors import CachenessError, CommitUnanswered, StoreUnavailable
from cacheness.jitter import between

T = TypeVar("T")

_patience: ContextVar[float | None] = ContextVar("cacheness_patience", default=None)


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Let calls inside the block wait at most this long for a lock, instead of the configured time."""
    token = _patience.set(seconds)
    try:
        yield
    finally:
        _patience.reset(token)


def patience_or(default: float) -> float:
    """Seconds that the current call may wait for a lock."""
    shorter = _patience.get()
    return default if shorter is None else min(shorter, default)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on calls to one server, in seconds where not said otherwise."""

    connect: float = 2.0
    statement: float = 5.0
    stall: float = 10.0  #: without progress in a blob transfer
    least_rate: float = float(1 << 20)  #: bytes a second that a blob transfer must average
    busy: float = 30.0  #: waiting for SQLite's write lock
    attempts: int = 3
    total: float = 10.0  #: all attempts of one call, unless a transfer is making progress
    failures: int = 3  #: failed attempts in a row that open the circuit
    cooldown: float = 30.0

    def transfer(self, size: int) -> float:
        """Seconds that moving `size` bytes may take."""
        return self.stall + size / self.least_rate


class Guard:
    """Bounds the calls to one server. One per store and process; shared by its threads."""

    def __init__(self, what: str, limits: Limits) -> None:
        self._what = what
        self._limits = limits
        self._lock = threading.Lock()
        self._failed = 0
        self._wasted = 0.0
        self._last = ""
        self._open_until = 0.0

    def call(self, attempt: Callable[[], T]) -> T:
        """Run `attempt`, again if the store was unavailable, within the limits.

        An attempt must be harmless to repeat. An unanswered commit is never repeated here.
        """
        self._refuse_while_open()
        try:
            result = self._once(attempt)
        except CommitUnanswered:
            raise
        except StoreUnavailable:
            result = self._again(attempt)
        return result

    def once(self, attempt: Callable[[], T]) -> T:
        """Run `attempt` a single time, behind the same circuit."""
        self._refuse_while_open()
        return self._once(attempt)

    def _again(self, attempt: Callable[[], T]) -> T:
        # The first attempt ran outside of stamina, whose import takes longer than a fresh process has
        # for its first hit, and whose call costs more than a cached read.
        import stamina

        _hush()
        limits = self._limits
        retrying = stamina.retry(
            on=self._is_worth_retrying,
            attempts=max(limits.attempts - 1, 1),
            timeout=limits.total,
            # Its own jitter would draw from the generator that a user may have seeded.
            wait_initial=between(0.05, 0.15),
            wait_max=1.0,
            wait_jitter=0.0,
        )
        return retrying(self._once)(attempt)

    def _once(self, attempt: Callable[[], T]) -> T:
        began = time.monotonic()
        try:
            result = attempt()
        except StoreUnavailable as error:
            self._count_failure(error, time.monotonic() - began)
            raise
        except CachenessError:
            self._forget_failures()  # not what was hoped for, but an answer
            raise
        self._forget_failures()
        return result

    def _forget_failures(self) -> None:
        self._failed = 0
        self._wasted = 0.0

    def _is_worth_retrying(self, error: Exception) -> bool:
        if isinstance(error, CommitUnanswered) or not isinstance(error, StoreUnavailable):
            return False
        return time.monotonic() >= self._open_until

    def _count_failure(self, error: StoreUnavailable, seconds: float) -> None:
        with self._lock:
            self._failed += 1
            self._last = str(error)
            self._wasted += seconds
            if self._failed >= self._limits.failures or self._wasted >= self._limits.total:
                self._open_until = time.monotonic() + self._limits.cooldown

    def _refuse_while_open(self) -> None:
        left = self._open_until - time.monotonic()
        if left > 0:
            raise StoreUnavailable(
                f"{self._last} ({self._what} failed several times in a row and is not asked again for {left:.0f} s)"
            )


class _NotOurs(logging.Filter):
    """Drops stamina's own line about a retry of ours: who gives up in the end says so, once."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.__dict__.get("stamina.callable", "")).startswith("cacheness.")


@functools.cache
def _hush() -> None:
    logging.getLogger("stamina").addFilter(_NotOurs())
