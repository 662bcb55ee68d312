"""Prefect's process pool, started once: a process takes seconds to start, and every flow would start its own."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Self

from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner

_shared: ProcessPoolTaskRunner | None = None


@contextmanager
def shared_pool(max_workers: int) -> Iterator[None]:
    """Keep one pool for all runners of this process."""
    global _shared  # noqa: PLW0603
    with ProcessPoolTaskRunner(max_workers=max_workers) as _shared:
        yield
    _shared = None


class OnePoolTaskRunner(ProcessPoolTaskRunner):
    """Submits as its parent does, to the workers of the shared pool; in those, which share none, it is its parent."""

    def __enter__(self) -> Self:
        if _shared is None:
            return super().__enter__()
        TaskRunner.__enter__(self)
        self._executor = _shared._executor
        self._resolver_executor = ThreadPoolExecutor(self._max_workers)
        return self

    def cancel_all(self) -> None:
        if _shared is not None:
            self._executor = None  # not ours to shut down
        super().cancel_all()


_conforms: type[TaskRunner[Any]] = OnePoolTaskRunner
