"""Known results in, new results out: from a graph and what the store holds to the graph that runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from dask._task_spec import Alias, GraphNode, Task, _execute_subgraph
from dask.utils import funcname

from cacheness.entry import Presence
from cacheness_dask.fingerprint import Fingerprints, entry_key
from cacheness_dask.graphs import topological
from cacheness_dask.inputs import FileState
from cacheness_dask.marks import is_mark
from cacheness_dask.worker import Compute, Fallback, Load, Store

#: Tasks that a hit may carry along, in case that its entry vanishes before it is read.
FALLBACK_TASKS: Final = 50
#: The same, for all the hits of a graph whose results nobody waits for.
FALLBACK_TOTAL: Final = 100_000


@dataclass(slots=True)
class Plan:
    """What happens to each node that the wanted keys need. Made before anything runs."""

    graph: dict[Any, GraphNode] = field(default_factory=dict)  #: what runs
    hits: dict[Any, str] = field(default_factory=dict)  #: loaded: the entry's key
    misses: dict[Any, str] = field(default_factory=dict)  #: computed, and may be stored: the entry's key
    refused: dict[Any, str] = field(default_factory=dict)  #: computed, and never stored: why
    skipped: int = 0  #: needed by hits only, so neither computed nor loaded
    seconds_saved: float = 0.0
    files: dict[str, FileState] = field(default_factory=dict)  #: read by the misses, as they were
    keeping: Any = None  #: what must stay alive until the graph is submitted


def plan(
    graph: Mapping[Any, GraphNode],
    keys: Collection[Any],
    prints: Fingerprints,
    present: Mapping[str, Presence],
    store: Store,
    *,
    held: Collection[Any] = (),
    waits: bool = True,
) -> Plan:
    """Replace hits by loads, cull what only they need, and let the misses store their results.

    `held` are keys that the client has futures for: these and what they need stay as they are.
    `waits`: someone waits for the results, and runs the graph again should a hit have vanished.
    """
    made = Plan(files=prints.files)
    wanted = _outputs(graph, keys)
    untouched = set(topological(graph, [key for key in held if key in graph])) if held else frozenset()
    stack = [key for key in keys if key in graph]
    while stack:
        key = stack.pop()
        if key in made.graph:
            continue
        node = graph[key]
        digest = prints.digests.get(key)
        if key in untouched or digest is None:
            made.graph[key] = node
            _note_refusal(made, key, prints)
        elif (name := entry_key(digest)) in present:
            made.hits[key] = name
            made.graph[key] = node  # replaced below, when all hits are known
            continue
        else:
            made.misses[key] = name
            always = store.policy.always(output=key in wanted, marked=digest in prints.marked)
            made.graph[key] = _computing(node, digest, store, always)  # type: ignore[arg-type]
        stack.extend(dep for dep in node.dependencies if dep in graph)
    _load_hits(made, graph, store, waits)
    _account(made, graph, prints, present)
    return made


def _outputs(graph: Mapping[Any, GraphNode], keys: Collection[Any]) -> set[Any]:
    """The wanted keys, and the tasks that they are other names of."""
    wanted = set(keys)
    for key in keys:
        node = graph.get(key)
        while isinstance(node, Alias):
            wanted.add(node.target)
            node = graph.get(node.target)
    return wanted


def _note_refusal(made: Plan, key: Any, prints: Fingerprints) -> None:
    if key in prints.refused:
        made.refused[key] = prints.refused[key]


def _computing(node: Task, digest: bytes, store: Store, always: bool) -> GraphNode:
    if is_mark(node) or not (always or store.policy.measures):
        return node  # what a mark marks is stored where it is computed
    func = Compute(node.func, store, digest, name_of(node), always)
    # Given to the constructor, the arguments would be searched for dependencies once more.
    wrapped = Task(node.key, func, _data_producer=node.data_producer)
    wrapped.args, wrapped.kwargs = node.args, node.kwargs
    wrapped._dependencies = node._dependencies  # noqa: SLF001
    return wrapped


def _load_hits(made: Plan, graph: Mapping[Any, GraphNode], store: Store, waits: bool) -> None:
    budget = FALLBACK_TOTAL
    for key, digest in made.hits.items():
        limit = FALLBACK_TASKS if waits else budget
        fallback = _fallback(graph, key, limit)
        if fallback is not None:
            budget -= len(fallback.tasks)
        made.graph[key] = Task(key, Load(store, digest, name_of(graph[key]), fallback), _data_producer=True)


def _fallback(graph: Mapping[Any, GraphNode], key: Any, limit: int) -> Fallback | None:
    """The tasks that make a result, None when they are too many or need the scheduler."""
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


def _account(made: Plan, graph: Mapping[Any, GraphNode], prints: Fingerprints, present: Mapping[str, Presence]) -> None:
    gone = [key for key in prints.terms if key not in made.graph]
    made.skipped = sum(isinstance(graph[key], Task) for key in gone)
    spared = {entry_key(prints.digests[key]) for key in gone if key in prints.digests}.union(made.hits.values())
    made.seconds_saved = sum(found.compute_seconds or 0.0 for key in spared if (found := present.get(key)))


def name_of(node: GraphNode) -> str:
    """A name for people: the function that a task calls, the user's own where it is wrapped."""
    while isinstance(node, Task) and node.func is _execute_subgraph:
        inner, out = node.args[0], node.args[1]
        node = inner[out]
        while isinstance(node, Alias) and node.target in inner:
            node = inner[node.target]
    return _function_name(node) if isinstance(node, Task) else type(node).__name__


def _function_name(node: Task) -> str:
    func = node.func
    module = getattr(func, "__module__", None) or ""
    if module.startswith("dask."):
        inner = node.kwargs.get("_func") or node.kwargs.get("func") or (node.args[0] if node.args else None)
        if callable(inner) and not isinstance(inner, (GraphNode, type)):
            func = inner
    while isinstance(func, partial):
        func = func.func
    return str(getattr(func, "__qualname__", None) or funcname(func))
