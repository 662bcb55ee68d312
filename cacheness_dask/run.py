"""One use of a cache: decide for each graph what runs, and keep the history."""

from __future__ import annotations

import asyncio
import os
import socket
import time
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from uuid import uuid4

from rich.table import Table

from cacheness import Config, NotCached, UnifiedCache
from cacheness.incomplete import may_cache
from cacheness.isolation import isolated
from cacheness.keys import names_of
from cacheness.keys.inputs import Counted
from cacheness.logs import logger_of
from cacheness.modes import writes
from cacheness.records import Presence
from cacheness.units import number_of, seconds_named
from cacheness_dask import live, worker
from cacheness_dask.earlier_code import EarlierCode, StandIns, is_within_a_body
from cacheness_dask.figures import Failures, FunctionReasons, count_ended, count_graph
from cacheness_dask.fingerprint import Fingerprints, Names, entry_key, fingerprints
from cacheness_dask.futures import KeptFutures
from cacheness_dask.graphs import Graph, dependents_in, downstream, topological
from cacheness_dask.marks import apart
from cacheness_dask.mutations import change_told
from cacheness_dask.policy import Policy
from cacheness_dask.pools import Pools
from cacheness_dask.reasons import DISPUTED, FILE, FOLLOWS, IN_PLACE, LEAVES, SINK, UNREADABLE
from cacheness_dask.rewrite import GraphPlan, decide, name_of
from cacheness_dask.sources_and_sinks import state_of
from cacheness_dask.worker import Store

logger = logger_of("cacheness.dask")

#: Tasks for which a run remembers why they were not stored.
_MOST_REASONS = 100_000
#: Writing tasks of a graph that are tracked one by one.
_MOST_WRITERS = 1_000
#: Results that an error lists.
_MOST_NAMED = 20
#: Reasons that are counted separately for one function.
_MOST_KINDS = 100
_UNSTORED = "not stored: "
_COLUMNS = ("hits", "skipped", "misses", "refused", "seconds_saved", "lookup_seconds")


class CacheUnavailable(UserWarning):
    """The cache did not answer, so everything is computed."""


@dataclass(slots=True)
class Record:
    """The record of one compute or persist. Each task is counted once: hit, skipped, miss or refused."""

    hits: int  #: loaded
    skipped: int  #: needed by hits only
    misses: int  #: computed, unless they were cut, and stored if the policy requires it
    refused: int  #: computed, because they have no fingerprint or must always run
    seconds_saved: float  #: the cost of the hits and the skipped tasks when they were computed
    lookup_seconds: float  #: for fingerprinting, lookup and rewriting
    reasons: dict[Any, str] = field(default_factory=dict, repr=False)  #: why, by key of a refused task
    _missed: tuple[str, ...] = field(default=(), repr=False)
    _count: Callable[[Collection[str]], int] | None = field(default=None, repr=False)
    _count_links: Callable[[Collection[str]], int] | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        return f"Record({self}, {seconds_named(self.lookup_seconds)} of looking up)"

    def __str__(self) -> str:
        return (
            f"{number_of(self.hits, 'hit')}, {self.skipped:,} skipped, {number_of(self.misses, 'miss')},"
            f" {self.refused:,} refused, {self.seconds_saved:.1f} s saved"
        )

    @property
    def stored(self) -> int:
        """Return how many of the misses are in the store now."""
        return self._count(self._missed) if self._count is not None else 0

    @property
    def cut(self) -> int:
        """Return how many misses were not computed, because their inputs came out the same as for an earlier result."""
        return self._count_links(self._missed) if self._count_links is not None else 0

    def settle(self) -> None:
        """Count the stored results for the last time, before the cache is closed."""
        stored, cut = self.stored, self.cut
        self._count, self._count_links = (lambda _: stored), (lambda _: cut)


