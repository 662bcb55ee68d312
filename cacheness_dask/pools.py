"""Learn what happened to tasks in a pool of processes: these report only through the cache."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

from cacheness import UnifiedCache
from cacheness_dask.decisions import GraphPlan
from cacheness_dask.graphs import name_of
from cacheness_dask.result_keys import entry_key, failure_key
from cacheness_dask.under_way import lock

#: By fingerprint: the function, and why its result is not stored.
Unstored: TypeAlias = dict[bytes, tuple[str, str]]


class _Graph(NamedTuple):
    """The tasks of a graph in a pool."""

    tasks: dict[str, tuple[bytes, str]]  #: by key of the entry: fingerprint and function
    computed: dict[bytes, str]  #: functions, by fingerprint


class Pools:
    """The tasks that run in pools, since the last report. Thread-safe.

    Args:
        cache: the cache, which has the reports.
    """

    def __init__(self, cache: UnifiedCache) -> None:
        self._cache = cache
        self._running: dict[bytes, _Graph] = {}
        #: Of graphs that have ended since the last report: tasks, and functions of those that raised.
        self._tasks: dict[str, tuple[bytes, str]] = {}
        self._failed: dict[bytes, dict[bytes, str]] = {}

    def begin(self, plan: GraphPlan) -> None:
        """Record the tasks of a graph that is about to run in a pool, if it is."""
        pool = plan.decisions.store.pool
        if not pool:
            return
        computed = {one.digest: name_of(plan.graph[key]) for key, one in plan.decisions.stored.items()}
        tasks = {entry_key(digest): (digest, name) for digest, name in computed.items()}
        earlier = plan.decisions.earlier.items()
        tasks |= {plan.hits[key]: (digest, name_of(plan.graph[key])) for key, digest in earlier}
        with lock:
            self._running[pool] = _Graph(tasks, computed)

    def ended(self, plan: GraphPlan, *, failed: bool) -> None:
        """Record that a graph has ended, and whether a task raised: only now are its reports complete."""
        pool = plan.decisions.store.pool
        with lock:
            graph = self._running.pop(pool, None)
            if graph is not None:
                self._tasks.update(graph.tasks)
                if failed:
                    self._failed[pool] = graph.computed

    def failures(self) -> Iterable[Mapping[str, tuple[int, float]]]:
        """Return the tasks that raised since the last report: one each, and its seconds, by function."""
        with lock:
            ended, self._failed = self._failed, {}
        keys = {failure_key(pool, digest): name for pool, names in ended.items() for digest, name in names.items()}
        found = self._cache.unstored(list(keys)) if keys else {}
        return [{keys[key]: (1, float(seconds))} for key, seconds in found.items()]

    def unstored(self, following: Collection[bytes]) -> Unstored:
        """Return the results that were not stored since the last report.

        Args:
            following: fingerprints of tasks that others follow. If they are hits, their entries exist.
        """
        with lock:
            tasks, self._tasks = self._tasks, {}
        if not tasks:
            return {}
        stored = {key for key in self._cache.present(list(tasks)) if tasks[key][0] not in following}
        reasons: Mapping[str, Any] = self._cache.unstored(list(tasks.keys() - stored))
        return {tasks[key][0]: (tasks[key][1], why) for key, why in reasons.items()}
