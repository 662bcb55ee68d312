"""Find what a task calls: the user's function, with its arguments and bound ones."""

from __future__ import annotations

import types
from functools import partial
from typing import Any

from dask._task_spec import GraphNode, Task


def is_partial(func: Any) -> bool:
    """Return True when this is a function with bound arguments: `functools.partial`, or `curry` of toolz."""
    kind = type(func)
    return isinstance(func, partial) or (kind.__name__ == "curry" and kind.__module__.startswith(("toolz", "cytoolz")))


def called_in(node: Task, given: tuple[tuple[Any, ...], dict[str, Any]] | None = None) -> tuple[Any, int]:
    """Return the function that a task calls, the user's if one of Dask calls it.

    Args:
        node: the task.
        given: its arguments that decide, if they are known.

    Returns:
        The function, and its place in the task: 0, or that of an argument, keyword arguments last;
        -1 for a task that makes a list of an inner task's result, which has both itself.
    """
    func = node.func
    if not (getattr(func, "__module__", None) or "").startswith("dask."):
        return func, 0
    args, kwargs = given or arguments_that_decide(node)
    if is_listing(node):
        return called_in(args[0])[0], -1
    for place, name in enumerate(kwargs, len(args) + 1):
        if name in ("_func", "func") and _is_function(kwargs[name]):
            return kwargs[name], place
    return (args[0], 1) if args and _is_function(args[0]) else (func, 0)


def is_listing(node: Task) -> bool:
    """Return True when this is Dask's `reify` of an inner task's result."""
    func = node.func
    return (
        getattr(func, "__name__", "") == "reify"
        and getattr(func, "__module__", "") == "dask.bag.core"
        and isinstance(node.args[0], Task)
    )


def bound_in(func: Any) -> list[tuple[str, Any]]:
    """Return the data of a partial or a method besides its code, each with a readable name."""
    if is_partial(func):
        placed = [(f"argument {place} bound in", value) for place, value in enumerate(func.args, 1)]
        return placed + [(f"argument `{name}` bound in", value) for name, value in keywords_that_decide(func).items()]
    if isinstance(func, types.MethodType) and not isinstance(func.__self__, type):
        return [("the object of", func.__self__)]
    return []


def arguments_that_decide(node: Task) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a task that decide its result.

    Not the lock of a `getter`, because waiting decides no block. Not the seed of a sample for
    borders, because Dask draws it from the frame's name, which differs for delayed parts and for
    rewritten files with the same content.
    """
    if _takes_lock(node.func):
        return node.args[:3], {name: value for name, value in node.kwargs.items() if name != "lock"}
    return (node.args[:4] if _samples_borders(node.func) else node.args), node.kwargs


def keywords_that_decide(func: Any) -> dict[str, Any]:
    """Return the bound keyword arguments of a partial that decide its result."""
    inner, keywords = func.func, func.keywords
    # Dask's CSV reader passes the first rows of the first file to every block, only for their types.
    if getattr(inner, "__name__", "") == "_read_csv" and inner.__module__ == "dask.dataframe.io.csv":
        head, path = keywords["head"].iloc[:0], keywords.get("colname")
        if path is not None:  # of a set of the files' names; the reader sorts them
            head = head.assign(**{path: head[path].cat.reorder_categories(sorted(head[path].cat.categories))})
        return {**keywords, "head": head}
    if _takes_lock(inner):
        return {name: value for name, value in keywords.items() if name != "lock"}
    return dict(keywords)


def _is_function(value: Any) -> bool:
    return callable(value) and not isinstance(value, (GraphNode, type))


def _takes_lock(func: Any) -> bool:
    """Return True when this is one of Dask's functions that read a block, `getter` and similar ones."""
    return getattr(func, "__module__", "") == "dask.array.core" and func.__name__.startswith("getter")


def _samples_borders(func: Any) -> bool:
    """Return True when this is Dask's function that samples a column, to choose the borders of the sorted frame."""
    module = getattr(func, "__module__", "")
    return module == "dask.dataframe.partitionquantiles" and func.__name__ == "percentiles_summary"
