"""Record the outcome of a task run's look-up: a line in the run's log, and a call in the cache's figures."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from cacheness import Hit, Key, UnifiedCache
from cacheness.records import HITS, MICROSECONDS, Outcome
from cacheness_prefect.error_reporting import inform
from cacheness_prefect.reasons import HIT, MISS, WAITED
from cacheness_prefect.run_metadata import Recent, about

REFRESHED = "refresh was asked for"  #: as `cached` counts it


class RunFigures:
    """The one call of a task run. Prefect looks up several times: before and after it waits for a lock."""

    def __init__(self) -> None:
        self._is_found = False
        self._reason: str | None = None  #: of a miss, after one

    def note(self, cache: UnifiedCache, key: Key, found: Recent | None, why: Sequence[str]) -> None:
        """Record the outcome of a look-up.

        Args:
            cache: the cache of the look-up.
            key: of the call.
            found: the result.
            why: why there is none, if the look-up has the reason.
        """
        if self._is_found:
            return
        if found is not None and found.hit is not None:
            self._is_found = True
            self._count_hit(cache, key, found.hit)
        elif found is None and self._reason is None:
            self._reason = why[-1] if why else cache.reasons.of(key, cache)
            inform(f"{MISS}: {self._reason or 'the reason is not known'}")

    def computed(self, cache: UnifiedCache, key: Key, seconds: float) -> None:
        """Count a miss, whose task has returned.

        Args:
            cache: in which it may be stored.
            key: of the call.
            seconds: of its computation.
        """
        reason = REFRESHED if self._reason is None else self._reason
        cache.count(key.function, "miss", reason, spent=seconds)

    def _count_hit(self, cache: UnifiedCache, key: Key, hit: Hit) -> None:
        entry, run = hit.entry, about(hit)
        outcome: Outcome = "waited" if self._reason is not None else "near hit" if hit.near else "hit"
        cache.count(key.function, outcome, saved=entry.compute_seconds or 0.0, size=entry.size)
        is_hit = outcome in HITS
        saved = f", {entry.compute_seconds:,.1f} s saved" if is_hit and entry.compute_seconds is not None else ""
        by = " of ".join(str(run[name]) for name in ("task_run", "flow_run") if run.get(name))
        when = datetime.fromtimestamp(entry.created_at / MICROSECONDS, UTC)
        inform(f"{HIT if is_hit else WAITED}{saved}; computed {when:%Y-%m-%d %H:%M} UTC" + (f" by {by}" if by else ""))
