"""Handle graphs in Dask's forms: materialise, order, and pass them on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from types import FunctionType
from typing import Any, Final

from dask._expr import Expr, HLGExpr, ProhibitReuse
from dask._task_spec import Alias, GraphNode, Task, _execute_subgraph, convert_legacy_graph
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from dask.utils import ensure_dict, methodcaller

from cacheness_dask.bound import called_in, is_listing

Graph = dict[Any, GraphNode]
#: By type and key.
Annotations = dict[str, dict[Any, Any]]

#: Dask's wrapper of a task that gives it another name.
IDENTITY: Final = ProhibitReuse._identity  # noqa: SLF001  there is no other way to it


def materialised(dsk: Any) -> tuple[Graph, Annotations]:
    """Return the graph of an expression, and its annotations."""
    annotations: Annotations = {}
    if isinstance(dsk, HighLevelGraph):
        dsk = HLGExpr(dsk)
    if isinstance(dsk, Expr):
        annotations = dsk.__dask_annotations__()
        dsk = dsk.__dask_graph__()
    graph = dict(ensure_dict(dsk))
    if not all(issubclass(kind, GraphNode) and kind is not Alias for kind in set(map(type, graph.values()))):
        graph = convert_legacy_graph(graph)  # it would return the others as they are
    for key, node in [item for item in graph.items() if isinstance(item[1], Task) and item[1].func is IDENTITY]:
        within = node
        while isinstance(within, Task) and within.func is IDENTITY and isinstance(within.args[0], Task):
            within = within.args[0]
        if within is not node:
            graph[key] = within.substitute({}, key=key)  # the same task under the other name
    return graph, annotations


def last_step(node: GraphNode) -> GraphNode:
    """Return the node whose result a fused task, or one under another name, has."""
    scope: Mapping[Any, GraphNode] = {}
    while True:
        if isinstance(node, Alias) and node.target in scope:
            node = scope[node.target]
        elif isinstance(node, Task) and node.func is _execute_subgraph:
            scope, out = node.args[:2]
            node = scope[out]
        elif isinstance(node, Task) and (is_listing(node) or _is_renamed(node)):
            node = node.args[0]
        else:
            return node


def _is_renamed(node: Task) -> bool:
    return node.func is IDENTITY and isinstance(node.args[0], GraphNode)


def as_expression(graph: Graph, annotations: Annotations) -> Expr:
    """Return a graph in the form that keeps annotations for the scheduler."""
    # Not an LLGExpr: creating one hashes every task, which takes ten times as long as sending them.
    kept = {kind: by_key.get for kind, by_key in of_graph(annotations, graph).items()}
    layers = {"cacheness": MaterializedLayer(graph, annotations=kept or None)}
    return HLGExpr(HighLevelGraph(layers, {"cacheness": set()}))


def of_graph(annotations: Annotations, graph: Graph) -> Annotations:
    """Return the annotations of the tasks that are in a graph."""
    return {kind: {k: v for k, v in by_key.items() if k in graph} for kind, by_key in annotations.items()}


def dependents_in(graph: Mapping[Any, GraphNode]) -> dict[Any, list[Any]]:
    """Return the dependents of each node."""
    found: dict[Any, list[Any]] = {}
    for key, node in graph.items():
        for dependency in node.dependencies:
            found.setdefault(dependency, []).append(key)
    return found


def downstream(dependents: Mapping[Any, list[Any]], keys: Iterable[Any]) -> list[Any]:
    """Return these keys, and all their dependents."""
    found = dict.fromkeys(keys)
    waiting = list(found)
    while waiting:
        new = [key for key in dependents.get(waiting.pop(), ()) if key not in found]
        found.update(dict.fromkeys(new))
        waiting += new
    return list(found)


def topological(graph: Mapping[Any, GraphNode], keys: Iterable[Any]) -> list[Any]:
    """Return the nodes of a graph that `keys` need, each after its inputs. Culls during the pass."""
    order: list[Any] = []
    done: set[Any] = set()
    stack = [key for key in reversed(list(keys)) if key in graph]
    while stack:
        key = stack[-1]
        if key in done:
            stack.pop()
            continue
        needed = graph[key].dependencies
        if not needed <= done:
            waiting = [dep for dep in needed if dep not in done and dep in graph]
            if waiting:
                stack += waiting
                continue
        stack.pop()
        done.add(key)
        order.append(key)
    return order


def name_of(node: GraphNode) -> str:
    """Return a name for messages: the function that a task calls, the user's if it is wrapped."""
    func = getattr(node, "func", None)
    if type(func) is FunctionType and not (func.__module__ or "").startswith("dask."):
        return func.__qualname__  # as below, without searching for what it calls
    node = last_step(node)
    return _function_name(node) if isinstance(node, Task) else type(node).__name__


def _function_name(node: Task) -> str:
    func = called_in(node)[0]
    while isinstance(func, partial):
        func = func.func
    if isinstance(func, methodcaller):
        return str(func.method)
    # Not the text of an object: it contains its address, and runs the user's code.
    return str(getattr(func, "__qualname__", None) or getattr(func, "__name__", None) or type(func).__qualname__)
