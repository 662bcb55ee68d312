"""What a run has learned about results that are not stored. It is counted, logged, and used for the next plans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from cacheness import UnifiedCache
from cacheness.logs import logger_of
from cacheness_dask.decisions import GraphPlan
from cacheness_dask.graphs import dependents_in, downstream, name_of
from cacheness_dask.mutations import change_told
from cacheness_dask.policy import Policy
from cacheness_dask.prints import Fingerprints
from cacheness_dask.reasons import DISPUTED, FILE, FOLLOWS, IN_PLACE, LEAVES, SINK, UNREADABLE
from cacheness_dask.under_way import lock

logger = logger_of("cacheness.dask")

#: Tasks for which a run remembers why they were not stored.
_MOST_REASONS: Final = 100_000
#: Writing tasks of a graph that are tracked one by one.
_MOST_WRITERS: Final = 1_000
#: Reasons that are counted separately for one function.
_MOST_KINDS: Final = 100
_UNSTORED: Final = "not stored: "


class Learned:
    """The results that a run could not store, and why. Thread-safe.

    Args:
        cache: the cache.
        policy: which results to store.
    """

    def __init__(self, cache: UnifiedCache, policy: Policy) -> None:
        self._cache, self._policy = cache, policy
        self._counts: dict[str, Counter[str]] = {}  #: why results were not stored, by function and reason
        self.never: dict[bytes, str] = {}  #: why, of results that can never be stored, by fingerprint
        self.unreadable: set[bytes] = set()  #: fingerprints of results of earlier code that could not be read
        #: Entries of tasks that follow others: they are deleted if those turn out to have effects.
        self.following: dict[bytes, tuple[str, ...]] = {}
        self._deleted: dict[str, None] = {}  #: of these entries, those that running tasks may store again
        self._said: set[tuple[str, str]] = set()  # functions that were logged, for each kind of reason

    @property
    def counts(self) -> dict[str, Counter[str]]:
        """Return why results were not stored: how often, by function and reason."""
        with lock:
            return {name: Counter(whys) for name, whys in self._counts.items()}

    def learn(self, unstored: Mapping[bytes, tuple[str, str]]) -> None:
        """Count results that were not stored, and remember those that never can be.

        Args:
            unstored: by fingerprint, the function and the reason.
        """
        for digest, (name, why) in unstored.items():
            if why.startswith(SINK):
                self._say_sink(name, why)
            if why.startswith(IN_PLACE):
                self._say(IN_PLACE, name, change_told(name, why))
            if why.startswith((SINK, FILE, UNREADABLE)):
                self._deleted |= dict.fromkeys(self.following.get(digest, ()))
            if why.startswith(UNREADABLE):
                self.unreadable.add(digest)
            self._count(name, why)
            if self._policy.is_lasting(why):
                self._never_again(digest, why)

    def delete_following(self, *, again: bool) -> None:
        """Delete the entries of tasks that follow others with effects.

        Args:
            again: running tasks may store them after this, so the next call deletes them, too.
        """
        deleted = list(self._deleted)
        for key in deleted:
            self._cache.invalidate(key)
        if not again:
            for key in deleted:
                self._deleted.pop(key, None)

    def learn_refused(self, plan: GraphPlan) -> Counter[str]:
        """Count the refused tasks of a graph, except those that only follow others; return the counts."""
        reasons = Counter[str]()
        for key, why in plan.refused.items():
            if not why.startswith(FOLLOWS):
                name, why_not = name_of(plan.graph[key]), why.removeprefix(_UNSTORED)
                self._count(name, why_not)
                reasons[f"{name}: {why_not}"] += 1
            if why.startswith(LEAVES):
                self._say_sink(name_of(plan.graph[key]), why)
        return reasons

    def learn_stored(self, noted: Mapping[str, str], missing: Mapping[str, bytes]) -> None:
        """Remember what the cache has about results that are missing.

        Args:
            noted: why results were not stored, by the entry's key.
            missing: the fingerprints, by the entry's key.
        """
        for name, why in noted.items():
            if self._policy.is_lasting(why):
                self._never_again(missing[name], why)
        for one in self._cache.disputes([*map(bytes.fromhex, missing)]) if missing else ():
            self._never_again(missing[one.cache_key], f"{DISPUTED} {one.detail}")

    def refuse_sinks(self, graph: Mapping[Any, Any], prints: Fingerprints) -> None:
        """Refuse tasks that were seen to have external effects, with all their dependents."""
        with lock:
            sinks = {digest: why for digest, why in self.never.items() if SINK in why}
        found = {key: sinks[digest] for key, digest in prints.digests.items() if digest in sinks} if sinks else {}
        for key in downstream(dependents_in(graph), found) if found else ():
            if prints.digests.pop(key, None) is not None:
                prints.refused[key] = found.get(key) or "downstream of a sink, which runs every time"

    def begin(self, plan: GraphPlan) -> None:
        """Record what follows tasks that write files, and results of earlier code: it is deleted if those fail."""
        writers = [key for key in plan.decisions.files if key in plan.misses]
        standing = plan.decisions.earlier
        if not (writers or standing):
            return
        dependents = dependents_in(plan.graph)
        # If there are very many, their dependents are recorded together.
        groups = [[key] for key in writers] if len(writers) <= _MOST_WRITERS else [writers]
        for group in groups if writers else ():
            following = tuple(plan.misses[key] for key in downstream(dependents, group) if key in plan.misses)
            self.following |= {plan.decisions.stored[key].digest: following for key in group}
        if standing:
            names = tuple(plan.misses[key] for key in downstream(dependents, standing) if key in plan.misses)
            self.following |= dict.fromkeys(standing.values(), names)

    def _never_again(self, digest: bytes, why: str) -> None:
        with lock:
            if len(self.never) < _MOST_REASONS:
                self.never.setdefault(digest, f"{_UNSTORED}{why}")

    def _count(self, name: str, why: str) -> None:
        with lock:
            counted = self._counts.setdefault(name, Counter())
            counted[why if why in counted or len(counted) < _MOST_KINDS else "other reasons"] += 1

    def _say_sink(self, name: str, why: str) -> None:
        self._say(SINK, name, f"{name} runs every time, and so does what follows it: {why.removeprefix(SINK).strip()}")

    def _say(self, kind: str, name: str, what: str) -> None:
        if (kind, name) not in self._said:
            self._said.add((kind, name))
            logger.warning("%s", what)
