"""Select rows that have expired or must be evicted, and delete them.

Totals are stored with the rows, so nothing is counted, and the work is divided: each process that
puts deletes a slice after its commit. This works with any number of processes, and needs no lease.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from cacheness import forks
from cacheness.deadlines import patience
from cacheness.errors import CachenessError, StoreBusy, StoreFull
from cacheness.logs import logger_of
from cacheness.records import (
    CODE_KEPT,
    EQUIVALENCE_LASTS,
    MICROSECONDS,
    REASONS_KEPT,
    Candidate,
    Entry,
    Holdings,
    Quota,
    Where,
)
from cacheness.results.store import Cache, Draft

_log = logger_of(__name__)

FULL_TO = 100  #: a full namespace is reduced by this fraction (1/n), so that not every put evicts
LARGE = 20  #: for a value larger than this fraction (1/n) of the quota, space is freed before it is stored
WRITERS = 256  #: so many processes may each write their share of the free space before the next check
SAMPLE = 128  #: neighbours from which entries to evict are chosen
GO_OF_SAMPLE = 16  #: of one sample
SLICE_ROWS = 200
SLICE_LEAST = 16  #: rows, however slow the last slice was: a put adds few, so even this reduces a full namespace
ATTEMPTS = 3  #: samples in a row without any deletion, before it stops
AT_A_TIME = 1000  #: expired entries that are deleted between two calls of progress
SLICE_SECONDS = 0.01
PUTS_AVERAGED = 8  #: about so many puts decide how long a slice may wait for other writers
LOOK_EVERY = 5.0  #: seconds, at a put
FOLD_EVERY = 600.0  #: seconds, at a put: figures of hours that ended, and code that no entry names
NEGLECTED = 60.0  #: seconds without a slice, after which the first put of a process does one
ROOM_PATIENCE = 5.0  #: seconds that a large put may spend on eviction

#: Called with the number of deleted entries, and an estimate of the remaining ones, if known.
Progress = Callable[[int, int | None], None]


class Evictor:
    """Keeps a namespace within its quota. Several processes may evict at once."""

    def __init__(
        self, cache: Cache, *, max_bytes: int | None, max_entries: int | None, policy: Literal["lru", "cost"]
    ) -> None:
        self._cache = cache
        self._asked: Quota | None = None
        if max_bytes is not None or max_entries is not None:
            self._asked = Quota(max_bytes and int(max_bytes), max_entries and int(max_entries), policy)
        self._quota: Quota | None = None  #: that of the namespace, once it is known
        self.reset_after_fork()
        forks.watch_forks(self)

    def reset_after_fork(self) -> None:
        """Start as a process that has put nothing yet: the parent's unchecked writes are not the child's."""
        self._lock = threading.RLock()
        self._looked_at = self._cleaned_at = self._folded_at = float("-inf")
        self._bytes_left = self._entries_left = 0.0  #: before the next check
        self._seen_first: Holdings | None = None  #: before the first put, which does not check again
        self._row_seconds = SLICE_SECONDS / SLICE_ROWS  #: seconds per row of the last slice
        self._put_seconds = 0.0  #: moving average of the last puts, waits for other writers included

    def before_put(self, drafts: Sequence[Draft]) -> None:
        """Free space for a value that is large for the quota. Raises StoreFull if it can never fit."""
        if self._quota is None:
            self._try(self._look_first, "the quota of the cache is not known")
        most = None if self._quota is None else self._quota.max_bytes
        if most is None:
            return
        largest = max((draft.entry.size for draft in drafts), default=0)
        if largest > most:
            raise StoreFull(
                f"a value of {largest:,} bytes is not stored: the whole cache may hold {most:,} (max_bytes)"
            )
        size = sum(draft.entry.size for draft in drafts)
        if size > most / LARGE:
            self._try(lambda: self._make_room_for(size), "the cache may exceed its quota: eviction failed")

    def after_put(self, entries: Sequence[Entry], seconds: float) -> None:
        """Delete a slice of expired entries, or of entries over the quota, when a check is due.

        Args:
            entries: what was put.
            seconds: how long that took.
        """
        size = sum(entry.size for entry in entries)
        with self._lock:
            self._put_seconds += (seconds - self._put_seconds) / PUTS_AVERAGED
            self._bytes_left -= size
            self._entries_left -= len(entries)
            # The first put checks too: if every process makes only one put, no other check would happen.
            is_late = self._cleaned_at == float("-inf") or time.monotonic() - self._looked_at > LOOK_EVERY
            if not is_late and self._bytes_left >= 0 and self._entries_left >= 0:
                return
        # The put itself is durable; an exception now would suggest that it failed.
        self._try(lambda: self._look_after(size, len(entries)), "the cache may exceed its quota: eviction failed")

    def _look_after(self, size: int, entries: int) -> None:
        # The caller waits for other writers no longer than puts usually do, among many of them too. If a
        # writer has the lock for longer, as one that evicts in parallel, the next put tries again.
        try:
            with patience(max(SLICE_SECONDS, self._put_seconds)):
                self._delete_slice(size, entries)
        except StoreBusy as error:
            _log.debug("a put deleted nothing: %s", error)

    def make_room(self, progress: Progress | None = None) -> int:
        """Delete everything that has expired and, over the quota, the least valuable; return how many."""
        gone, is_begun = self._delete_expired(progress), False
        self._cache.metadata.delete_unstored(self._cache.namespace, REASONS_KEPT)
        while self._cache.metadata.fold_activity(self._cache.namespace, AT_A_TIME):
            pass
        while self._cache.metadata.forget_functions(self._cache.namespace, CODE_KEPT, AT_A_TIME):
            pass
        self._cache.metadata.delete_stale_disputes(self._cache.namespace)
        over = self._cache.metadata.now() - EQUIVALENCE_LASTS
        self._cache.metadata.delete_old_equivalences(self._cache.namespace, over)
        attempts = 0  #: since the last deletion
        while attempts < ATTEMPTS:
            holdings = self._look()
            excess = _excess_of(holdings, is_begun=is_begun)
            if progress is not None:
                progress(gone, _about(holdings, excess))
            if not any(excess):
                break
            # The search for entries to evict blocks no other process: only the deletion must be
            # short. If all chosen ones are locked, it waits for them, because the least valuable
            # would be the same again.
            evicted, _ = self._evict(holdings, excess, 0, seconds=float("inf"), waits=attempts > 0)
            gone, is_begun = gone + evicted, is_begun or evicted > 0
            attempts = 0 if evicted else attempts + 1
        return gone

    def would_delete(self) -> int:
        """Return about how many entries `make_room` would delete now."""
        expired, after = 0, b""
        where = Where(self._cache.namespace, expired=True)
        while page := self._cache.metadata.scan(where, after=after, limit=AT_A_TIME):
            expired, after = expired + len(page), page[-1].key
        holdings = self._cache.metadata.holdings(self._cache.namespace)
        quota = self._asked or holdings.quota
        about = _about(holdings, _excess_of(replace(holdings, quota=quota)))
        return max(expired, about)  # expired entries are deleted first, and free space too

    def _delete_expired(self, progress: Progress | None) -> int:
        gone, expired = 0, Where(self._cache.namespace, expired=True)
        while some := self._cache.delete(expired, most=AT_A_TIME, lasting=False):
            gone += some
            if progress is not None:
                progress(gone, None)
        return gone

    def _try(self, work: Callable[[], object], trouble: str) -> None:
        try:
            work()
        except CachenessError as error:
            _log.warning("%s: %s", trouble, error)

    def _look(self) -> Holdings:
        """Return the totals of the namespace. The first call also sets the quota, if this process has one."""
        metadata, namespace = self._cache.metadata, self._cache.namespace
        holdings = metadata.holdings(namespace)
        if self._quota is None and self._asked is not None and self._asked != holdings.quota:
            if holdings.quota != Quota():
                _log.warning("the quota of namespace %s was %s and is %s now", namespace, holdings.quota, self._asked)
            metadata.set_quota(namespace, self._asked)
            holdings = metadata.holdings(namespace)
        self._quota = holdings.quota
        with self._lock:
            self._looked_at = time.monotonic()
            self._bytes_left = _share(holdings.quota.max_bytes, holdings.bytes)
            self._entries_left = _share(holdings.quota.max_entries, holdings.entries)
        return holdings

    def _look_first(self) -> None:
        self._seen_first = self._look()

    def _delete_slice(self, size: int, entries: int) -> None:
        seen, self._seen_first = self._seen_first, None
        if seen is not None:
            seen = replace(seen, bytes=seen.bytes + size, entries=seen.entries + entries)
        holdings = self._look() if seen is None or any(_excess_of(seen)) else seen
        excess = _excess_of(holdings)
        if self._clean(holdings, is_full=any(excess)):
            holdings = self._look()
            excess = _excess_of(holdings)
        if any(excess):
            self._evict(holdings, excess, size)

    def _clean(self, holdings: Holdings, *, is_full: bool) -> int:
        """Delete a slice of expired entries, if there is no space, and periodically."""
        now, before = time.monotonic(), self._cleaned_at
        if not is_full and now - before < LOOK_EVERY:
            return 0
        self._cleaned_at = now
        neglected = (self._cache.metadata.now() - holdings.maintained_at) / MICROSECONDS > NEGLECTED
        if neglected:
            self._cache.metadata.note_maintenance(self._cache.namespace)
        if not is_full and before == float("-inf") and not (neglected and holdings.maintained_at):
            return 0  # a process with one put leaves it to others, and a new namespace has nothing expired
        if now - self._folded_at > FOLD_EVERY:
            # A full slice is followed by another, at the next check.
            full = self._cache.metadata.fold_activity(self._cache.namespace, SLICE_ROWS) == SLICE_ROWS
            full |= self._cache.metadata.forget_functions(self._cache.namespace, CODE_KEPT, SLICE_ROWS) == SLICE_ROWS
            self._folded_at = float("-inf") if full else now
        return self._cache.delete(
            Where(self._cache.namespace, expired=True), most=self._rows_in_time(), waits=False, lasting=False
        )

    def _make_room_for(self, size: int) -> None:
        until = time.monotonic() + ROOM_PATIENCE
        while time.monotonic() < until:
            holdings = self._look()
            excess = holdings.bytes + size - (holdings.quota.max_bytes or holdings.bytes + size)
            if excess <= 0 or not self._evict(holdings, (excess, 0), size)[0]:
                return

    def _evict(
        self,
        holdings: Holdings,
        excess: tuple[int, int],
        size: int,
        *,
        seconds: float = SLICE_SECONDS,
        waits: bool = False,
    ) -> tuple[int, int]:
        """Delete the least valuable of some samples; return rows and bytes.

        Deletes a slice, but at least twice the size of the put.
        """
        began = self._cache.metadata.now()
        victims = self._victims(holdings, excess, size, seconds)
        if not victims:
            return 0, 0
        # Not an entry that was put under the same key since it was sampled, so none as new as those put since then.
        victims = [victim for victim in victims if victim.created_at <= began] or victims
        sampled = max(victim.created_at for victim in victims) + 1
        keys = tuple(sorted(victim.key for victim in victims))
        where = Where(self._cache.namespace, keys=keys, created_before=sampled)
        start = time.monotonic()
        gone = self._cache.delete(where, waits=waits, lasting=False)
        self._row_seconds = (time.monotonic() - start) / len(keys)
        return gone, sum(victim.size for victim in victims)

    def _rows_in_time(self) -> int:
        """Return how many rows a slice deletes in its time, at the speed of the last one."""
        return max(SLICE_LEAST, min(SLICE_ROWS, int(SLICE_SECONDS / max(self._row_seconds, 1e-6))))

    def _victims(self, holdings: Holdings, excess: tuple[int, int], size: int, seconds: float) -> list[Candidate]:
        victims: dict[bytes, Candidate] = {}
        freed, until = 0, time.monotonic() + seconds
        most = SLICE_ROWS if seconds > SLICE_SECONDS else self._rows_in_time()
        while freed < excess[0] or len(victims) < excess[1]:
            is_slice = len(victims) >= most or time.monotonic() > until
            if victims and is_slice and freed >= 2 * size:
                break
            sample = self._cache.metadata.sample(self._cache.namespace, os.urandom(32), SAMPLE)
            # Includes uses that this process has not written yet: writing them first would keep the caller waiting.
            sample = self._cache.uses.with_uses(sample)
            chosen = [one for one in least_valuable(sample, holdings.quota.policy) if one.key not in victims]
            if not chosen:
                break
            for one in chosen[:GO_OF_SAMPLE]:
                if freed >= excess[0] and len(victims) >= excess[1]:
                    break
                victims[one.key] = one
                freed += one.size
        return list(victims.values())


def least_valuable(sample: Sequence[Candidate], policy: Literal["lru", "cost"]) -> list[Candidate]:
    """Return the least valuable eighth of a sample: least recently used, or least seconds x hits per byte."""
    worth = _cost if policy == "cost" else _last_use
    return sorted(sample, key=worth)[: max(1, len(sample) * GO_OF_SAMPLE // SAMPLE)]


def _last_use(one: Candidate) -> tuple[float, int]:
    return 0.0, one.accessed_at


def _cost(one: Candidate) -> tuple[float, int]:
    # One more than the hits, so that an expensive result that was not used yet is worth more than a
    # cheap one; one more than the size, to avoid a division by zero.
    return one.compute_seconds * (one.hits + 1) / (one.size + 1.0), one.accessed_at


def _excess_of(holdings: Holdings, *, is_begun: bool = False) -> tuple[int, int]:
    """Return bytes and entries to delete because of the quota, and a little more; or the rest of that."""
    quota = holdings.quota
    return (
        _over(holdings.bytes, quota.max_bytes, is_begun=is_begun),
        _over(holdings.entries, quota.max_entries, is_begun=is_begun),
    )


def _over(held: int, most: int | None, *, is_begun: bool) -> int:
    if most is None:
        return 0
    least = most - most // FULL_TO
    return held - least if held > (least if is_begun else most) else 0


def _about(holdings: Holdings, excess: tuple[int, int]) -> int:
    """Return about how many entries must be deleted for that excess."""
    of_bytes = excess[0] * holdings.entries // max(holdings.bytes, 1)
    return max(excess[1], of_bytes)


def _share(most: int | None, held: int) -> float:
    return float("inf") if most is None else max(most - held, 0) / WRITERS
