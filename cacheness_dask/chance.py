"""Find tasks that draw random numbers without a seed: their results are neither looked up nor stored.

The core's rule decides what draws, for tasks as for any function. Here it is applied to tasks: to
the functions they call, to the objects in their arguments, and to the seeds in their arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from dask._task_spec import Dict, GraphNode, List, Task, TaskRef, _identity_cast

from cacheness.keys import Chance
from cacheness.keys.code.calls import UNKNOWN, Constant, Symbol
from cacheness.keys.code.random_calls import kept_in
from cacheness_dask.encoding import NotCacheable


def reads_chance(thing: Any) -> str:
    """Return why a function's result may differ each time, if it is called without a seed."""
    chance = Chance(thing)
    return next(iter(chance.always or chance.in_call((), {})), "")


def draws_by_itself(value: Any) -> str:
    """Return why the result of a task with this argument may differ each time: an estimator without a seed."""
    draw = kept_in(value)
    # A generator in the arguments counts by its state.
    return f"unseeded randomness: {draw.what}" if draw is not None and draw.sources else ""


def refuse_chance(node: Task, chances: dict[int, Chance]) -> None:
    """Raise NotCacheable for a task that draws. `chances` are of functions that draw unless they are seeded."""
    if chances and (reason := _drawn_by(node, chances)):
        raise NotCacheable(reason)


def _drawn_by(node: Task, chances: dict[int, Chance]) -> str:
    func: Any = node.func
    args, kwargs = node.args, node.kwargs
    while isinstance(func, partial) or type(func).__name__ == "curry":
        func, args, kwargs = func.func, (*func.args, *args), {**func.keywords, **kwargs}
    own = chances.get(id(func))
    if own is not None:
        reason = own.in_call(map(_symbol, args), {name: _symbol(value) for name, value in kwargs.items()})
        if reason:
            return reason[0]
    for value in _callables((*node.args, *node.kwargs.values())):
        given = chances.get(id(value))
        # The function may be called with the task's other arguments, by position or by name.
        if given is not None and (
            reason := given.in_call([UNKNOWN] * _places(node), dict.fromkeys(_names(node), UNKNOWN))
        ):
            return reason[0]
    return ""


def _symbol(value: Any) -> Symbol:
    return UNKNOWN if isinstance(value, (TaskRef, GraphNode)) else Constant(value)


def _callables(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if (members := _members(value)) is not None:
            yield from _callables(members)
        elif callable(value) and not isinstance(value, GraphNode):
            yield value


def _members(value: Any) -> Iterable[Any] | None:
    """Return the items of a container; None for other values. An inner task is checked separately."""
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, dict):
        return value.values()
    return value.args if _is_list(value) or _is_dict(value) else None


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple, List)) or (isinstance(value, Task) and value.func is _identity_cast)


def _is_dict(value: Any) -> bool:
    """Return True when this is a dict of a graph: its arguments are keys and values in turn."""
    made = value.kwargs.get("constructor") if isinstance(value, Task) else None
    return isinstance(value, Dict) or (made is not None and made == Dict.constructor)


def _places(node: Task) -> int:
    """Return how many positional arguments the task gives to a function in its arguments: one per list."""
    lists = [len(list(_members(value) or ())) for value in node.args if _is_list(value)]
    plain = [value for value in node.args if value is not None and not callable(value) and _members(value) is None]
    return max([len(plain), *lists])


def _names(node: Task) -> Iterator[str]:
    """Names of arguments that it may get."""
    yield from node.kwargs
    for value in (*node.args, *node.kwargs.values()):
        names = value.args[::2] if _is_dict(value) else value if isinstance(value, dict) else ()
        yield from (name for name in names if isinstance(name, str))
