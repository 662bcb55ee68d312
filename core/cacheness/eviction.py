"""Which rows have expired or must make room."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Literal

from cacheness.cache import Cache
from cacheness.entry import REASONS_KEPT, Entry, Where
from cacheness.errors import CachenessError

_log = logging.getLogger(__name__)

MAKE_ROOM_TO = 0.9  #: of a quota, so that not every put evicts
LOOK_EVERY = 0.02  #: of a quota written by this process, between two counts of the whole
BATCH = 10_000  #: rows ranked at a time; each time all of them are compared


class Evictor:
    """Keeps a namespace within its quota. Several processes may evict at once."""

    def __init__(
        self, cache: Cache, *, max_bytes: int | None, max_entries: int | None, policy: Literal["lru", "cost"]
    ) -> None:
        self._cache = cache
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._policy = policy
        self._lock = threading.RLock()
        self._bytes_left = 0.0  # before the next count; none, so that the first put counts
        self._entries_left = 0.0

    def after_put(self, entries: Sequence[Entry]) -> None:
        """Make room when what this process has written since the last count may exceed the quota.

        The quota may be exceeded by `LOOK_EVERY` of it for each process that writes.
        """
        if self._max_bytes is None and self._max_entries is None:
            return
        with self._lock:
            self._bytes_left -= sum(entry.size for entry in entries)
            self._entries_left -= len(entries)
            if self._bytes_left >= 0 and self._entries_left >= 0:
                return
            self._bytes_left = float("inf") if self._max_bytes is None else self._max_bytes * LOOK_EVERY
            self._entries_left = float("inf") if self._max_entries is None else self._max_entries * LOOK_EVERY
        try:
            self.make_room()
        except CachenessError as error:
            # The put itself is durable; failing it now would say otherwise.
            _log.warning("the cache may exceed its quota: eviction failed: %s", error)

    def make_room(self) -> int:
        """Delete expired rows and, past the quota, the least valuable; returns how many."""
        gone = self.delete_expired()
        self._cache.metadata.forget_unstored(self._cache.namespace, REASONS_KEPT)
        totals = self._cache.metadata.totals(self._cache.namespace)
        excess_bytes = _excess(totals.bytes, self._max_bytes)
        excess_entries = _excess(totals.entries, self._max_entries)
        if excess_bytes or excess_entries:
            self._cache.uses.flush()
        while excess_bytes > 0 or excess_entries > 0:
            victims = self._victims(excess_bytes, excess_entries)
            if not victims:
                break
            gone += self._cache.delete(Where(self._cache.namespace, keys=tuple(key for key, _ in victims)))
            excess_bytes -= sum(size for _, size in victims)
            excess_entries -= len(victims)
        return gone

    def delete_expired(self) -> int:
        """Delete rows whose lifetime has passed; returns how many."""
        return self._cache.delete(Where(self._cache.namespace, expired=True))

    def _victims(self, excess_bytes: float, excess_entries: float) -> list[tuple[bytes, int]]:
        victims: list[tuple[bytes, int]] = []
        for key, size in self._cache.metadata.least_valuable(self._cache.namespace, self._policy, BATCH):
            if excess_bytes <= 0 and excess_entries <= 0:
                break
            victims.append((key, size))
            excess_bytes -= size
            excess_entries -= 1
        return victims


def _excess(held: int, quota: int | None) -> float:
    if quota is None or held <= quota:
        return 0
    return held - quota * MAKE_ROOM_TO
