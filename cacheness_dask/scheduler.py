"""`caching()`: a scheduler that looks results up, runs the rest on Dask's own schedulers, and stores."""

from __future__ import annotations

import logging
import os
import socket
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import dask
from dask._expr import Expr, HLGExpr, LLGExpr, ProhibitReuse
from dask._task_spec import GraphNode, Task, convert_legacy_graph
from dask.base import collections_to_expr, get_scheduler
from dask.core import flatten
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from dask.utils import ensure_dict

from cacheness import Config, UnifiedCache
from cacheness.entry import Presence
from cacheness.errors import CachenessError
from cacheness_dask import worker
from cacheness_dask.fingerprint import Fingerprints, entry_key, fingerprints
from cacheness_dask.futures import held_by, remember
from cacheness_dask.inputs import state_of
from cacheness_dask.marks import apart
from cacheness_dask.policy import Policy, Which
from cacheness_dask.rewrite import Plan, plan
from cacheness_dask.walk import topological
from cacheness_dask.worker import EntryVanished, Store

logger = logging.getLogger("cacheness.dask")

_off: ContextVar[bool] = ContextVar("cacheness_dask_off", default=False)
#: How often a computation starts again because entries vanished under it, before it runs without hits.
_ATTEMPTS: Final = 3

Graph = dict[Any, GraphNode]


class CacheUnavailable(UserWarning):
    """The cache did not answer, so that everything is computed."""


@dataclass(slots=True)
class Record:
    """What one compute or persist did. A task is counted once: hit, skipped, miss or refused."""

    hits: int  #: loaded
    skipped: int  #: needed by hits only
    misses: int  #: computed, and stored where the policy says so
    refused: int  #: computed, because they cannot be fingerprinted or must always run
    seconds_saved: float  #: what the hits and the skipped tasks cost when they were computed
    lookup_seconds: float  #: fingerprinting, lookup and rewriting
    reasons: dict[Any, str] = field(default_factory=dict, repr=False)  #: why, by key of a refused task
    _missed: tuple[str, ...] = field(default=(), repr=False)
    _count: Callable[[Collection[str]], int] | None = field(default=None, repr=False)

    @property
    def stored(self) -> int:
        """How many of the misses are in the store now."""
        return self._count(self._missed) if self._count is not None else 0


