"""`mark(collection)`: mark an intermediate result of a graph to be stored.

A mark is a task that returns its argument. It is not part of any fingerprint, so that marking a
collection changes no key; and a fused task that contains a mark is split again, so that the marked
result is a separate task.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeGuard, TypeVar

import dask
from dask._task_spec import Alias, DataNode, GraphNode, Task, TaskRef, _execute_subgraph
from dask.bag import Item
from dask.delayed import Delayed

from cacheness_dask.graphs import topological

C = TypeVar("C")


def marked(value: Any) -> Any:
    """The function that a marked task calls."""
    return list(value) if isinstance(value, Iterator) else value


def mark(collection: C) -> C:
    """Mark a collection, so that its results are stored whatever the policy.

    Args:
        collection: a delayed value, array, data frame, series or bag, or an xarray object on Dask arrays.

    Returns:
        A collection of the same type.
    """
    whole: Any = collection
    if isinstance(whole, Delayed):  # claims to have every attribute
        return dask.delayed(marked, pure=False, nout=whole._length)(whole)  # type: ignore[no-any-return]  # noqa: SLF001
    if hasattr(whole, "map_blocks") and hasattr(whole, "chunks") and hasattr(whole, "dask"):
        return _array(whole)  # type: ignore[no-any-return]
    if hasattr(whole, "map_partitions"):
        return _partitions(whole)  # type: ignore[no-any-return]
    if hasattr(whole, "data_vars") or hasattr(whole, "coords"):
        return _xarray(whole)  # type: ignore[no-any-return]
    if isinstance(whole, Item):
        return whole.apply(marked)  # type: ignore[no-any-return]
    raise TypeError(
        f"{type(collection).__name__} cannot be marked: it is not a Dask collection that cacheness supports"
    )


def is_mark(node: GraphNode) -> bool:
    """Return True when this task only marks its argument."""
    return isinstance(node, Task) and (node.func is marked or node.kwargs.get("_func") is marked)


def is_marked_inside(node: GraphNode) -> bool:
    """Return True when a fused task contains a mark that is not its last step."""
    if not _is_fused(node):
        return False
    inner, out = node.args[0], node.args[1]
    return any(is_marked_inside(step) or (key != out and _ends_in_mark(step)) for key, step in inner.items())


def _is_fused(node: GraphNode) -> TypeGuard[Task]:
    return isinstance(node, Task) and node.func is _execute_subgraph


def _ends_in_mark(node: GraphNode) -> bool:
    return _ends_in_mark(node.args[0][node.args[1]]) if _is_fused(node) else is_mark(node)


def apart(graph: Mapping[Any, GraphNode], keys: Iterable[Any]) -> dict[Any, GraphNode]:
    """Return the graph, with these fused tasks split after each mark."""
    made = dict(graph)
    pending = list(keys)
    while pending:
        key = pending.pop()
        node = made[key]
        if not is_marked_inside(node):
            continue
        inner, out, outside = _flat(node)
        at = next(name for name, step in inner.items() if name != out and is_mark(step))
        name = f"{key!s}-marked-{len(made)}"
        # Each part is fused again: a step of a bag may return an iterator, which cannot leave its task.
        made[name] = _fused(name, inner, at, outside)
        rest = {step: task for step, task in inner.items() if step != at}
        made[key] = _fused(key, rest, out, {**outside, at: TaskRef(name)})
        pending += [name, key]
    return made


def _flat(node: Task) -> tuple[dict[Any, GraphNode], Any, dict[Any, Any]]:
    """Return the steps of a fused task, inner fused tasks included; the last one; its outside inputs."""
    inner, out, names, *values = node.args
    steps: dict[Any, GraphNode] = {}
    for key, step in inner.items():
        if _is_fused(step):
            within, last, given = _flat(step)
            renamed = {name: key if name == last else (str(key), name) for name in within}
            subs = {**{name: _given(value) for name, value in given.items()}, **renamed}
            steps.update({renamed[name]: _renamed(task, subs, renamed[name]) for name, task in within.items()})
        else:
            steps[key] = step
    return steps, out, dict(zip(names, values, strict=True))


def _given(value: Any) -> Any:
    if isinstance(value, TaskRef):
        return value.key
    return value if isinstance(value, GraphNode) else DataNode(None, value)


def _renamed(node: GraphNode, subs: dict[Any, Any], key: Any) -> GraphNode:
    if isinstance(node, Alias):
        target = subs.get(node.target, node.target)
        return target if isinstance(target, GraphNode) else Alias(key, target)
    return node.substitute(subs, key=key)


def _fused(key: Any, inner: Mapping[Any, GraphNode], out: Any, outside: Mapping[Any, Any]) -> Task:
    needed = topological(inner, [out])
    used = {dep for step in needed for dep in inner[step].dependencies if dep in outside and dep not in inner}
    names = tuple(name for name in outside if name in used)
    steps = {step: inner[step] for step in needed}
    producer = any(step.data_producer for step in steps.values())
    return Task(key, _execute_subgraph, steps, out, names, *map(outside.get, names), _data_producer=producer)


def _array(array: Any) -> Any:
    return array.map_blocks(marked, dtype=array.dtype, meta=array._meta)  # noqa: SLF001  Dask's own protocol


def _partitions(collection: Any) -> Any:
    meta = getattr(collection, "_meta", None)
    return collection.map_partitions(marked) if meta is None else collection.map_partitions(marked, meta=meta)


def _xarray(data: Any) -> Any:
    if hasattr(data, "data_vars"):
        return data.assign({name: mark(part) for name, part in data.data_vars.items() if part.chunks is not None})
    return data.copy(data=mark(data.data))
