"""Track running functions whose results are stored: a result computed inside one is an input of its result.

The context of a pool's or executor's thread does not show which body has called a cached function.
So running functions are recorded for the process, and a call may be inside each of them whose code,
or whose arguments, may lead to it.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from cacheness.isolation import computing_elsewhere
from cacheness.keys import Key, may_call

#: Keys that this thread or task is computing: a nested call with one of them does not wait for itself.
under_way: Final[ContextVar[frozenset[bytes]]] = ContextVar("cacheness_under_way", default=frozenset())


class Token:
    """Identifies the run of a function. The run has ended when this is collected."""


#: By the id of its token: the token, the function, the key of the call, and whether the key leaves arguments out.
_running: Final[dict[int, tuple[weakref.ref[object], Callable[..., Any], Key, bool]]] = {}


def begin(token: object, function: Callable[..., Any], key: Key, *, leaves_out: bool = False) -> None:
    """Record that a function runs.

    Args:
        token: identifies this run for `end`.
        function: the function.
        key: of the call.
        leaves_out: whether the key leaves out arguments of the call.
    """
    name = id(token)
    _running[name] = (weakref.ref(token, lambda _: _running.pop(name, None)), function, key, leaves_out)


def end(token: object) -> None:
    """Record that a function has returned. In a forked child, those of the parent's other threads never do.

    Args:
        token: the value given to `begin`.
    """
    _running.pop(id(token), None)


def are_running() -> bool:
    """Return True when a function runs, on any thread of this process."""
    return bool(_running)


def is_child_process() -> bool:
    """Return True in a child of `multiprocessing`, whose parent's running functions are unknown."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None


def is_elsewhere(besides: str = "") -> bool:
    """Return True when another caller than `cached` may compute the stored result here.

    Args:
        besides: the asking function, to be left out.
    """
    return any(computes() for name, computes in computing_elsewhere.items() if name != besides)


def may_be_within(function: Callable[..., Any]) -> bool:
    """Return True when a running function, on any thread of this process, may call another.

    Args:
        function: the other.
    """
    runs = list(_running.copy().values())
    if any(leaves_out or key.may_hold_code for _, _, key, leaves_out in runs):
        return True
    callers = {id(caller): caller for _, caller, _, _ in runs}
    return any(may_call(caller, function) for caller in callers.values())
