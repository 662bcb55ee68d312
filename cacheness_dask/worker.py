"""The cache in one process: its handle, which all runs and tasks share, and its queue."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from cacheness import Config, UnifiedCache
from cacheness_dask import live, reports
from cacheness_dask.policy import Meter, Policy
from cacheness_dask.write_behind import Late, WriteBehind

_lock = threading.RLock()
_open: dict[Config, WorkerCache] = {}
#: How many runs of this process use a cache.
_holders: Counter[Config] = Counter()


def _begin_in_child() -> None:
    """In a forked child, open separate caches: the parent's queues store what waits in them."""
    _lock._at_fork_reinit()  # type: ignore[attr-defined]  # noqa: SLF001 - as the standard library does
    _open.clear()
    _holders.clear()


os.register_at_fork(after_in_child=_begin_in_child)


@dataclass(frozen=True)
class Store:
    """What every task of a run needs to know about the cache: small, and the same for all of them."""

    config: Config = field(repr=False)  # its URLs may contain passwords
    policy: Policy
    provenance: dict[str, Any] = field(default_factory=dict)
    pool: bytes = b""  #: the graph, if its tasks run in a pool of processes: they report through the cache
    run: bytes = b""  #: to which this process reports

    def opened(self) -> WorkerCache:
        """Return this process's handle on the cache."""
        found = _open.get(self.config)
        return found if found is not None else _opened(self)

    def warn(self, error: BaseException) -> None:
        """Report an error because of which results are not stored."""
        reports.note_trouble(self.config, error)


class WorkerCache:
    """One cache in one process, with its queue of results to be stored and its measured speed."""

    def __init__(self, store: Store) -> None:
        self.cache = Late(partial(UnifiedCache, store.config))
        self.meter = Meter(store.policy.latency)
        self.queue = WriteBehind(self.cache, self.meter, store.policy.queue_bytes, store.warn)


def _opened(store: Store) -> WorkerCache:
    with _lock:
        found = _open.get(store.config)
        if found is None:
            found = _open[store.config] = WorkerCache(store)
        return found


def report(config: Config, run: bytes) -> reports.WorkerReport:
    """Wait until everything that this process has to store is stored; return its report to a run."""
    found = _open.get(config)
    if found is not None:
        found.queue.flush()
    live.send()
    return reports.taken(config, run)


def is_behind(config: Config) -> bool:
    """Return True when this process has results that are not stored yet."""
    found = _open.get(config)
    return found is not None and found.queue.waiting > 0


async def report_soon(config: Config, run: bytes) -> reports.WorkerReport:
    """Do the same for the event loop of a worker, which must not be blocked."""
    return await asyncio.to_thread(report, config, run)


def hold(config: Config) -> None:
    """Keep this process's handle open until `release`, also when others release it."""
    with _lock:
        _holders[config] += 1


def release(config: Config) -> None:
    """Store what is waiting, and close this process's handle if there are no other users."""
    with _lock:
        _holders[config] -= 1
        if _holders[config] > 0:
            return
        del _holders[config]
        found = _open.pop(config, None)
    if found is not None:
        found.queue.close()
