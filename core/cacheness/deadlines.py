"""Limit how long a call may take: waits for locks of other processes, and calls to one server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import TypeVar

from cacheness.jitter import between
from cacheness.lazy_dataclass import dataclass

T = TypeVar("T")


class Patience:
    """The total seconds that calls inside its blocks may wait for locks. May be entered several times."""

    def __init__(self, seconds: float) -> None:
        self.left = seconds
        self._entered: list[Token[tuple[Patience, ...]]] = []

    def __enter__(self) -> None:
        self._entered.append(_patience.set((*_patience.get(), self)))

    def __exit__(self, *exc_info: object) -> None:
        try:
            _patience.reset(self._entered.pop())
        except ValueError:  # a coroutine that is collected is closed in another context than its own
            return


_patience: ContextVar[tuple[Patience, ...]] = ContextVar("cacheness_patience", default=())


def patience(seconds: float) -> Patience:
    """Let calls inside the block wait at most this long for locks, instead of the configured time."""
    return Patience(seconds)


def patience_or(default: float) -> float:
    """Return the seconds that the current call may still wait for a lock."""
    return max(min([default, *(outer.left for outer in _patience.get())]), 0.0)


@contextmanager
def waiting(default: float) -> Iterator[float]:
    """Measure a wait for a lock: the time inside the block reduces the remaining patience."""
    began = time.monotonic()
    try:
        yield began + patience_or(default)
    finally:
        spent = time.monotonic() - began
        for outer in _patience.get():
            outer.left -= spent


def retry(
    attempt: Callable[[], T], is_passing: Callable[[Exception], bool], seconds: float, pauses: tuple[float, float]
) -> T:
    """Return what `attempt` returns. Repeat it while another process's lock or transaction blocks it.

    For stores whose other errors are all permanent; a server that does not answer has a `Guard`.

    Args:
        attempt: Must be harmless to repeat.
        is_passing: Called with its error; True if a later attempt may succeed.
        seconds: How long to continue, unless the caller has less patience. After that, the last error is raised.
        pauses: Bounds in seconds. The first pause lasts at most the first bound, each later one at most twice as long
            as the one before, up to the second bound.
    """
    try:
        return attempt()
    except Exception as error:
        if not is_passing(error):
            raise
    longest = pauses[0]
    with waiting(seconds) as deadline:
        while True:
            time.sleep(between(longest / 10, longest))
            try:
                return attempt()
            except Exception as error:
                if not is_passing(error) or time.monotonic() > deadline:
                    raise
            longest = min(2 * longest, pauses[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of calls to one server, in seconds unless noted otherwise."""

    connect: float = 2.0
    statement: float = 5.0
    stall: float = 10.0  #: without progress in a blob transfer
    least_rate: float = float(1 << 20)  #: bytes per second that a blob transfer must average
    busy: float = 30.0  #: waiting for SQLite's write lock
    attempts: int = 3
    total: float = 10.0  #: all attempts of one call, unless a transfer is making progress
    failures: int = 3  #: failed attempts in a row that open the circuit
    cooldown: float = 30.0  #: longest time between two attempts of an open circuit

    def transfer(self, size: int) -> float:
        """Return the seconds that moving `size` bytes may take."""
        return self.stall + size / self.least_rate
