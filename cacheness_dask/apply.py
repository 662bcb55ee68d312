"""Rewrite a graph as decided: hits become loads, and misses store their results."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeGuard

from dask._task_spec import DataNode, GraphNode, Task, TaskRef

from cacheness_dask._task_spec import Fallback
from cacheness_dask.computing import Checked, Compared, Compute
from cacheness_dask.cut_off import is_fused
from cacheness_dask.decisions import Decisions, other_names
from cacheness_dask.graphs import name_of
from cacheness_dask.loading import CheckedLoad, Consume, EarlierLoad, Load

#: Tasks that a hit may contain, in case its entry is deleted before it is read.
FALLBACK_TASKS: Final = 50
#: The same, for all hits of a graph whose results are not waited for.
FALLBACK_TOTAL: Final = 100_000
#: The same, of all hits that one task reads: Dask does not know them, and they are read in one thread.
SMALL_TOTAL: Final = 16 << 20

#: Annotations about where a task runs.
_PLACES: Final = ("workers", "resources")


def apply(
    decisions: Decisions,
    graph: Mapping[Any, GraphNode],
    annotations: Mapping[str, Collection[Any]] = MappingProxyType({}),
) -> dict[Any, GraphNode]:
    """Return the graph that runs: hits are loads, tasks needed only by them are removed, misses store their results.

    The graph may be created again elsewhere, and be fused differently: a key represents one value,
    and a task without a decision for its key is computed unchanged.
    """
    wanted = {*decisions.keys, *(task for _, task in other_names(graph, decisions.keys))}
    made = _storing(decisions, graph, wanted)
    _compare(made, decisions, graph)
    _load_hits(made, decisions, graph)
    if decisions.small:
        placed = {key for kind in _PLACES for key in annotations.get(kind, ())}
        _read_by_takers(made, decisions, wanted | placed)
    return made


def _storing(decisions: Decisions, graph: Mapping[Any, GraphNode], wanted: Collection[Any]) -> dict[Any, GraphNode]:
    """Return what runs: misses store their results, and hits are unchanged."""
    made: dict[Any, GraphNode] = {}
    stored, files = dict(decisions.stored), dict(decisions.files)
    for key, task in other_names(graph, decisions.keys):
        if key in stored:
            stored[task] = stored[key]
            if key in files:
                files[task] = files[key]
    policy = decisions.store.policy
    stack = [key for key in decisions.keys if key in graph]
    while stack:
        key = stack.pop()
        if key in made:
            continue
        node = made[key] = graph[key]
        if key in decisions.hits:
            continue
        if key in stored and isinstance(node, Task):
            always = policy.always(output=key in wanted, marked=key in decisions.marked)
            task = stored[key]
            if task.inputs is not None and task.inputs.is_fused != is_fused(node):
                task = task._replace(inputs=None)  # its arguments differ from those that were checked
            func = Compute(node.func, decisions.store, task, name_of(node), always)
            func.files = files.get(key)
            made[key] = _calling(node, func)
        elif policy.check_inputs and type(node) is Task:
            made[key] = _calling(node, Checked(node.func, decisions.store, name_of(node)))
        stack.extend(dep for dep in node.dependencies if dep in graph)
    return made


def _compare(made: dict[Any, GraphNode], decisions: Decisions, graph: Mapping[Any, GraphNode]) -> None:
    """Make tasks compare their results with those of earlier code."""
    for key, what in decisions.compared.items():
        node = made.get(key)
        if isinstance(node, Task):
            made[key] = _calling(node, Compared(node.func, decisions.store, name_of(graph[key]), what))


def _calling(node: Task, func: Callable[..., Any]) -> GraphNode:
    """Return the same task with another function."""
    # The constructor would search the arguments for dependencies once more.
    wrapped = Task(node.key, func, _data_producer=node.data_producer)
    wrapped.args, wrapped.kwargs = node.args, node.kwargs
    wrapped._dependencies = node._dependencies  # noqa: SLF001
    return wrapped


def _load_hits(made: dict[Any, GraphNode], decisions: Decisions, graph: Mapping[Any, GraphNode]) -> None:
    budget = FALLBACK_TOTAL
    for key in decisions.hits:
        if key not in made:
            continue
        limit = FALLBACK_TASKS if decisions.waits else budget
        fallback = _fallback(graph, key, limit) if decisions.store.config.mode != "offline" else None
        if fallback is not None:
            budget -= len(fallback.tasks)
        made[key] = Task(key, _load(decisions, graph, key, fallback), _data_producer=True)


def _load(decisions: Decisions, graph: Mapping[Any, GraphNode], key: Any, fallback: Fallback | None) -> Load:
    given = decisions.store, decisions.hits[key], name_of(graph[key]), fallback
    if key in decisions.earlier:
        return EarlierLoad(*given, decisions.earlier[key])
    again = _again(graph, key, decisions) if key in decisions.checks else None
    return Load(*given) if again is None else CheckedLoad(*given, again)


def _read_by_takers(made: dict[Any, GraphNode], decisions: Decisions, stay: Collection[Any]) -> None:
    """Let a task read small hits that only it needs. Others share a result that is read once."""
    takers: dict[Any, list[Any]] = {}
    for key, node in made.items():
        for dep in node.dependencies & decisions.small.keys():
            takers.setdefault(dep, []).append(key)
    taken: dict[Any, dict[Any, Load]] = {}
    room: dict[Any, int] = {}
    for key, (taker, *others) in takers.items():
        if others or key in stay:
            continue
        if taker not in room:  # once: it may take thousands of results
            room[taker] = SMALL_TOTAL if _may_read(made[taker], made) else -1
        left = room[taker] - decisions.small[key]
        load = getattr(made[key], "func", None)
        if left >= 0 and _is_only_read(load):
            taken.setdefault(taker, {})[key] = load
            room[taker] = left
    for taker, loads in taken.items():
        node = made[taker]
        given = tuple(node.dependencies - loads.keys())
        read = Consume(node, given, decisions.store, loads)
        made[taker] = Task(taker, read, *map(TaskRef, given), _data_producer=node.data_producer)
        for key in loads:
            del made[key]


def _is_only_read(load: object) -> TypeGuard[Load]:
    return isinstance(load, Load) and not isinstance(load, CheckedLoad)


def _may_read(node: GraphNode, graph: Mapping[Any, GraphNode]) -> bool:
    """Return True when this task runs in a thread, and takes no future, which the scheduler must see."""
    is_coroutine = "distributed" in sys.modules and node.is_coro  # only this graph needs them
    return type(node) is Task and not is_coroutine and node.dependencies <= graph.keys()


def _again(graph: Mapping[Any, GraphNode], key: Any, decisions: Decisions) -> Fallback | None:
    """Return the task of a hit, with its inputs loaded; None if it needs others than were looked up."""
    entries = decisions.checks[key]
    tasks: dict[Any, GraphNode] = {key: graph[key]}
    for dep in graph[key].dependencies:
        if dep in entries:
            tasks[dep] = Task(dep, Load(decisions.store, entries[dep], str(dep), None), _data_producer=True)
        elif isinstance(graph.get(dep), DataNode):
            tasks[dep] = graph[dep]
        else:
            return None
    return Fallback(tasks, key)


def _fallback(graph: Mapping[Any, GraphNode], key: Any, limit: int) -> Fallback | None:
    """Return the tasks that make a result, None if they are too many or need the scheduler."""
    tasks: dict[Any, GraphNode] = {}
    stack = [key]
    while stack:
        name = stack.pop()
        if name in tasks:
            continue
        node = graph.get(name)
        if node is None or len(tasks) >= limit or type(node).__name__ == "P2PBarrierTask":
            return None
        tasks[name] = node
        stack.extend(node.dependencies)
    return Fallback(tasks, key)
