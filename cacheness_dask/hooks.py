"""Intercept graphs at two places, while a block or an installed client needs it.

Dask calls `dask.base.get_scheduler` for each compute() and persist(), whatever chose the scheduler;
a distributed client passes everything that it submits to `_graph_to_futures`. Dask's configuration
would be the official place for a scheduler. But it is one for all threads, must be restored in the
reverse order, and `compute(scheduler=…)`, `dask.config.set` and a new client ignore it without a
message.
"""

from __future__ import annotations

import functools
import inspect
import multiprocessing
import os
import sys
import threading
import types
import warnings
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakKeyDictionary

import dask.base
from dask.core import flatten

from cacheness.isolation import computing_elsewhere
from cacheness_dask.blocks import current, nocache
from cacheness_dask.graphs import materialised
from cacheness_dask.reports import is_worker
from cacheness_dask.run import CacheUnavailable, Run
from cacheness_dask.scheduler import CachingScheduler
from cacheness_dask.ship import shipped

#: Functions of `dask.base` that find a scheduler by calling another one.
_ASK_AGAIN: Final = frozenset({"get_scheduler", "_ensure_not_async"})
#: By client: `install`.
installed: WeakKeyDictionary[Any, Run] = WeakKeyDictionary()


def active() -> Run | None:
    """Return the run in use here: of the block around, or of the current client."""
    block = current()
    if block is not None or not installed:
        return block.run if block is not None else None
    from distributed import get_client

    try:
        return installed.get(get_client())
    except ValueError:
        return None


# the intercepted functions


def _get_scheduler(dasks: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(dasks)
    def get_scheduler(get: Any = None, scheduler: Any = None, collections: Any = None, cls: Any = None) -> Any:
        block = current()
        if scheduler is None and block is not None:
            scheduler = block.scheduler
        found = dasks(get=get, scheduler=scheduler, collections=collections, cls=cls)
        if block is None or block.run is None or found is None or not _computes(sys._getframe(1)):  # noqa: SLF001
            return found
        return CachingScheduler(block.run, found)

    return get_scheduler


def _computes(asking: types.FrameType) -> bool:
    """Return True when the caller of `get_scheduler` runs a graph on it.

    Others choose a lock by it, and compare it with Dask's. A caller may have Dask's original
    function from before the replacement, and reach ours only through that, which calls itself if
    the configuration names a scheduler.
    """
    return asking.f_globals.get("__name__") == "dask.base" and asking.f_code.co_name not in _ASK_AGAIN


def _graph_to_futures(distributeds: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(distributeds)
    def _graph_to_futures(client: Any, expr: Any, keys: Any, *args: Any, **kwargs: Any) -> Any:
        block = current()
        run = installed.get(client) if block is None else block.run
        if run is None or kwargs.get("actors"):
            return distributeds(client, expr, keys, *args, **kwargs)
        graph, annotations = materialised(expr)
        made = run.prepare(graph, list(flatten([list(keys)])), client, waits=False)
        if made is None:
            return distributeds(client, expr, keys, *args, **kwargs)
        if made.cut:
            kwargs["internal_priority"] = None  # it does not know the tasks that were cut apart
        del graph
        with nocache():
            return distributeds(client, shipped(made, expr, annotations, client), keys, *args, **kwargs)

    return _graph_to_futures


def _asking(distributeds: Callable[..., Any]) -> Callable[..., Any]:
    """`submit` and `map` without the cache, if the user requests that each call runs."""

    @functools.wraps(distributeds)
    def asking(client: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("pure", True):
            return distributeds(client, *args, **kwargs)
        with nocache():
            return distributeds(client, *args, **kwargs)

    return asking


# install and remove


class _Door:
    """A function of Dask that ours replaces while the hook is active."""

    def __init__(self, name: str, takes: tuple[str, ...], ours: Callable[..., Any]) -> None:
        self._name, self._names, self._ours = name, takes, ours
        #: The original of each of our functions: another library may have replaced one of them before.
        self._theirs: dict[Any, Any] = {}

    def open(self, owner: Any) -> bool:
        """Install our function. Return False if Dask's is not a known one: then nothing is changed."""
        found = getattr(owner, self._name, None)
        if found in self._theirs:
            return True
        if found is None or not _takes(found, self._names):
            return False
        ours = self._ours(found)
        self._theirs[ours] = found
        setattr(owner, self._name, ours)
        return True

    def close(self, owner: Any) -> None:
        """Restore Dask's function. If another library has wrapped ours, ours stays, and does nothing."""
        while (found := getattr(owner, self._name, None)) in self._theirs:
            setattr(owner, self._name, self._theirs.pop(found))


def _takes(function: Callable[..., Any], names: tuple[str, ...]) -> bool:
    try:
        inspect.signature(function).bind_partial(**dict.fromkeys(names))
    except (TypeError, ValueError):
        return False
    return True


_lock = threading.RLock()
_inside = 0  #: blocks that were entered and not left
_COMPUTING: Final = _Door("get_scheduler", ("get", "scheduler", "collections", "cls"), _get_scheduler)
_CLIENTS: Final = (
    _Door("_graph_to_futures", ("expr", "keys"), _graph_to_futures),
    _Door("submit", ("func", "pure"), _asking),
    _Door("map", ("func", "pure"), _asking),
)
#: A new lock in a child, because a thread of the parent may hold the old one.
os.register_at_fork(after_in_child=_lock._at_fork_reinit)  # type: ignore[attr-defined]  # noqa: SLF001


def _is_computing() -> bool:
    """Return True when a cached function called in this process may be inside a task, whose result depends on it.

    A task that is not stored counts, too: others are made from its result, and their keys contain only the graph.
    """
    return bool(_inside or installed) or is_worker() or multiprocessing.parent_process() is not None


computing_elsewhere["dask"] = _is_computing


def come_in(blocks: int = 1) -> None:
    """Activate the hooks, for one more block."""
    global _inside  # noqa: PLW0603
    with _lock:
        _inside += blocks
        known = _COMPUTING.open(dask.base)
        client = _client_class()
        opened = [] if client is None else [door.open(client) for door in _CLIENTS]
        known = all(opened) and known
    if not known:
        warnings.warn(
            "This version of Dask or distributed handles graphs in a way that cacheness does not support, so not"
            " everything that is computed uses the cache.",
            CacheUnavailable,
            stacklevel=4,
        )


def go_out(blocks: int = 1) -> None:
    """Deactivate the hooks after the last block and the last installed client."""
    global _inside  # noqa: PLW0603
    with _lock:
        _inside -= blocks
        if _inside or installed:
            return
        _COMPUTING.close(dask.base)
        client = _client_class()
        if client is not None:
            for door in _CLIENTS:
                door.close(client)


def _client_class() -> Any:
    try:
        from distributed import Client
    except ImportError:
        return None
    return Client
