"""One use of a cache: plan each graph, and keep the history."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import time
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any, Final
from uuid import uuid4

from rich.table import Table

from cacheness import Config, NotCached, UnifiedCache
from cacheness.isolation import isolated
from cacheness.logs import logger_of
from cacheness.modes import writes
from cacheness.units import number_of
from cacheness_dask import live, reports, worker
from cacheness_dask.decisions import GraphPlan, GraphRequest
from cacheness_dask.figures import Failures, FunctionReasons, count_ended, count_graph
from cacheness_dask.futures import KeptFutures
from cacheness_dask.graphs import Graph, name_of, topological
from cacheness_dask.history import Record, as_html, as_table, record_of
from cacheness_dask.learned import Learned
from cacheness_dask.plan import GraphPlanner
from cacheness_dask.policy import Policy
from cacheness_dask.pools import Pools
from cacheness_dask.prints import Fingerprints
from cacheness_dask.reading import delete_stale
from cacheness_dask.under_way import GraphsUnderWay, UnderWay, lock

logger = logger_of("cacheness.dask")

#: Results that an error lists.
_MOST_NAMED: Final = 20
#: Seconds between looks at futures for which a run waits at its end, and until it logs that it waits.
_PAUSE: Final = 0.05
_PATIENCE: Final = 10.0


class CacheUnavailable(UserWarning):
    """The cache did not answer, so everything is computed."""


class Run:
    """What was computed with one cache: `history` has a Record for each compute and persist.

    Args:
        cache: an open cache.
        policy: which results to store.
        owns: close the cache at the end.
    """

    def __init__(self, cache: UnifiedCache, policy: Policy | None = None, *, owns: bool = False) -> None:
        self.cache = cache
        self._owns = owns  #: the cache was opened for this run, and closes with it
        self._holds = False  #: this process's handle on it stays open for this run
        self.history: list[Record] = []
        #: Return how many results may be random, because a process-wide generator moved, by function and generator.
        self.suspected: dict[str, Counter[str]] = {}
        self._warned = False
        self._clients: list[Any] = []
        self._unflushed = False  #: something was computed since the workers last stored everything
        self._id = uuid4().bytes  #: workers report to it
        self._under_way = GraphsUnderWay()
        self._pools = Pools(cache)
        self._reasons = FunctionReasons()
        self._raised: Counter[str] = Counter()  #: tasks of graphs that have not ended, by function
        self._mode = cache.config.mode
        self._stores = writes(self._mode)
        self._config = _anywhere(cache.config)
        given = policy or Policy()
        self._policy = _complete(given, cache.config, stores=self._stores)
        self._learned = Learned(cache, self._policy)
        self._planner = GraphPlanner(
            cache,
            self._config,
            self._policy,
            given.incomplete or cache.config.incomplete,
            takes_earlier=given.check != 0,  # some of these are computed again
            learned=self._learned,
            provenance={"host": socket.gethostname(), "user": _user(), "by": "cacheness_dask"},
            run=self._id,
        )

    @property
    def unstored(self) -> dict[str, Counter[str]]:
        """Return why results were not stored: how often, by function and reason."""
        return self._learned.counts

    def __repr__(self) -> str:
        return f"<{number_of(len(self.history), 'graph')} with {self.cache!r}>"

    def __str__(self) -> str:
        lines = [str(record) for record in self.history]
        lines += [
            f"not stored: {name}, {count} x {why}"
            for name, whys in self.unstored.items()
            for why, count in whys.items()
        ]
        lines += [
            f"suspected of chance: {name}, {count} x the process-wide generator of {generator} moved"
            for name, moved in self.suspected.copy().items()
            for generator, count in moved.copy().items()
        ]
        return "\n".join(lines) or "nothing computed yet"

    def __rich__(self) -> Table:
        return as_table(self.history, str(self.cache.config.namespace))

    def _repr_html_(self) -> str:
        return as_html(self.history)

    # one graph

    def prepare(
        self, graph: Graph, keys: Collection[Any], client: Any, *, waits: bool, pool: bool = False
    ) -> GraphPlan | None:
        """Decide which tasks of a graph to load, compute and store.

        Args:
            graph: the graph.
            keys: the keys whose results are wanted.
            client: the distributed client, or None.
            waits: the caller waits for the results.
            pool: tasks run in other processes without a client, and write to files why they store nothing.

        Returns:
            The plan; None if the cache does not answer, and the graph must be computed without it.

        Raises NotCached with `mode="offline"`, if a result that may be cached is missing.
        """
        if self._mode == "off":
            return None
        start = time.perf_counter()
        asked = GraphRequest(graph, keys, waits=waits, pool=uuid4().bytes if pool else b"")
        made = self._planned(asked, client)
        if made is None:
            return None
        if self._mode == "offline":
            _require_cached(made)
        if self._stores:
            self._await_results(made)
        else:
            made.decisions = replace(made.decisions, stored={}, files={})
        record = record_of(made, time.perf_counter() - start, self._stored, self._links)
        self.history.append(record)
        self._tell(made, record, client)
        return made

    def _planned(self, asked: GraphRequest, client: Any) -> GraphPlan | None:
        made = None
        if client is not None:
            self.uses(client)
        if not self._holds:
            self._holds = True
            worker.hold(self._config)
        with isolated(_not_cached if self._mode == "offline" else self._warn):
            # Otherwise results of the previous computation, of this run or another one, might be missed.
            if asked.waits and (self._unflushed or worker.is_behind(self._config)):
                self.flush()
            futures = KeptFutures(client, asked.graph)
            plan, prints = self._planner.plan(replace(asked, held=futures.terms), audits=self._stores)
            if not asked.waits:
                futures.submits(asked.keys, prints.terms)
            plan.keeping, made = futures, plan
            misses = count_graph(made, prints.clues, self.cache, self._reasons)
            if made.misses:
                made.under_way = UnderWay(made, futures.states, misses, stores=self._stores)
                self._under_way.add(made.under_way)
        return made

    def _await_results(self, made: GraphPlan) -> None:
        """Record what is about to be computed, and from what."""
        self._unflushed = self._unflushed or bool(made.misses)
        self._pools.begin(made)
        self._learned.begin(made)

    def _tell(self, made: GraphPlan, record: Record, client: Any) -> None:
        reasons = self._learned.learn_refused(made)
        live.tell(
            client,
            graphs=1,
            hits=record.hits,
            skipped=record.skipped,
            misses=record.misses,
            refused=record.refused,
            seconds_saved=record.seconds_saved,
            to_compute=len(made.misses.keys() & made.decisions.stored.keys()),
            reasons=dict(reasons.most_common(live.MOST_REASONS)),
        )

    def done(self, made: GraphPlan) -> None:
        """Record that the results of a graph have arrived.

        Args:
            made: its plan.
        """
        self._ended(made, failed=False)
        self._count_ended([made.under_way] if made.under_way is not None else [], [reports.failed(self._id)])
        with isolated(self._warn):  # the results are right, whatever happened to the entries
            self.delete_stale()

    def failed(self, made: GraphPlan) -> None:
        """Record that a graph has ended without results.

        Args:
            made: its plan.
        """
        self._ended(made, failed=True)

    def _ended(self, made: GraphPlan, *, failed: bool) -> None:
        self._pools.ended(made, failed=failed)
        if made.under_way is not None:
            made.under_way.end()

    def look(self, graph: Graph, keys: Collection[Any]) -> tuple[list[Any], GraphPlan, Fingerprints]:
        """Return the state of a graph: its nodes in order, the plan, and the fingerprints of its tasks.

        Args:
            graph: the graph.
            keys: the keys whose results are wanted.
        """
        self.flush()
        made, prints = self._planner.plan(GraphRequest(graph, keys), audits=False)
        return topological(made.graph, keys), made, prints

    def _count_ended(self, graphs: Iterable[UnderWay], failures: Iterable[Failures]) -> None:
        """Count the misses of graphs that have ended, and tasks that failed, of any graph."""
        sums: dict[str, tuple[int, float]] = {}
        for name, (calls, seconds) in (item for failed in failures for item in failed.items()):
            before = sums.get(name, (0, 0.0))
            sums[name] = before[0] + calls, before[1] + seconds
        with lock:
            count_ended(self._under_way.taken_misses(graphs), sums, self._raised, self.cache)
            if not any(graph.misses or not graph.is_over for graph in self._under_way.every()):
                self._raised.clear()  # of tasks that were tried again

    def _stored(self, keys: Collection[str]) -> int:
        self.flush()
        return len(self.cache.present(list(keys)))

    def _links(self, keys: Collection[str]) -> int:
        self.flush()
        return sum(found.link is not None for found in self.cache.present(list(keys)).values())

    def _warn(self, error: BaseException) -> None:
        self._say(f"The cache is not used, everything is computed: {error}")

    def _say(self, trouble: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(trouble, CacheUnavailable, stacklevel=2)

    # workers

    def uses(self, client: Any) -> None:
        """Remember a client, whose workers have queues to flush.

        Args:
            client: the distributed client.
        """
        if not any(client is known for known in self._clients):
            self._clients.append(client)
            live.follow(client)
            from cacheness_dask import dashboard  # with a client, Distributed is loaded

            dashboard.show_page(client)

    def flush(self) -> None:
        """Wait until every worker has stored all its results."""
        self._store_all()
        self.delete_stale()

    def _store_all(self) -> None:
        over = self._over()
        answers = [worker.report(self._config, self._id)]
        for client in self._running():
            if not client.asynchronous:
                # A worker that is gone has nothing left to store.
                answers += client.run(worker.report_soon, self._config, self._id, on_error="ignore").values()
        self._flushed(answers, over)

    async def aflush(self) -> None:
        """Wait as `flush` does, in a coroutine, and for workers of an asynchronous client."""
        over = self._over()
        answers = [await worker.report_soon(self._config, self._id)]
        for client in self._running():
            if client.asynchronous:
                reports = await client.run(worker.report_soon, self._config, self._id, on_error="ignore")
            else:
                reports = await asyncio.to_thread(
                    client.run, worker.report_soon, self._config, self._id, on_error="ignore"
                )
            answers += reports.values()
        self._flushed(answers, over)
        self.delete_stale()

    def _running(self) -> list[Any]:
        return [client for client in self._clients if client.status == "running"]

    def _over(self) -> list[UnderWay]:
        return [graph for graph in self._under_way.every() if graph.is_over]

    def _flushed(self, answers: list[reports.WorkerReport], over: list[UnderWay]) -> None:
        for report in answers:
            if report.trouble:
                self._say(report.trouble)
            self._learned.learn(report.unstored)
            with lock:
                for (name, generator), count in report.moved.items():
                    self.suspected.setdefault(name, Counter())[generator] += count
        self._count_ended(over, [*(report.failed for report in answers), *self._pools.failures()])
        self._learned.learn(self._pools.unstored(self._learned.following))
        self._unflushed = bool(self._under_way)

    def delete_stale(self) -> None:
        """Delete results from files that changed while they were read: their keys are those of the old content.

        Graphs of other threads, and of futures, may still run: their files are compared again until they end.
        """
        graphs = self._under_way.every()
        over = [graph for graph in graphs if graph.is_over]  # before their files are looked at
        running = len(over) < len(graphs)
        delete_stale([graph.reading for graph in graphs if graph.reading is not None], self.cache, self._store_all)
        self._learned.delete_following(again=running)
        self._under_way.remove(graph for graph in over if not graph.misses)  # others failed, and are counted later

    def close(self, *, waits: bool = True) -> None:
        """Flush, and close this process's handle.

        Args:
            waits: first wait for persisted graphs and futures that read files.
        """
        # Not with an asynchronous client: sleep would block the event loop that its futures need.
        if waits and not any(client.asynchronous for client in self._running()):
            for pause in self._pauses():
                time.sleep(pause)
        with isolated(self._warn):  # a cluster that is gone, a store that is down: the work is done
            self.flush()
        self._release()

    async def aclose(self, *, waits: bool = True) -> None:
        """Close as `close` does, in a coroutine.

        Args:
            waits: as for `close`.
        """
        for pause in self._pauses() if waits else ():
            await asyncio.sleep(pause)
        with isolated(self._warn):
            await self.aflush()
        await asyncio.to_thread(self._release)

    def _pauses(self) -> Iterator[float]:
        """Yield the seconds to wait until no graph may store results of a file that has changed.

        The files of a graph that outlives its run would not be compared.
        """
        until = time.monotonic() + _PATIENCE
        while self._running() and any(graph.may_store for graph in self._under_way.every()):
            if time.monotonic() > until:
                until = math.inf
                logger.warning("a block waits until the persisted graphs and futures in it that read files have ended")
            yield _PAUSE

    def _release(self) -> None:
        self._count_ended(self._under_way.every(), [reports.failed(self._id)])  # if the workers could not be reached
        with isolated(self._warn):
            if self._owns:
                for record in self.history:
                    record.settle()
            if self._holds:
                self._holds = False
                worker.release(self._config)
        if self._owns:
            self.cache.close()


def _not_cached(error: Exception) -> None:
    raise NotCached(f"mode='offline' computes nothing, and the cache did not answer: {error}") from error


def _require_cached(made: GraphPlan) -> None:
    """Raise NotCached for a missing result that may be cached.

    For a result that was not stored, the reason is known.
    """
    asked = made.misses.keys() & made.decisions.stored.keys()
    lacking = Counter(name_of(made.graph[key]) for key in asked if made.misses[key] not in made.noted)
    if not lacking:
        return
    named = ", ".join(f"{count} x {name}" for name, count in lacking.most_common(_MOST_NAMED))
    more = f", and {len(lacking) - _MOST_NAMED} more functions" if len(lacking) > _MOST_NAMED else ""
    raise NotCached(
        f"mode='offline' computes nothing, and {lacking.total()} of the results that are needed are not in the cache:"
        f" {named}{more}. cacheness_dask.explain shows why"
    )


def _complete(policy: Policy, config: Config, *, stores: bool) -> Policy:
    """Return the policy with the cache's settings where it has none."""
    if not stores:
        return replace(policy, check=0.0)  # a dispute is stored
    return policy if policy.check is not None else replace(policy, check=config.check)


def _anywhere(config: Config) -> Config:
    """Return a configuration with the same meaning in a process with another working directory."""
    return config.but(cache_dir=os.path.abspath(config.cache_dir))


def _user() -> str:
    return os.environ.get("USER") or os.environ.get("USERNAME") or ""
