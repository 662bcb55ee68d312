"""`cache(collection)`: say that a result in the middle of a graph is worth storing.

A mark is a task that returns its argument. It has no part in any fingerprint, so that marking a
collection changes no key; and a fused task that contains a mark is taken apart again, so that the
marked result is a task of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import dask
from dask._task_spec import GraphNode, Task, TaskRef, _execute_subgraph
from dask.bag import Item
from dask.delayed import Delayed

from cacheness_dask.walk import topological

C = TypeVar("C")


def mark(value: Any) -> Any:
    """What a marked task calls."""
    return list(value) if isinstance(value, Iterator) else value


def cache(collection: C) -> C:
    """Mark a collection: its results are stored whatever the policy says. The same type comes back.

    Takes delayed values, arrays, data frames, series, bags, and xarray objects on Dask arrays.
    """
    marked: Any = collection
    if isinstance(marked, Delayed):  # claims to have every attribute
        return dask.delayed(mark, pure=False, nout=marked._length)(marked)  # type: ignore[no-any-return]
    if hasattr(marked, "map_blocks") and hasattr(marked, "chunks") and hasattr(marked, "dask"):
        return _array(marked)
    if hasattr(marked, "map_partitions"):
        return _partitions(marked)
    if hasattr(marked, "data_vars") or hasattr(marked, "coords"):
        return _xarray(marked)
    if isinstance(marked, Item):
        return marked.apply(mark)  # type: ignore[no-any-return]
    raise TypeError(f"{type(collection).__name__} cannot be marked: it is no Dask collection that cacheness knows")


def is_mark(node: GraphNode) -> bool:
    """Whether this task only marks its argument."""
    return isinstance(node, Task) and (node.func is mark or node.kwargs.get("_func") is mark)


def is_marked_inside(node: GraphNode) -> bool:
    """Whether a fused task contains a mark that is not its last step."""
    return bool(_marks_inside(node))


def _marks_inside(node: GraphNode) -> list[Any]:
    if not isinstance(node, Task) or node.func is not _execute_subgraph:
        return []
    inner, out = node.args[0], node.args[1]
    return [key for key, step in inner.items() if key != out and is_mark(step)]


def apart(graph: Mapping[Any, GraphNode], keys: Iterable[Any]) -> dict[Any, GraphNode]:
    """The graph, with these fused tasks cut after each mark."""
    made = dict(graph)
    pending = list(keys)
    while pending:
        key = pending.pop()
        node = made[key]
        found = _marks_inside(node)
        if found:
            name = f"{key!s}-marked-{len(made)}"
            made[name], made[key] = _cut(node, found[0], name)  # type: ignore[arg-type]
            pending += [name, key]
    return made


def _cut(node: Task, at: Any, name: str) -> tuple[Task, Task]:
    """A fused task as two: what leads to the mark, and the rest.

    Each is fused again: a step of a bag may pass on an iterator, which cannot leave its task.
    """
    inner, out, names, *values = node.args
    outside = dict(zip(names, values, strict=True))
    before = _fused(name, inner, at, outside, node)
    after = _fused(node.key, {k: v for k, v in inner.items() if k != at}, out, {**outside, at: TaskRef(name)}, node)
    return before, after


def _fused(key: Any, inner: Mapping[Any, GraphNode], out: Any, outside: Mapping[Any, Any], node: Task) -> Task:
    needed = topological(inner, [out])
    used = {dep for step in needed for dep in inner[step].dependencies if dep in outside}
    names = tuple(name for name in outside if name in used)
    return Task(
        key,
        _execute_subgraph,
        {step: inner[step] for step in needed},
        out,
        names,
        *(outside[name] for name in names),
        _data_producer=node.data_producer,
    )


def _array(array: Any) -> Any:
    return array.map_blocks(mark, dtype=array.dtype, meta=array._meta)


def _partitions(collection: Any) -> Any:
    meta = getattr(collection, "_meta", None)
    return collection.map_partitions(mark) if meta is None else collection.map_partitions(mark, meta=meta)


def _xarray(data: Any) -> Any:
    if hasattr(data, "data_vars"):
        return data.assign({name: cache(part) for name, part in data.data_vars.items() if part.chunks is not None})
    return data.copy(data=cache(data.data))
