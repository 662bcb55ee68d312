"""The order of a graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dask._task_spec import GraphNode


def topological(graph: Mapping[Any, GraphNode], keys: Iterable[Any]) -> list[Any]:
    """The nodes of a graph that `keys` need, each after those that it needs. Culls as it goes."""
    order: list[Any] = []
    done: set[Any] = set()
    stack = [key for key in reversed(list(keys)) if key in graph]
    while stack:
        key = stack[-1]
        if key in done:
            stack.pop()
            continue
        waiting = [dep for dep in graph[key].dependencies if dep not in done and dep in graph]
        if waiting:
            stack += waiting
            continue
        stack.pop()
        done.add(key)
        order.append(key)
    return order
