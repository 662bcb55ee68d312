"""Count uses and calls in memory; a background thread writes them in small transactions."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from cacheness import forks, telemetry, threads
from cacheness.deadlines import patience
from cacheness.errors import CachenessError
from cacheness.logs import logger_of
from cacheness.protocols import MetadataStore
from cacheness.records import Call, Candidate, Entry, Outcome
from cacheness.results.call_counts import Figures

_log = logger_of(__name__)

PIECE: Final = 200  #: keys that one transaction writes
FLUSH_EVERY: Final = 60.0  #: seconds
FLUSH_AT: Final = 5_000  #: different keys, if reached earlier
KEPT_AT_MOST: Final = 50_000  #: different keys; further ones are not counted while the store stays locked
_AT_FIRST: Final = {"calls": 1, "spent": 0.0, "saved": 0.0, "size": 0}  #: figures of calls, if they are not given
LAST_SECONDS: Final = 1.0  #: the most time that closing a cache takes to write them


class UseCounter:
    """Uses and figures of this process. A crash, a lock or a read-only store loses only counts."""

    def __init__(self, metadata: MetadataStore, namespace: str, *, counts: bool = True) -> None:
        self.figures = Figures()
        self._metadata = metadata
        self._namespace = namespace
        self._counts = counts
        self._lock = threading.RLock()
        self._uses: dict[bytes, tuple[int, int]] = {}
        self._to_write: list[bytes] = []  #: keys of uses, the last ones first
        self._flushed = time.monotonic()
        self._is_writing = False
        forks.watch_forks(self)

    def reset_after_fork(self) -> None:
        """In a forked child, drop the parent's counts and its writer thread."""
        self._lock, self._uses, self._to_write, self._is_writing = threading.RLock(), {}, [], False
        self.figures.forget()

    def count(self, key: bytes) -> None:
        """Record one hit, with the time."""
        if not self._counts:
            return
        with self._lock:
            self._add(key, 1, self._metadata.now())
            is_due = self._begin_when_due()
        if is_due:
            self._start()

    def with_uses(self, sample: Sequence[Candidate]) -> list[Candidate]:
        """Add the counts that are not written yet to a sample."""
        with self._lock:
            known = {one.key: self._uses[one.key] for one in sample if one.key in self._uses}
        return [
            replace(one, hits=one.hits + known[one.key][0], accessed_at=max(one.accessed_at, known[one.key][1]))
            if one.key in known
            else one
            for one in sample
        ]

    def count_hit(self, entry: Entry, outcome: Outcome = "hit", function: str = "", spent: float = 0.0) -> None:
        """Count a call that returned this entry, whose use is counted already. Only a hit saves something.

        `function` is the one that was called: another function of the same code may have made the entry.
        """
        name, saved, size = function or entry.function, 0.0, 0
        if outcome != "waited":
            saved, size = entry.compute_seconds or 0.0, entry.size
        if not self._counts:
            self._let_hear(Call(name, outcome, "", spent, saved, size))
        else:
            self.figures.count_hit(name, outcome, spent, saved, size)
            telemetry.count(self._namespace, name, outcome, spent=spent, saved=saved, size=size)

    def count_calls(self, function: str, outcome: Outcome, reason: str = "", **figures: Any) -> None:
        """Count calls with other outcomes."""
        if not self._counts:
            calls, *numbers = (figures.get(name, at_first) for name, at_first in _AT_FIRST.items())
            self._let_hear(*[Call(function, outcome, reason, *numbers)] * calls)
        else:
            self.figures.count(function, outcome, reason, **figures)
            telemetry.count(self._namespace, function, outcome, reason, **figures)
            self.write_when_due()

    def _let_hear(self, *calls: Call) -> None:
        """Give calls that are not counted to who listens in this process."""
        for heard in self.figures.listeners:
            heard.extend(calls)

    def write_when_due(self) -> None:
        """Start a thread that writes the buffer, if the last write was long ago or the buffer is large."""
        with self._lock:
            is_due = self._begin_when_due()
        if is_due:
            self._start()

    def _add(self, key: bytes, hits: int, at: int) -> None:
        known = self._uses.get(key)
        if known is not None:
            self._uses[key] = known[0] + hits, max(known[1], at)
        elif len(self._uses) < KEPT_AT_MOST:
            self._uses[key] = hits, at

    def _begin_when_due(self) -> bool:
        now = time.monotonic()
        since = now - self._flushed
        # A failed write is tried again a minute later.
        is_due = since > FLUSH_EVERY or (len(self._uses) >= FLUSH_AT and since > 1.0)
        if not is_due or self._is_writing or not (self._uses or self.figures.is_waiting()):
            return False
        self._is_writing, self._flushed = True, now
        return True

    def _start(self) -> None:
        if not threads.started(self._write, "cacheness-uses"):
            self._is_writing = False  # closing the cache writes them

    def flush(self) -> None:
        """Write the buffer now, if the database accepts it, for a second at most."""
        until = time.monotonic() + LAST_SECONDS
        while time.monotonic() < until and self._write_piece(LAST_SECONDS):
            pass
        self._write_figures(max(until - time.monotonic(), 0.0))

    def _write(self) -> None:
        try:
            while self._write_piece(0.0):  # nothing waits for the lock because of counts
                pass
            self._write_figures(0.0)
        finally:
            self._is_writing = False

    def _write_piece(self, seconds: float) -> bool:
        """Write one part, waiting so long for a lock; return whether there is more and the database accepts it."""
        with self._lock:
            # In key order: neighbours share pages, so a transaction writes a few of them and not one for each use.
            waiting = self._to_write or sorted(self._uses, reverse=True)
            self._to_write = waiting[:-PIECE]
            some = {key: self._uses.pop(key) for key in waiting[-PIECE:]}
            self._flushed = time.monotonic()
        if not some:
            return False
        try:
            with patience(seconds):
                self._metadata.record_use(self._namespace, some)
        except CachenessError as error:
            _log.debug("usage counters were not written: %s", error)
            with self._lock:
                for key, (hits, at) in some.items():  # some may have been used again since
                    self._add(key, hits, at)
            return False
        return True

    def _write_figures(self, seconds: float) -> None:
        rows = self.figures.to_write(self._metadata.now()) if self.figures.is_waiting() else []
        for start in range(0, len(rows), PIECE):
            some = rows[start : start + PIECE]
            try:
                with patience(seconds):
                    self._metadata.record_activity(self._namespace, self.figures.who, some)
            except CachenessError as error:
                _log.debug("figures were not written: %s", error)
                return
            self.figures.written(some)
