"""Record the outcome of a task run's look-up: a line in the run's log, and a call in the cache's figures."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from cacheness import Hit, Key, UnifiedCache
from cacheness.records import HITS, MICROSECONDS, RAISED, REFRESHED, Outcome
from cacheness_prefect.error_reporting import inform
from cacheness_prefect.reasons import HIT, MISS, WAITED
from cacheness_prefect.run_metadata import Recent, about, task_run_id

#: Seconds that task runs waited for other runs, by the id of the run, until they are counted.
_waits: OrderedDict[str, float] = OrderedDict()
_WAITS_KEPT: Final = 1000  #: runs that end without being counted leave theirs


def note_wait(task_run: str, seconds: float) -> None:
    """Record that a task run waited for another run of its key.

    Args:
        task_run: the id of the run.
        seconds: of its waiting.
    """
    _waits[task_run] = seconds
    while len(_waits) > _WAITS_KEPT:
        _waits.popitem(last=False)


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

    def raised(self, cache: UnifiedCache, key: Key, seconds: float) -> None:
        """Count a task that raised.

        Args:
            cache: in which its result would be stored.
            key: of the call.
            seconds: until it raised.
        """
        cache.count(key.function, "failed", RAISED, spent=seconds)

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
        seconds = _waits.pop(task_run_id(), None)
        if seconds is not None or self._reason is not None:
            outcome: Outcome = "waited"
            cache.count(key.function, outcome, spent=seconds or 0.0)
        else:
            outcome = "near hit" if hit.near else "hit"
            cache.count(key.function, outcome, saved=entry.compute_seconds or 0.0, size=entry.size)
        is_hit = outcome in HITS
        saved = f", {entry.compute_seconds:,.1f} s saved" if is_hit and entry.compute_seconds is not None else ""
        by = " of ".join(str(run[name]) for name in ("task_run", "flow_run") if run.get(name))
        when = datetime.fromtimestamp(entry.created_at / MICROSECONDS, UTC)
        inform(f"{HIT if is_hit else WAITED}{saved}; computed {when:%Y-%m-%d %H:%M} UTC" + (f" by {by}" if by else ""))
