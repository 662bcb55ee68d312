"""Do the same with many blobs side by side: a store that is far away makes each of them wait."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final, TypeVar

from cacheness import forks
from cacheness.errors import CachenessError

T = TypeVar("T")
R = TypeVar("R")

TRANSFERS: Final = 64  #: blobs that travel at the same time
BYTES_AT_MOST: Final = 512 << 20  #: and how many bytes of them; a larger blob travels alone


class _Room:
    """How many bytes may be transferred at a time; others wait."""

    def __init__(self) -> None:
        self._taken = 0
        self._changed = threading.Condition()
        forks.watch_forks(self)

    def reset_after_fork(self) -> None:
        """Take another lock than one that a thread of the parent may hold."""
        self._changed = threading.Condition()

    @contextmanager
    def of(self, size: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + size <= BYTES_AT_MOST)
            self._taken += size
        try:
            yield
        finally:
            with self._changed:
                self._taken -= size
                self._changed.notify_all()


def concurrently(work: Callable[[T], R], items: Iterable[T], size: Callable[[T], int] = lambda _: 0) -> list[R]:
    """The results of `work` for each item, in order; a single item needs no thread.

    `size` says how many bytes an item holds while it is worked on.
    """
    items, room = list(items), _Room()
    if len(items) <= 1:
        return [work(item) for item in items]

    def bounded(item: T) -> R:
        with room.of(size(item)):
            return work(item)

    # A pool starts no thread while another one is idle, so that a store at hand gets by with a few.
    with ThreadPoolExecutor(min(TRANSFERS, len(items)), thread_name_prefix="cacheness-transfer") as pool:
        try:
            done = pool.map(bounded, items)
        except RuntimeError:  # what is stored while the interpreter exits finds no more threads
            done = map(work, items)
        return list(done)


def failures_of(
    work: Callable[[str], None], names: Iterable[str], *, side_by_side: bool = True
) -> dict[str, CachenessError]:
    """Do it with each name, side by side where that saves waiting; what failed, and why."""

    def attempt(name: str) -> tuple[str, CachenessError] | None:
        try:
            work(name)
        except CachenessError as error:
            return name, error
        return None

    failures = concurrently(attempt, names) if side_by_side else map(attempt, names)
    return dict(failure for failure in failures if failure is not None)
