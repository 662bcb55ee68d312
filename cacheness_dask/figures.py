"""Count a graph in the figures of its cache: once decided, because tasks run elsewhere and at any time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from cacheness import UnifiedCache
from cacheness.isolation import isolated
from cacheness.records import NEVER_SEEN, NEW_ARGUMENTS, NOT_STORED_BEFORE, RAISED
from cacheness_dask.decisions import GraphPlan
from cacheness_dask.graphs import name_of
from cacheness_dask.miss_reasons import Reasons

#: Functions whose newest entry is read for a graph; the misses of others have no reason.
_ASKED_AT_MOST: Final = 20
#: Seconds after which it is read again.
_ASK_AGAIN: Final = 3600.0
#: In place of a function's name, for tasks that were not needed.
NOT_NEEDED: Final = "(not needed)"


#: The number of failed tasks of a function, and their seconds, by its name.
Failures: TypeAlias = Mapping[str, tuple[int, float]]


class FunctionReasons:
    """Finds why tasks of functions miss, from the newest entry of each. It is read once an hour."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, str]] = {}

    def of(self, plan: GraphPlan, clues: Mapping[Any, bytes], cache: UnifiedCache) -> dict[Any, str]:
        """Return the reason of each miss, by key."""
        reasons, now, asked = Reasons(plan, clues, cache, most=1), time.monotonic(), 0
        of_functions: dict[str, str] = {}
        found: dict[Any, str] = {}
        for key, entry in plan.misses.items():
            if entry in plan.noted:
                found[key] = f"{NOT_STORED_BEFORE}: {plan.noted[entry].partition(':')[0]}"
                continue
            name = name_of(plan.graph[key])
            if name not in of_functions:
                at, why = self._known.get(name, (float("-inf"), ""))
                if now - at > _ASK_AGAIN and asked < _ASKED_AT_MOST:
                    asked += 1
                    why = reasons.kind(key)
                    self._known[name] = now, NEW_ARGUMENTS if why == NEVER_SEEN else why  # from now on there is one
                of_functions[name] = why
            found[key] = of_functions[name]
        return found


def count_graph(
    plan: GraphPlan, clues: Mapping[Any, bytes], cache: UnifiedCache, reasons: FunctionReasons
) -> Counter[tuple[str, str]]:
    """Count a decided graph, except its misses; return the number of those, by function and reason.

    Hits are counted where they are read, misses when they have ended: some may fail.
    """
    why: dict[Any, str] = {}
    with isolated(lambda _: None):  # misses count, whatever they are for
        why = reasons.of(plan, clues, cache)
    misses = Counter((name_of(plan.graph[key]), why.get(key, "")) for key in plan.misses)
    refused = Counter(name_of(plan.graph[key]) for key in plan.refused)
    for name, calls in refused.items():
        cache.count(name, "not cacheable", calls=calls)
    if plan.seconds_spared:
        cache.count(NOT_NEEDED, "hit", calls=0, saved=plan.seconds_spared)
    return misses


def count_ended(
    misses: Mapping[tuple[str, str], int], failed: Failures, left: Counter[str], cache: UnifiedCache
) -> None:
    """Count tasks that were to be computed: failed ones as failed, the others as misses.

    Args:
        misses: tasks of graphs that have ended.
        failed: tasks that raised.
        left: how many raised in graphs that have not ended, by function; changed.
        cache: the cache.
    """
    left.update({name: calls for name, (calls, _) in failed.items()})
    for (name, reason), calls in misses.items():
        raised = min(calls, left[name])
        left[name] -= raised
        if calls > raised:
            cache.count(name, "miss", reason, calls=calls - raised)
    for name, (calls, seconds) in failed.items():
        cache.count(name, "failed", RAISED, calls=calls, spent=seconds)
