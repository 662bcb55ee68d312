"""Delete results from input files that changed while a graph ran: their keys are those of the old content."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from cacheness import UnifiedCache
from cacheness.keys.inputs import Counted
from cacheness.logs import logger_of
from cacheness_dask.decisions import GraphPlan
from cacheness_dask.result_keys import entry_key, stale_key
from cacheness_dask.sources_and_sinks import state_of

logger = logger_of("cacheness.dask")

_CHANGED: Final = "an input file changed while it was being read"


class Reading:
    """The input files of a graph, which must be unchanged when its results are there."""

    def __init__(self, plan: GraphPlan) -> None:
        self.entries = tuple(plan.misses.values())  #: made from them
        self.pool = plan.decisions.store.pool
        self.is_told = False  #: that its results were deleted
        self._states = plan.files
        self._counted: dict[str, Counted] = {}
        #: For each file, entries of which one exists if a task of the graph itself wrote it.
        self._written: dict[str, set[str]] = {}
        for files in plan.decisions.files.values():
            for _, counted in files.found:
                texts = (entry_key(text) for names, text in files.texts.items() if counted.name in names)
                self._written.setdefault(counted.path, set()).update(texts)
                self._counted[counted.path] = counted

    def changed(self) -> set[str]:
        """Return the files whose content has changed, as far as known."""
        touched = {path for path, state in self._states.items() if state_of(path) != state}
        return {path for path in touched if path not in self._counted or not self._counted[path].is_same()}

    def written(self, cache: UnifiedCache) -> set[str]:
        """Return the files that tasks of the graph wrote."""
        there = cache.present(sorted({key for keys in self._written.values() for key in keys}))
        return {path for path, keys in self._written.items() if not there.keys().isdisjoint(keys)}


def delete_stale(reading: Iterable[Reading], cache: UnifiedCache, flush: Callable[[], None]) -> None:
    """Delete results that were made from files which changed since they were planned.

    Args:
        reading: graphs, of which some may still run: they store more, and must be passed again.
        cache: the cache.
        flush: waits until every worker has stored its results.
    """
    changed = [graph for graph in reading if graph.changed()]
    if not changed:
        return
    flush()
    stale = [graph for graph in changed if graph.changed() - graph.written(cache)]
    if not all(graph.is_told for graph in stale):
        logger.warning("%s, so what was computed is not kept", _CHANGED)
    for graph in stale:
        graph.is_told = True
    # Before the deletion: processes of a pool, which nobody can flush, look for this after they have stored results.
    in_pools = {stale_key(graph.pool): _CHANGED for graph in stale if graph.pool}
    if in_pools:
        cache.note_unstored(in_pools)
    for key in {key for graph in stale for key in graph.entries}:
        cache.invalidate(key)
