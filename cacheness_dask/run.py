"""A stretch of work with one cache: decide for each graph what runs, and keep the history."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any

from rich.table import Table

from cacheness import Config, UnifiedCache
from cacheness.entry import Presence
from cacheness.incomplete import may_cache
from cacheness_dask import worker
from cacheness_dask.edge import unbroken
from cacheness_dask.fingerprint import Fingerprints, entry_key, fingerprints
from cacheness_dask.futures import Held
from cacheness_dask.graphs import Graph, topological
from cacheness_dask.inputs import FileState, state_of
from cacheness_dask.marks import apart
from cacheness_dask.policy import Policy
from cacheness_dask.rewrite import Plan, decide, name_of
from cacheness_dask.worker import Store

logger = logging.getLogger("cacheness.dask")

_COLUMNS = ("hits", "skipped", "misses", "refused", "seconds_saved", "lookup_seconds")


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

    def settle(self) -> None:
        """Count what is stored for the last time, before the cache is closed."""
        stored = self.stored
        self._count = lambda _: stored


class Run:
    """A stretch of work with one cache: `history` has a Record for each compute and persist."""

    def __init__(self, cache: UnifiedCache, policy: Policy | None = None, *, owns: bool = False) -> None:
        self.cache = cache
        self._owns = owns  #: the cache was opened for this run, and ends with it
        self._holds = False  #: this process's handle on it is kept open for us
        self.history: list[Record] = []
        self._warned = False
        #: Input files that must be as they were when the results are there, and the entries made from them.
        self._reading: list[tuple[dict[str, FileState], tuple[str, ...]]] = []
        self._clients: list[Any] = []
        self._unflushed = False  #: something was computed since the workers last stored all they had
        self._policy = policy or Policy()
        self._incomplete = self._policy.incomplete or cache.config.incomplete
        self._config = _anywhere(cache.config)
        self._provenance = {"host": socket.gethostname(), "user": _user(), "by": "cacheness_dask"}

    def __str__(self) -> str:
        lines = [
            f"{r.hits} {'hit' if r.hits == 1 else 'hits'}, {r.skipped} skipped, {r.misses} computed,"
            f" {r.refused} refused, {r.seconds_saved:.1f} s saved"
            for r in self.history
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

    def prepare(self, graph: Graph, keys: Collection[Any], client: Any, *, waits: bool) -> Plan | None:
        """Decide what runs. None when the cache does not answer: then everything runs as it is."""
        start = time.perf_counter()
        made = None
        if client is not None:
            self.uses(client)
        if not self._holds:
            self._holds = True
            worker.hold(self._config)
        with unbroken(self._warn):
            if waits and self._unflushed:
                self.flush()  # or the results of the computation before this one might be missed
            made, _ = self._plan(graph, keys, client, waits=waits)
        if made is None:
            return None
        self._unflushed = self._unflushed or bool(made.misses)
        self._record(made, time.perf_counter() - start)
        if made.files and made.misses:
            self._reading.append((made.files, tuple(made.misses.values())))
        return made

    def done(self) -> None:
        """To be called when the results of a graph are there."""
        with unbroken(self._warn):  # the results are right, whatever became of the entries
            self.withdraw_stale()

    def look(self, graph: Graph, keys: Collection[Any]) -> tuple[list[Any], Plan, Fingerprints]:
        """What would happen: the nodes in order, the plan, and what it was made from."""
        self.flush()
        made, prints = self._plan(graph, keys, None, waits=True)
        return topological(made.graph, keys), made, prints

    def _plan(self, graph: Graph, keys: Collection[Any], client: Any, *, waits: bool) -> tuple[Plan, Fingerprints]:
        held = Held(client, graph)
        refuse = self._incomplete == "refuse"
        prints = fingerprints(graph, keys, held.terms, refuse_incomplete=refuse)
        cut = bool(prints.cuttable)
        if cut:
            graph = apart(graph, prints.cuttable)
            prints = fingerprints(graph, keys, held.terms, refuse_incomplete=refuse)
        for name, unseen in _unseen_of(graph, prints).items():
            may_cache(self._incomplete, name, unseen, logger.warning, self._config)
        present, seconds = self._look_up(prints)
        if not waits:
            held.submits(keys, prints.terms)
        store = Store(self._config, replace(self._policy, latency=seconds), self._provenance)
        made = decide(graph, keys, prints, present, store, held=held.terms, waits=waits)
        made.cut, made.keeping = cut, held
        return made, prints

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
        self._say(f"The cache is not used, everything is computed: {error}")

    def _say(self, trouble: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(trouble, CacheUnavailable, stacklevel=2)

    # the workers

    def uses(self, client: Any) -> None:
        """Remember a client, whose workers have queues to flush."""
        if not any(client is known for known in self._clients):
            self._clients.append(client)

    def flush(self) -> None:
        """Wait until every worker has stored what it has to store."""
        troubles = [worker.flush(self._config)]
        for client in self._running():
            if not client.asynchronous:
                # A worker that is gone has nothing left to store.
                troubles += client.run(worker.flush_soon, self._config, on_error="ignore").values()
        self._flushed(troubles)

    async def aflush(self) -> None:
        """The same in a coroutine, and for workers of an asynchronous client."""
        troubles = [await worker.flush_soon(self._config)]
        for client in self._running():
            if client.asynchronous:
                told = await client.run(worker.flush_soon, self._config, on_error="ignore")
            else:
                told = await asyncio.to_thread(client.run, worker.flush_soon, self._config, on_error="ignore")
            troubles += told.values()
        self._flushed(troubles)

    def _running(self) -> list[Any]:
        return [client for client in self._clients if client.status == "running"]

    def _flushed(self, troubles: list[str]) -> None:
        for trouble in filter(None, troubles):
            self._say(trouble)
        self._unflushed = False
        self.withdraw_stale()

    def withdraw_stale(self) -> None:
        """Delete what was computed from files that changed meanwhile: its key is that of the old content."""
        reading, self._reading = self._reading, []
        stale = [keys for files, keys in reading if any(state_of(path) != state for path, state in files.items())]
        if not stale:
            return
        logger.warning("An input file changed while it was being read, so what was computed is not kept")
        self.flush()
        for key in {key for keys in stale for key in keys}:
            self.cache.invalidate(key)

    def close(self) -> None:
        """Flush, and let go of this process's handle."""
        with unbroken(self._warn):  # a cluster that is gone, a store that is down: the work is done
            self.flush()
        self._release()

    async def aclose(self) -> None:
        """The same in a coroutine."""
        with unbroken(self._warn):
            await self.aflush()
        await asyncio.to_thread(self._release)

    def _release(self) -> None:
        with unbroken(self._warn):
            if self._owns:
                for record in self.history:
                    record.settle()
            if self._holds:
                self._holds = False
                worker.release(self._config)
        if self._owns:
            self.cache.close()


def _unseen_of(graph: Graph, prints: Fingerprints) -> dict[str, list[str]]:
    """What the fingerprints could not see, by name of the task's function."""
    found: dict[str, list[str]] = {}
    for key, unseen in prints.incomplete.items():
        found.setdefault(name_of(graph[key]), []).extend(unseen)
    return {name: list(dict.fromkeys(unseen)) for name, unseen in found.items()}


def _anywhere(config: Config) -> Config:
    """A configuration that means the same in a process with another working directory."""
    return config.but(cache_dir=os.path.abspath(config.cache_dir))


def _user() -> str:
    return os.environ.get("USER") or os.environ.get("USERNAME") or ""
