"""Track graphs from their plan to their end: until then, their tasks store results."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

from cacheness_dask.decisions import GraphPlan
from cacheness_dask.reading import Reading

#: For what threads that compute in one run change together; held briefly.
lock = threading.RLock()
#: A new lock in a child, because a thread of the parent may hold the old one.
os.register_at_fork(after_in_child=lock._at_fork_reinit)  # type: ignore[attr-defined]  # noqa: SLF001

#: Graphs that are tracked before those that are over are dropped: `submit` makes one for each call.
_MOST: Final = 1_000


#: Misses that the figures do not have yet, by function and reason.
Misses: TypeAlias = Counter[tuple[str, str]]


class UnderWay:
    """One graph whose tasks compute, and may store results.

    Args:
        plan: its plan.
        states: of the futures of its wanted keys; empty if a caller waits for these.
        misses: what it computes.
        stores: its results are stored.
    """

    def __init__(self, plan: GraphPlan, states: Iterable[Any], misses: Misses, *, stores: bool) -> None:
        self.reading = Reading(plan) if stores and plan.files and plan.misses else None
        self.misses = misses
        self._states = tuple(states)
        self._is_over = False

    def end(self) -> None:
        """Record that the caller has its results, or an error."""
        self._is_over = True

    @property
    def is_over(self) -> bool:
        """Return True when its tasks have ended, or nobody has futures of it any more."""
        return self._is_over or (bool(self._states) and all(state.status != "pending" for state in self._states))

    @property
    def may_store(self) -> bool:
        """Return True while results may be stored of files that only this run compares again: it must not end now."""
        return self.reading is not None and bool(self._states) and not self.is_over


class GraphsUnderWay:
    """The graphs of one run. Thread-safe: threads compute in one run, and look after the graphs of others."""

    def __init__(self) -> None:
        self._graphs: list[UnderWay] = []
        self._most = _MOST  #: of them, before those that are over are dropped
        self._misses: Misses = Counter()  #: of dropped ones

    def __bool__(self) -> bool:
        return any(not graph.is_over for graph in self.every())

    def add(self, graph: UnderWay) -> None:
        """Track a graph that is about to run."""
        with lock:
            if len(self._graphs) >= self._most:
                over = [one for one in self._graphs if one.reading is None and one.is_over]
                self._misses = self.taken_misses(over)
                self.remove(over)
                self._most = max(_MOST, 2 * len(self._graphs))
            self._graphs.append(graph)

    def every(self) -> list[UnderWay]:
        """Return the tracked graphs."""
        with lock:
            return list(self._graphs)

    def taken_misses(self, graphs: Iterable[UnderWay]) -> Misses:
        """Return the misses of graphs that have ended, and of those that were dropped, each once."""
        with lock:
            found, self._misses = self._misses, Counter()
            for graph in graphs:
                found += graph.misses
                graph.misses = Counter()
        return found

    def remove(self, graphs: Iterable[UnderWay]) -> None:
        """Stop tracking graphs."""
        gone = set(map(id, graphs))
        with lock:
            self._graphs = [graph for graph in self._graphs if id(graph) not in gone]