class _Reading:
    """The input files of a graph, which must be unchanged when its results are there."""

    def __init__(self, plan: GraphPlan) -> None:
        self.entries = tuple(plan.misses.values())  #: made from them
        self._states = plan.files
        self._counted: dict[str, Counted] = {}
        #: For each file, entries of which one exists if a task of the graph itself wrote it.
        self._written: dict[str, set[str]] = {}
        for files in plan.decisions.files.values():
            for _, counted in files.found:
                texts = (entry_key(text) for names, text in files.texts.items() if counted.name in names)
                self._written.setdefault(counted.path, set()).update(texts)
                self._counted[counted.path] = counted

    def changed(self) -> set[str]:
        """Return the files whose content has changed, as far as known."""
        touched = {path for path, state in self._states.items() if state_of(path) != state}
        return {path for path in touched if path not in self._counted or not self._counted[path].is_same()}

    def written(self, cache: UnifiedCache) -> set[str]:
        """Return the files that tasks of the graph wrote."""
        there = cache.present(sorted({key for keys in self._written.values() for key in keys}))
        return {path for path, keys in self._written.items() if not there.keys().isdisjoint(keys)}


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
        self.unstored: dict[str, Counter[str]] = {}  #: why results were not stored, by function and reason
        #: Return how many results may be random, because a process-wide generator moved, by function and generator.
        self.suspected: dict[str, Counter[str]] = {}
        self._sinks: set[str] = set()  #: functions that were logged
        self._changers: set[str] = set()  #: the same, of those that change their arguments
        self._following: dict[bytes, tuple[str, ...]] = {}  #: entries of tasks after those that may be sinks
        self._never: dict[bytes, str] = {}  #: the same for results that can never be stored, by fingerprint
        self._unreadable: set[bytes] = set()  #: fingerprints of results of earlier code that could not be read
        self._pools = Pools(cache)
        self._warned = False
        self._reasons = FunctionReasons()
        self._misses: Counter[tuple[str, str]] = Counter()  #: of graphs that have not ended, by function and reason
        self._reading: list[_Reading] = []
        self._clients: list[Any] = []
        self._unflushed = False  #: something was computed since the workers last stored everything
        self._policy = policy or Policy()
        self._takes_earlier = self._policy.check != 0  #: results of earlier code, some of which are computed again
        if self._policy.check is None:
            self._policy = replace(self._policy, check=cache.config.check)
        self._incomplete = self._policy.incomplete or cache.config.incomplete
        self._config = _anywhere(cache.config)
        self._mode = cache.config.mode
        self._stores = writes(self._mode)
        if not self._stores:
            self._policy = replace(self._policy, check=0.0)  # a dispute is stored
        self._provenance = {"host": socket.gethostname(), "user": _user(), "by": "cacheness_dask"}

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
            for name, moved in self.suspected.items()
            for generator, count in moved.items()
        ]
        return "\n".join(lines) or "nothing computed yet"

    def __rich__(self) -> Table:
        table = Table(*(column.replace("_", " ") for column in _COLUMNS), title=str(self.cache.config.namespace))
        for cells in self._cells():
            table.add_row(*cells)
        return table

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{column.replace('_', ' ')}</th>" for column in _COLUMNS)
        rows = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>" for cells in self._cells())
        return f"<table><tr>{head}</tr>{rows}</table>"

    def _cells(self) -> list[list[str]]:
        return [[f"{getattr(record, column):.4g}" for column in _COLUMNS] for record in self.history]

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
        made = self._planned(graph, keys, client, waits=waits, pool=uuid4().bytes if pool else b"")
        if made is None:
            return None
        if self._mode == "offline":
            _require_cached(made)
        if self._stores:
            self._await_results(made)
        else:
            made.decisions = replace(made.decisions, stored={}, files={})
        self._record(made, time.perf_counter() - start)
        reasons = Counter[str]()
        for key, why in made.refused.items():
            if not why.startswith(FOLLOWS):
                name, why_not = name_of(made.graph[key]), why.removeprefix(_UNSTORED)
                self._count_unstored(name, why_not)
                reasons[f"{name}: {why_not}"] += 1
            if why.startswith(LEAVES):
                self._say_sink(name_of(made.graph[key]), why)
        record = self.history[-1]
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
        return made

    def _planned(
        self, graph: Graph, keys: Collection[Any], client: Any, *, waits: bool, pool: bytes
    ) -> GraphPlan | None:
        made = None
        if client is not None:
            self.uses(client)
        if not self._holds:
            self._holds = True
            worker.hold(self._config)
        with isolated(_not_cached if self._mode == "offline" else self._warn):
            if waits and self._unflushed:
                self.flush()  # otherwise results of the previous computation might be missed
            made, prints = self._plan(graph, keys, client, waits=waits, audits=self._stores, pool=pool)
            self._misses += count_graph(made, prints.clues, self.cache, self._reasons)
        return made

    def _count_ended(self, failures: Iterable[Failures]) -> None:
        """Count the misses of graphs that have ended, and failed tasks of them."""
        sums: dict[str, tuple[int, float]] = {}
        for name, (calls, seconds) in (item for failed in failures for item in failed.items()):
            before = sums.get(name, (0, 0.0))
            sums[name] = before[0] + calls, before[1] + seconds
        misses, self._misses = self._misses, Counter()
        count_ended(misses, sums, self.cache)

    def _await_results(self, made: GraphPlan) -> None:
        """Record what is about to be computed, and from what."""
        self._unflushed = self._unflushed or bool(made.misses)
        if made.files and made.misses:
            self._reading.append(_Reading(made))
        self._pools.begin(made)
        self._note_writers(made)
        if standing := made.decisions.earlier:
            following = downstream(dependents_in(made.graph), standing)
            names = tuple(made.misses[key] for key in following if key in made.misses)
            self._following.update(dict.fromkeys(standing.values(), names))

    def _note_writers(self, made: GraphPlan) -> None:
        """Record dependents of tasks that name or write files: they are deleted if those are not stored."""
        writers = [key for key in made.decisions.files if key in made.misses]
        if not writers:
            return
        dependents = dependents_in(made.graph)
        # If there are very many, their dependents are recorded together.
        groups = [[key] for key in writers] if len(writers) <= _MOST_WRITERS else [writers]
        for group in groups:
            following = tuple(made.misses[key] for key in downstream(dependents, group) if key in made.misses)
            self._following.update({made.decisions.stored[key][0]: following for key in group})

    def done(self, made: GraphPlan) -> None:
        """Record that the results of a graph have arrived.

        Args:
            made: its plan.
        """
        self._pools.succeeded(made)
        self._count_ended([worker.failed(self._config)])
        with isolated(self._warn):  # the results are right, whatever happened to the entries
            self.delete_stale()

    def look(self, graph: Graph, keys: Collection[Any]) -> tuple[list[Any], GraphPlan, Fingerprints]:
        """Return the state of a graph: its nodes in order, the plan, and the fingerprints of its tasks.

        Args:
            graph: the graph.
            keys: the keys whose results are wanted.
        """
        self.flush()
        made, prints = self._plan(graph, keys, None, waits=True, audits=False)
        return topological(made.graph, keys), made, prints

    def _plan(
        self, graph: Graph, keys: Collection[Any], client: Any, *, waits: bool, audits: bool, pool: bytes = b""
    ) -> tuple[GraphPlan, Fingerprints]:
        held = KeptFutures(client, graph)
        refuse = self._incomplete == "refuse"
        prints = fingerprints(graph, keys, held.terms, refuse_incomplete=refuse)
        cut = bool(prints.cuttable)
        if cut:
            graph = apart(graph, prints.cuttable)
            prints = fingerprints(graph, keys, held.terms, refuse_incomplete=refuse)
        for name, unseen in _unseen_of(graph, prints).items():
            may_cache(self._incomplete, name, unseen, logger.warning, self._config)
        present, noted, seconds = self._look_up(graph, prints)
        served: dict[Any, Names] = {}
        fingerprinted = partial(fingerprints, graph, keys, held.terms, served, refuse_incomplete=refuse)
        while new := _written_by(prints, present, served):
            served |= new
            prints = fingerprinted()
            present, noted, seconds = self._look_up(graph, prints)
        finder = EarlierCode(self.cache, graph, keys, prints, present, held=held.terms)
        earlier = StandIns()
        if self._takes_earlier and not is_within_a_body():
            earlier = finder.find(lambda world: fingerprinted(instead=world), self._unreadable, audits=audits)
        if earlier.standing:
            own, prints = prints.digests, fingerprinted(standing=earlier.standing)
            present, noted, seconds = self._look_up(graph, prints)
            present = earlier.present | present
            earlier.tell_of(own, prints.digests)
        if not waits:
            held.submits(keys, prints.terms)
        store = Store(self._config, replace(self._policy, latency=seconds), self._provenance, pool)
        made = decide(
            graph, keys, prints, present, store,
            held=held.terms, never=self._never, known_code=self.cache.known_code, waits=waits, earlier=earlier,
        )  # fmt: skip
        made.cut, made.keeping, made.noted = cut, held, noted
        return made, prints

    def _say_sink(self, name: str, why: str) -> None:
        if name not in self._sinks:
            self._sinks.add(name)
            logger.warning("%s runs every time, and so does what follows it: %s", name, why.removeprefix(SINK).strip())

    def _say_change(self, name: str, why: str) -> None:
        if name not in self._changers:
            self._changers.add(name)
            logger.warning("%s", change_told(name, why))

    def _refuse_sinks(self, graph: Graph, prints: Fingerprints) -> None:
        """Refuse tasks that were seen to have external effects, with all their dependents."""
        sinks = {digest: why for digest, why in self._never.items() if SINK in why}
        found = {key: sinks[digest] for key, digest in prints.digests.items() if digest in sinks} if sinks else {}
        for following in downstream(dependents_in(graph), found) if found else ():
            if prints.digests.pop(following, None) is not None:
                prints.refused[following] = found.get(following) or "downstream of a sink, which runs every time"

    def _look_up(self, graph: Graph, prints: Fingerprints) -> tuple[dict[str, Presence], dict[str, str], float]:
        """Return existing results, known reasons for missing ones, and how long an answer takes."""
        entry_of = prints.entry_of
        asked = sorted({entry_of(digest) for digest in _digests_in(prints)})
        start = time.perf_counter()
        found = self.cache.present(asked) if asked else {}
        seconds = (time.perf_counter() - start) / max(1, -(-len(asked) // 10_000))
        missing = {name: digest for digest in prints.digests.values() if (name := entry_of(digest)) not in found}
        noted = self.cache.unstored(list(missing)) if missing else {}
        for name, why in noted.items():
            if self._policy.is_lasting(why):
                self._never_again(missing[name], why)
        for one in self.cache.disputes(list(missing)) if missing else ():
            self._never_again(missing[one.cache_key], f"{DISPUTED} {one.detail}")
        self._refuse_sinks(graph, prints)
        return found, noted, seconds

    def _record(self, made: GraphPlan, seconds: float) -> None:
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
                _count_links=self._links,
            )
        )

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
        answers = [worker.report(self._config)]
        for client in self._running():
            if not client.asynchronous:
                # A worker that is gone has nothing left to store.
                answers += client.run(worker.report_soon, self._config, on_error="ignore").values()
        self._flushed(answers)

    async def aflush(self) -> None:
        """Wait as `flush` does, in a coroutine, and for workers of an asynchronous client."""
        answers = [await worker.report_soon(self._config)]
        for client in self._running():
            if client.asynchronous:
                reports = await client.run(worker.report_soon, self._config, on_error="ignore")
            else:
                reports = await asyncio.to_thread(client.run, worker.report_soon, self._config, on_error="ignore")
            answers += reports.values()
        self._flushed(answers)

    def _running(self) -> list[Any]:
        return [client for client in self._clients if client.status == "running"]

    def _flushed(self, answers: list[worker.WorkerReport]) -> None:
        for report in answers:
            if report.trouble:
                self._say(report.trouble)
            self._learn(report.unstored)
            for (name, generator), count in report.moved.items():
                self.suspected.setdefault(name, Counter())[generator] += count
        self._count_ended([*(report.failed for report in answers), *self._pools.failures()])
        self._learn(self._pools.unstored(self._following))
        self._unflushed = False
        self.delete_stale()

    def _learn(self, unstored: Mapping[bytes, tuple[str, str]]) -> None:
        """Count results that were not stored, and remember those that never can be."""
        for digest, (name, why) in unstored.items():
            if why.startswith(SINK):
                self._say_sink(name, why)
            if why.startswith(IN_PLACE):
                self._say_change(name, why)
            if why.startswith((SINK, FILE, UNREADABLE)):
                for key in self._following.get(digest, ()):
                    self.cache.invalidate(key)
            if why.startswith(UNREADABLE):
                self._unreadable.add(digest)
            self._count_unstored(name, why)
            if self._policy.is_lasting(why):
                self._never_again(digest, why)

    def _never_again(self, digest: bytes, why: str) -> None:
        if len(self._never) < _MOST_REASONS:
            self._never.setdefault(digest, f"{_UNSTORED}{why}")

    def _count_unstored(self, name: str, why: str) -> None:
        counted = self.unstored.setdefault(name, Counter())
        counted[why if why in counted or len(counted) < _MOST_KINDS else "other reasons"] += 1

    def delete_stale(self) -> None:
        """Delete results from files that changed during the run: their keys are those of the old content."""
        reading, self._reading = self._reading, []
        if not any(graph.changed() for graph in reading):
            return
        self.flush()
        stale = [graph for graph in reading if graph.changed() - graph.written(self.cache)]
        if not stale:
            return
        logger.warning("an input file changed while it was being read, so what was computed is not kept")
        for key in {key for graph in stale for key in graph.entries}:
            self.cache.invalidate(key)

    def close(self) -> None:
        """Flush, and close this process's handle."""
        with isolated(self._warn):  # a cluster that is gone, a store that is down: the work is done
            self.flush()
        self._release()

    async def aclose(self) -> None:
        """Close as `close` does, in a coroutine."""
        with isolated(self._warn):
            await self.aflush()
        await asyncio.to_thread(self._release)

    def _release(self) -> None:
        self._count_ended([worker.failed(self._config)])  # if the workers could not be reached
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


