"""Transfer many blobs in parallel, because a remote store has a delay for each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from cacheness import forks
from cacheness.errors import CachenessError

T = TypeVar("T")
R = TypeVar("R")

TRANSFERS: Final = 64  #: blobs that are transferred at the same time
BYTES_AT_MOST: Final = 512 << 20  #: and their bytes in total; a larger blob is transferred alone


class _Room:
    """Limits the bytes in transfer at a time; other transfers wait."""

    def __init__(self) -> None:
        self._taken = 0
        self._changed = threading.Condition()
        forks.watch_forks(self)

    def reset_after_fork(self) -> None:
        """Make a new lock, because a thread of the parent may hold the old one."""
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
    """Yield the results of `work` for each item, in order; a single item needs no thread.

    `size` returns how many bytes an item holds during the work.
    """
    items, room = list(items), _Room()
    if len(items) <= 1:
        return [work(item) for item in items]
    try:
        with forks.no_fork():
            from concurrent.futures import ThreadPoolExecutor
    except RuntimeError:  # during the interpreter's exit it cannot be imported for the first time
        return list(map(work, items))

    def bounded(item: T) -> R:
        with room.of(size(item)):
            return work(item)

    # A pool starts no thread while another one is idle, so that a fast store needs few.
    with ThreadPoolExecutor(min(TRANSFERS, len(items)), thread_name_prefix="cacheness-transfer") as pool:
        try:
            done = pool.map(bounded, items)
        except RuntimeError:  # during the interpreter's exit no threads can be started
            done = map(work, items)
        return list(done)


def failures_of(
    work: Callable[[str], None], names: Iterable[str], *, side_by_side: bool = True
) -> dict[str, CachenessError]:
    """Run a function for each name, in parallel if that saves waiting; return errors by name."""

    def attempt(name: str) -> tuple[str, CachenessError] | None:
        try:
            work(name)
        except CachenessError as error:
            return name, error
        return None

    failures = concurrently(attempt, names) if side_by_side else map(attempt, names)
    return dict(failure for failure in failures if failure is not None)
