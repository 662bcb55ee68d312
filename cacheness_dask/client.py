"""`install(client)`: futures too. submit, map, compute, persist and what is built on their futures."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from dask.core import flatten

from cacheness import UnifiedCache
from cacheness.incomplete import Incomplete, check
from cacheness_dask import scheduler
from cacheness_dask.beside import shipped
from cacheness_dask.graphs import materialised
from cacheness_dask.policy import Policy, Which
from cacheness_dask.run import CacheUnavailable, Run
from cacheness_dask.scheduler import is_off, nocache

_runs: WeakKeyDictionary[Any, Run] = WeakKeyDictionary()

#: The one place where a distributed client hands graphs to its scheduler. Private, hence guarded.
_SUBMISSION = "_graph_to_futures"


def install(
    client: Any,
    cache: UnifiedCache,
    *,
    which: Which = "auto",
    max_value_bytes: int = 1 << 30,
    queue_bytes: int = 64 << 20,
    incomplete: Incomplete | None = None,
) -> Run:
    """Let everything that a distributed client submits use a cache, until `uninstall(client)`.

    Options as in `caching`. Should this version of distributed submit in another way, it says so
    and changes nothing.
    """
    chosen: Any = check(incomplete, cache.config.incomplete)
    uninstall(client)
    run = Run(cache, Policy(which, max_value_bytes, queue_bytes, chosen))
    run.uses(client)
    submit = getattr(client, _SUBMISSION, None)
    if submit is None or not {"expr", "keys"} <= set(inspect.signature(submit).parameters):
        warnings.warn(
            "This version of distributed submits graphs in a way that cacheness does not know, so the client is"
            " left as it is. Use `with caching(cache):` for collections.",
            CacheUnavailable,
            stacklevel=2,
        )
        return run
    setattr(client, _SUBMISSION, _submitting(run, client, submit))
    _runs[client] = run
    return run


def uninstall(client: Any) -> None:
    """Undo `install`, once everything is stored."""
    run = _runs.pop(client, None)
    if run is not None:
        delattr(client, _SUBMISSION)
        run.close()


def active() -> Run | None:
    """The run in use here: of the `caching()` block that we are in, or of the current client."""
    run = scheduler.active()
    if run is not None or not _runs:
        return run
    from distributed import get_client

    try:
        return _runs.get(get_client())
    except ValueError:
        return None


def _submitting(run: Run, client: Any, submit: Callable[..., Any]) -> Callable[..., Any]:
    def _graph_to_futures(expr: Any, keys: Any, *args: Any, **kwargs: Any) -> Any:
        if is_off() or kwargs.get("actors"):
            return submit(expr, keys, *args, **kwargs)
        graph, annotations = materialised(expr)
        made = run.prepare(graph, list(flatten([list(keys)])), client, waits=False)
        if made is None:
            return submit(expr, keys, *args, **kwargs)
        if made.cut:
            kwargs["internal_priority"] = None  # it does not know the tasks that were cut apart
        del graph
        with nocache():
            return submit(shipped(made, expr, annotations, client), keys, *args, **kwargs)

    return _graph_to_futures
