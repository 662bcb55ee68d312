"""Plan a graph: fingerprint it, look its results up, and decide.

A graph passes through these steps. Each makes a record, which the next one takes:

    GraphRequest   what a caller wants computed                        `scheduler.py`, `hooks.py`
    Fingerprints   what each task computes                             `fingerprint.py`
    CachedResults  which of these results exist                        here
    StandIns       which results of earlier code count for others      `earlier_code.py`
    GraphPlan      which tasks are loaded, computed and stored         `decide.py`
    Graph          the tasks that run, with loads and stores           `apply.py`
    Expr           the same, in the form for the scheduler             `ship.py`
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias

from cacheness import Config, UnifiedCache
from cacheness.incomplete import Incomplete, may_cache
from cacheness.keys import names_of
from cacheness.logs import logger_of
from cacheness.records import Presence
from cacheness_dask.decide import decide
from cacheness_dask.decisions import CachedResults, GraphPlan, GraphRequest
from cacheness_dask.earlier_code import EarlierCode, StandIns, is_within_a_body
from cacheness_dask.fingerprint import fingerprints
from cacheness_dask.graphs import Graph, name_of
from cacheness_dask.learned import Learned
from cacheness_dask.marks import apart
from cacheness_dask.policy import Policy
from cacheness_dask.prints import Fingerprints, Names
from cacheness_dask.result_keys import entry_digests, entry_key
from cacheness_dask.worker import Store

logger = logger_of("cacheness.dask")

#: By task: files that count by their names, because it wrote them.
_Served: TypeAlias = dict[Any, Names]


@dataclass(frozen=True, slots=True)
class GraphPlanner:
    """Plans the graphs of one run.

    Attributes:
        cache: the cache.
        config: its configuration, for other processes.
        policy: which results to store.
        incomplete: what to do with a task whose key is incomplete.
        takes_earlier: whether results of earlier code count.
        learned: what is known about results that are not stored.
        provenance: where the tasks were planned, for their entries.
        run: to which workers report.
    """

    cache: UnifiedCache
    config: Config
    policy: Policy
    incomplete: Incomplete
    takes_earlier: bool
    learned: Learned
    provenance: dict[str, Any] = field(default_factory=dict)
    run: bytes = b""

    def plan(self, asked: GraphRequest, *, audits: bool) -> tuple[GraphPlan, Fingerprints]:
        """Return the decisions about a graph, and its fingerprints.

        Args:
            asked: the graph.
            audits: some results of earlier code are computed anyway, and compared.
        """
        whole, prints = self._fingerprinted(asked)
        prints, known, served = self._known(whole, prints)
        earlier = self._earlier(whole, prints, known, served, audits=audits)
        if earlier.standing:
            own, prints = prints.digests, self._refingerprinted(whole, served, standing=earlier.standing)
            known = self._look_up(whole, prints)
            known = replace(known, present=earlier.present | dict(known.present))
            earlier.tell_of(own, prints.digests)
        made = decide(
            whole,
            prints,
            known,
            Store(self.config, replace(self.policy, latency=known.seconds), self.provenance, asked.pool, self.run),
            never=self.learned.never,
            known_code=self.cache.known_code,
            earlier=earlier,
        )
        made.cut = whole is not asked
        return made, prints

    def _fingerprinted(self, asked: GraphRequest) -> tuple[GraphRequest, Fingerprints]:
        """Return the graph and its fingerprints; fused tasks with a mark inside are split."""
        prints = self._refingerprinted(asked, {})
        if prints.cuttable:
            asked = replace(asked, graph=apart(asked.graph, prints.cuttable))
            prints = self._refingerprinted(asked, {})
        for name, unseen in _unseen_of(asked.graph, prints).items():
            may_cache(self.incomplete, name, unseen, logger.warning, self.config)
        return asked, prints

    def _refingerprinted(self, asked: GraphRequest, served: _Served, **instead: Any) -> Fingerprints:
        refuses = self.incomplete == "refuse"
        return fingerprints(asked.graph, asked.keys, asked.held, served, refuse_incomplete=refuses, **instead)

    def _known(self, asked: GraphRequest, prints: Fingerprints) -> tuple[Fingerprints, CachedResults, _Served]:
        """Return what the cache has, also for tasks that wrote some of the files which they name."""
        known, served = self._look_up(asked, prints), _Served()
        while new := _written_by(prints, known.present, served):
            served |= new
            prints = self._refingerprinted(asked, served)
            known = self._look_up(asked, prints)
        return prints, known, served

    def _look_up(self, asked: GraphRequest, prints: Fingerprints) -> CachedResults:
        """Return the existing results, known reasons for missing ones, and how long an answer takes."""
        entries = prints.entries
        named = entry_digests(prints.digests.values())
        for texts in prints.texts.values():
            named |= entry_digests(texts.values())
        entries.update(zip(named, map(bytes.hex, named.values()), strict=True))
        start = time.perf_counter()
        # As bytes: the cache would check the digits of each. In the order of the database's index.
        found = self.cache.present(sorted(named.values())) if named else {}
        seconds = (time.perf_counter() - start) / max(1, -(-len(named) // 10_000))
        missing: dict[str, bytes] = {}
        if len(found) < len(named):
            missing = {name: digest for digest in prints.digests.values() if (name := entries[digest]) not in found}
        noted = self.cache.unstored([*map(bytes.fromhex, missing)]) if missing else {}
        self.learned.learn_stored(noted, missing)
        self.learned.refuse_sinks(asked.graph, prints)
        return CachedResults(found, noted, seconds, is_whole=not missing)

    def _earlier(
        self, asked: GraphRequest, prints: Fingerprints, known: CachedResults, served: _Served, *, audits: bool
    ) -> StandIns:
        """Return the results of earlier code for tasks that miss."""
        if known.is_whole or not self.takes_earlier or is_within_a_body():
            return StandIns()
        finder = EarlierCode(self.cache, asked.graph, asked.keys, prints, known.present, held=asked.held)
        refingerprinted = partial(self._refingerprinted, asked, served)
        return finder.find(lambda world: refingerprinted(instead=world), self.learned.unreadable, audits=audits)


def _unseen_of(graph: Graph, prints: Fingerprints) -> dict[str, list[str]]:
    """Return what is not visible to the fingerprints, by name of the task's function."""
    found: dict[str, list[str]] = {}
    for key, unseen in prints.incomplete.items():
        found.setdefault(name_of(graph[key]), []).extend(unseen)
    return {name: list(dict.fromkeys(unseen)) for name, unseen in found.items()}


def _written_by(prints: Fingerprints, present: Mapping[str, Presence], served: Mapping[Any, Names]) -> _Served:
    """Return tasks whose results exist under the names of some of their files, which are unchanged since."""
    found = _Served()
    for key, texts in prints.texts.items():
        if key in served or key not in prints.digests or prints.entries[prints.digests[key]] in present:
            continue
        for names, text in texts.items():
            there = present.get(entry_key(text))
            if there is not None and names <= names_of(there.outputs or ""):
                found[key] = names
    return found
