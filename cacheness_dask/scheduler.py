"""`caching()`: a scheduler that looks results up, runs the rest on Dask's own schedulers, and stores."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Final, cast

import dask
from dask._expr import Expr, HLGExpr
from dask.base import collections_to_expr, get_scheduler
from dask.core import flatten

from cacheness import UnifiedCache
from cacheness.incomplete import Incomplete, check
from cacheness_dask.beside import shipped
from cacheness_dask.graphs import Annotations, materialised
from cacheness_dask.policy import Policy, Which
from cacheness_dask.rewrite import Plan
from cacheness_dask.run import CacheUnavailable, Run
from cacheness_dask.worker import EntryVanished

logger = logging.getLogger("cacheness.dask")

_off: ContextVar[bool] = ContextVar("cacheness_dask_off", default=False)
#: How often a computation starts again because entries vanished under it, before it runs without hits.
_ATTEMPTS: Final = 3
#: Seconds that letting go of a failed future may take.
_PATIENCE: Final = 5.0
_BYPASSED: Final = (
    "Something inside of the caching() block chose another scheduler for Dask, so what was computed after that"
    " went past the cache. A distributed Client does so when it is made: make it before the block."
)


class CachingScheduler:
    """What Dask calls with a graph: the `scheduler` of its configuration, with `get` and `persist`."""

    def __init__(self, run: Run, scheduler: Any = None) -> None:
        self.run = run
        self.beneath = scheduler

    def __reduce__(self) -> tuple[Any, ...]:
        # A nanny sends Dask's configuration to its worker, which has no use for this.
        return (type(None), ())

    def __call__(self, dsk: Any, keys: Any, **kwargs: Any) -> Any:
        """The same as `get`: Dask takes a scheduler that can be called."""
        return self.get(dsk, keys, **kwargs)

    def get(self, dsk: Any, keys: Any, **kwargs: Any) -> Any:
        """Compute the keys of a graph or expression; the values, nested as the keys are."""
        inner = self._inner(dsk)
        if _off.get():
            return inner(dsk, keys, **kwargs)
        client = _client_of(inner)
        for _ in range(_ATTEMPTS):
            made, annotations = self._prepare(dsk, keys, client, waits=True)
            if made is None:
                break
            try:
                with nocache():
                    values = inner(shipped(made, dsk, annotations, client), keys, **kwargs)
            except EntryVanished as error:
                logger.warning("%s It is run again now.", error)
                del made
                _forgotten(client, keys)
                continue
            self.run.done()
            return values
        with nocache():
            return inner(dsk, keys, **kwargs)

    def persist(self, collections: Any, optimize_graph: bool = True, **kwargs: Any) -> list[Any]:
        """Start computing collections, and keep their results where the tasks ran."""
        client = _client_of(self._inner(None))
        if client is None or _off.get():
            # A plain function: Dask would call the `persist` of the object that a method belongs to.
            local = partial(self.get) if client is None else client
            return list(
                dask.persist(*collections, traverse=False, optimize_graph=optimize_graph, scheduler=local, **kwargs)
            )
        expr = collections_to_expr(collections, optimize_graph).optimize()
        nested = expr.__dask_keys__()
        keys = list(flatten(nested))
        made, annotations = self._prepare(expr, keys, client, waits=False)
        sent = expr if made is None else shipped(made, expr, annotations, client)
        with nocache():
            futures = dict(zip(keys, client.get(sent, keys, sync=False, **kwargs), strict=True))
        rebuilds = [collection.__dask_postpersist__() for collection in collections]
        return [
            rebuild({key: futures[key] for key in flatten(part)}, *state)
            for (rebuild, state), part in zip(rebuilds, nested, strict=True)
        ]

    def _prepare(self, dsk: Any, keys: Any, client: Any, *, waits: bool) -> tuple[Plan | None, Annotations]:
        if client is not None:
            self.run.uses(client)
        graph, annotations = materialised(dsk)
        return self.run.prepare(graph, list(flatten([keys])), client, waits=waits), annotations

    def _inner(self, dsk: Any) -> Callable[..., Any]:
        if self.beneath is not None:
            return cast("Callable[..., Any]", get_scheduler(scheduler=self.beneath))
        try:
            from distributed import get_client

            client = get_client()
        except (ImportError, ValueError):
            return _default_for(dsk)
        return cast("Callable[..., Any]", get_scheduler(scheduler=client))


@contextmanager
def caching(
    cache: UnifiedCache,
    *,
    which: Which = "auto",
    scheduler: Any = None,
    max_value_bytes: int = 1 << 30,
    queue_bytes: int = 64 << 20,
    incomplete: Incomplete | None = None,
) -> Iterator[Run]:
    """Let every compute() and persist() in the block use a cache; whatever the collection and scheduler.

    `which`: "auto" stores outputs, marks, and what took longer to compute than loading it would take;
    "outputs", "all" or "marked" store just that. `scheduler` is what Dask's `scheduler=` takes, by
    default what Dask would have used. On leaving the block everything is stored. `incomplete` says what
    becomes of a task whose key could not see everything that can decide its result: "warn" once a function
    and cache, "serve" silently, or "refuse"; by default as the cache does.
    """
    chosen: Any = check(incomplete, cache.config.incomplete)
    previous = dask.config.get("scheduler", None)
    run = Run(cache, Policy(which, max_value_bytes, queue_bytes, chosen))
    if scheduler is None:
        scheduler = previous.beneath if isinstance(previous, CachingScheduler) else previous
    mine = CachingScheduler(run, scheduler)
    try:
        with dask.config.set(scheduler=mine):
            yield run
            if dask.config.get("scheduler", None) is not mine:
                warnings.warn(_BYPASSED, CacheUnavailable, stacklevel=3)
    finally:
        run.close()


def active() -> Run | None:
    """The run of the `caching()` block that we are in."""
    scheduler = dask.config.get("scheduler", None)
    return scheduler.run if isinstance(scheduler, CachingScheduler) else None


@contextmanager
def nocache() -> Iterator[None]:
    """Compute without looking anything up, and without storing."""
    token = _off.set(True)
    try:
        yield
    finally:
        _off.reset(token)


def is_off() -> bool:
    """Whether we are inside of `nocache()`."""
    return _off.get()


def _client_of(inner: Callable[..., Any]) -> Any:
    """The distributed client that a scheduler function belongs to, None for a local one."""
    owner = getattr(inner, "__self__", None)
    return owner if hasattr(owner, "scheduler_info") else None


def _forgotten(client: Any, keys: Any) -> None:
    """Wait until a client has let go of failed futures: a key that is taken up again before keeps its error."""
    patience = time.monotonic() + _PATIENCE
    wanted = set(flatten([keys]))
    while client is not None and not wanted.isdisjoint(list(client.futures)) and time.monotonic() < patience:
        time.sleep(0.005)


def _default_for(dsk: Any) -> Callable[..., Any]:
    """What Dask would have used without us: processes for bags, threads for everything else."""
    optimizers = {getattr(expr, "low_level_optimizer", None) for expr in _graphs_in(dsk)}
    modules = {getattr(optimizer, "__module__", None) for optimizer in optimizers}
    return cast(
        "Callable[..., Any]", get_scheduler(scheduler="processes" if modules == {"dask.bag.core"} else "threads")
    )


def _graphs_in(dsk: Any) -> Iterator[Any]:
    if isinstance(dsk, HLGExpr):
        yield dsk
    elif isinstance(dsk, Expr):
        for operand in dsk.operands:
            yield from _graphs_in(operand)
