"""Do the same with many blobs side by side: a store that is far away makes each of them wait."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from cacheness.errors import CachenessError

T = TypeVar("T")
R = TypeVar("R")

TRANSFERS: Final = 8  #: blobs that travel at the same time


def concurrently(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """The results of `work` for each item, in order; a single item needs no thread."""
    items = list(items)
    if len(items) <= 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(min(TRANSFERS, len(items)), thread_name_prefix="cacheness-transfer") as pool:
        try:
            done = pool.map(work, items)
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