class Run:
    """A stretch of work with one cache: `history` has a Record for each compute and persist."""

    def __init__(self, cache: UnifiedCache, policy: Policy | None = None) -> None:
        self.cache = cache
        self.history: list[Record] = []
        self._warned = False
        self._reading: list[Plan] = []  #: whose input files must still be as they were when it is done
        self._clients: list[Any] = []
        self._unflushed = False  #: something was computed since the workers last stored all they had
        self._policy = policy or Policy()
        self._config = _anywhere(cache.config)
        self._provenance = {"host": socket.gethostname(), "user": _user(), "by": "cacheness_dask"}

    # one graph

    def prepare(self, graph: Graph, keys: Collection[Any], client: Any, *, waits: bool) -> Plan | None:
        """Decide what runs. None when the cache does not answer: then everything runs as it is."""
        start = time.perf_counter()
        try:
            if waits and self._unflushed:
                self.flush()  # or the results of the computation before this one might be missed
            _, made = self._plan(graph, keys, client, waits=waits)
        except CachenessError as error:
            self._warn(error)
            return None
        self._unflushed = self._unflushed or bool(made.misses)
        self._record(made, time.perf_counter() - start)
        if made.files and made.misses:
            self._reading.append(made)
        return made

    def look(self, graph: Graph, keys: Collection[Any]) -> tuple[Graph, list[Any], Plan]:
        """What would happen: the graph with marks cut out, the nodes in order, and the plan."""
        self.flush()
        graph, made = self._plan(graph, keys, None, waits=True)
        return graph, topological(graph, keys), made

    def _plan(self, graph: Graph, keys: Collection[Any], client: Any, *, waits: bool) -> tuple[Graph, Plan]:
        held = held_by(client)
        prints = fingerprints(graph, keys, held)
        if prints.cuttable:
            graph = apart(graph, prints.cuttable)
            prints = fingerprints(graph, keys, held)
        present, seconds = self._look_up(prints)
        if not waits:
            remember(client, keys, prints.terms, held)
        store = Store(self._config, replace(self._policy, latency=seconds), self._provenance)
        return graph, plan(graph, keys, prints, present, store, held=held, waits=waits)

    def _look_up(self, prints: Fingerprints) -> tuple[dict[str, Presence], float]:
        asked = sorted({entry_key(digest) for digest in prints.digests.values()})
        start = time.perf_counter()
        found = self.cache.present(asked) if asked else {}
        return found, (time.perf_counter() - start) / max(1, -(-len(asked) // 10_000))

    def _record(self, made: Plan, seconds: float) -> None:
        self.history.append(
            Record(
                hits=len(made.hits),
                skipped=made.skipped,
                misses=len(made.misses),
                refused=len(made.refused),
                seconds_saved=made.seconds_saved,
                lookup_seconds=seconds,
                reasons=made.refused,
                _missed=tuple(made.misses.values()),
                _count=self._stored,
            )
        )

    def _stored(self, keys: Collection[str]) -> int:
        self.flush()
        return len(self.cache.present(list(keys)))

    def _warn(self, error: BaseException) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(f"The cache is not used, everything is computed: {error}", CacheUnavailable, stacklevel=2)

    # the workers

    def uses(self, client: Any) -> None:
        """Remember a client, whose workers have queues to flush."""
        if not any(client is known for known in self._clients):
            self._clients.append(client)

    def flush(self) -> None:
        """Wait until every worker has stored what it has to store."""
        worker.flush(self._config)
        for client in self._clients:
            if client.status == "running" and not client.asynchronous:
                client.run(worker.flush_soon, self._config)
        self._unflushed = False
        self.withdraw_stale()

    def withdraw_stale(self) -> None:
        """Delete what was computed from files that changed while they were read: its key is that of the old content."""
        reading, self._reading = self._reading, []
        for made in reading:
            changed = [path for path, state in made.files.items() if state_of(path) != state]
            if changed:
                logger.warning("%s changed while it was being read; what was computed is not kept", changed[0])
                self.flush()
                for key in made.misses.values():
                    self.cache.invalidate(key)

    def close(self) -> None:
        """Flush, and let go of this process's handle."""
        try:
            self.flush()
        finally:
            worker.release(self._config)


class CachingScheduler:
    """What Dask calls with a graph: the `scheduler` of its configuration, with `get` and `persist`."""

    def __init__(self, run: Run, scheduler: Any = None) -> None:
        self.run = run
        self._scheduler = scheduler

    def __call__(self, dsk: Any, keys: Any, **kwargs: Any) -> Any:
        return self.get(dsk, keys, **kwargs)

    def get(self, dsk: Any, keys: Any, **kwargs: Any) -> Any:
        """Compute the keys of a graph or expression; the values, nested as the keys are."""
        inner = self._inner(dsk)
        if _off.get():
            return inner(dsk, keys, **kwargs)
        client = _client_of(inner)
        graph, annotations = materialised(dsk)
        for _ in range(_ATTEMPTS):
            made = self._prepare(graph, keys, client, waits=True)
            if made is None:
                break
            try:
                with nocache():
                    values = inner(shipped(made.graph, annotations, client), keys, **kwargs)
            except EntryVanished as error:
                logger.warning("%s It is run again now.", error)
            else:
                self.run.withdraw_stale()
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
        graph, annotations = materialised(expr)
        made = self._prepare(graph, keys, client, waits=False)
        sent = expr if made is None else shipped(made.graph, annotations, client)
        with nocache():
            futures = dict(zip(keys, client.get(sent, keys, sync=False, **kwargs), strict=True))
        rebuilds = [collection.__dask_postpersist__() for collection in collections]
        return [
            rebuild({key: futures[key] for key in flatten(part)}, *state)
            for (rebuild, state), part in zip(rebuilds, nested, strict=True)
        ]

    def _prepare(self, graph: Graph, keys: Any, client: Any, *, waits: bool) -> Plan | None:
        if client is not None:
            self.run.uses(client)
        return self.run.prepare(graph, list(flatten([keys])), client, waits=waits)

    def _inner(self, dsk: Any) -> Callable[..., Any]:
        if self._scheduler is not None:
            return get_scheduler(scheduler=self._scheduler)
        try:
            from distributed import get_client

            client = get_client()
        except (ImportError, ValueError):
            return _default_for(dsk)
        return get_scheduler(scheduler=client)


@contextmanager
def caching(
    cache: UnifiedCache,
    *,
    which: Which = "auto",
    scheduler: Any = None,
    max_value_bytes: int = 1 << 30,
    queue_bytes: int = 64 << 20,
) -> Iterator[Run]:
    """Let every compute() and persist() in the block use a cache; whatever the collection and scheduler.

    `which`: "auto" stores outputs, marks, and what took longer to compute than loading it would take;
    "outputs", "all" or "marked" store just that. `scheduler` is what Dask's `scheduler=` takes, by
    default what Dask would have used. On leaving the block everything is stored.
    """
    previous = dask.config.get("scheduler", None)
    run = Run(cache, Policy(which=which, max_value_bytes=max_value_bytes, queue_bytes=queue_bytes))
    if scheduler is None and not isinstance(previous, CachingScheduler):
        scheduler = previous
    try:
        with dask.config.set(scheduler=CachingScheduler(run, scheduler)):
            yield run
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


def materialised(dsk: Any) -> tuple[Graph, dict[str, dict[Any, Any]]]:
    """The graph of an expression, and its annotations by type and key."""
    annotations: dict[str, dict[Any, Any]] = {}
    if isinstance(dsk, HighLevelGraph):
        dsk = HLGExpr(dsk)
    if isinstance(dsk, Expr):
        annotations = dsk.__dask_annotations__()
        dsk = dsk.__dask_graph__()
    graph = convert_legacy_graph(ensure_dict(dsk))
    for key, node in graph.items():
        if isinstance(node, Task) and node.func is ProhibitReuse._identity and isinstance(node.args[0], Task):
            graph[key] = node.args[0].substitute({}, key=key)  # the same task under the other name
    return graph, annotations


def shipped(graph: Graph, annotations: Mapping[str, Mapping[Any, Any]], client: Any) -> Any:
    """A graph in the form that the scheduler keeps annotations of."""
    if client is None:
        return graph
    if not any(annotations.values()):
        return LLGExpr(graph)
    kept = {kind: {k: v for k, v in by_key.items() if k in graph}.get for kind, by_key in annotations.items()}
    layers = {"cacheness": MaterializedLayer(graph, annotations=kept)}
    return HLGExpr(HighLevelGraph(layers, {"cacheness": set()}))


def _client_of(inner: Callable[..., Any]) -> Any:
    """The distributed client that a scheduler function belongs to, None for a local one."""
    owner = getattr(inner, "__self__", None)
    return owner if hasattr(owner, "scheduler_info") else None


def _default_for(dsk: Any) -> Callable[..., Any]:
    """What Dask would have used without us: processes for bags, threads for everything else."""
    optimizers = {getattr(expr, "low_level_optimizer", None) for expr in _graphs_in(dsk)}
    modules = {getattr(optimizer, "__module__", None) for optimizer in optimizers}
    return get_scheduler(scheduler="processes" if modules == {"dask.bag.core"} else "threads")


def _graphs_in(dsk: Any) -> Iterator[Any]:
    if isinstance(dsk, HLGExpr):
        yield dsk
    elif isinstance(dsk, Expr):
        for operand in dsk.operands:
            yield from _graphs_in(operand)


def _anywhere(config: Config) -> Config:
    """A configuration that means the same in a process with another working directory."""
    return config.but(cache_dir=os.path.abspath(config.cache_dir))


def _user() -> str:
    return os.environ.get("USER") or os.environ.get("USERNAME") or ""