def _unseen_of(graph: Graph, prints: Fingerprints) -> dict[str, list[str]]:
    """Return what is not visible to the fingerprints, by name of the task's function."""
    found: dict[str, list[str]] = {}
    for key, unseen in prints.incomplete.items():
        found.setdefault(name_of(graph[key]), []).extend(unseen)
    return {name: list(dict.fromkeys(unseen)) for name, unseen in found.items()}


def _digests_in(prints: Fingerprints) -> Iterator[bytes]:
    yield from prints.digests.values()
    for texts in prints.texts.values():
        yield from texts.values()


def _written_by(prints: Fingerprints, present: Mapping[str, Presence], served: Mapping[Any, Names]) -> dict[Any, Names]:
    """Return tasks whose results exist under the names of some of their files, which are unchanged since."""
    found: dict[Any, Names] = {}
    for key, texts in prints.texts.items():
        if key in served or key not in prints.digests or prints.entry_of(prints.digests[key]) in present:
            continue
        for names, text in texts.items():
            there = present.get(entry_key(text))
            if there is not None and names <= names_of(there.outputs or ""):
                found[key] = names
    return found


def _anywhere(config: Config) -> Config:
    """Return a configuration with the same meaning in a process with another working directory."""
    return config.but(cache_dir=os.path.abspath(config.cache_dir))


def _user() -> str:
    return os.environ.get("USER") or os.environ.get("USERNAME") or ""
