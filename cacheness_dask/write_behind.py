"""The write-behind queue of one process: limited by bytes, never drops, stores in batches."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing.util
import os
import pickle
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import cloudpickle
import numpy as np

from cacheness import Entry, UnifiedCache
from cacheness.errors import CachenessError, CodecError, StoreFull
from cacheness.isolation import isolated
from cacheness.keys import Key
from cacheness_dask import live
from cacheness_dask.policy import Meter
from cacheness_dask.result_keys import stale_key

#: Results in one transaction.
_BATCH: Final = 1_000
#: Bytes in memory of these, approximately: the last may be larger.
_BATCH_BYTES: Final = 4 << 20
#: A batch is stored when no result has come for so many seconds: a commit costs as much as storing
#: many. No longer, because a client that persists the same again looks it up at once, without waiting.
_QUIET: Final = 0.005
#: Seconds after which it is stored in any case.
_LINGER: Final = 0.05
#: Results that are stored before the tasks that run in this process get the interpreter again.
_AT_ONCE: Final = 8
#: How much longer than that takes they may have it, while they have new results …
_TASKS_SHARE: Final = 10
#: … and fewer than so many wait to be stored.
_MOST_BEHIND: Final = 2 * _BATCH
#: Results of a batch that are tried one by one when there is no room for them.
_MOST_FAILED: Final = 16
#: Raised by `frozen` for a value that cannot be stored.
CANNOT_BE_PICKLED: Final = (pickle.PicklingError, AttributeError, TypeError)
#: Reasons that wait together before they are written.
_MOST_NOTES: Final = 1_000
_PLAIN: Final = (int, float, complex, bool, str, bytes)


class ComputeDetails(NamedTuple):
    """The metadata of a result."""

    seconds: float  #: the cost of its computation
    provenance: Mapping[str, Any]
    refused: Callable[[CodecError], None] | None = None  #: called if the value cannot be stored
    pool: bytes = b""  #: the graph, if it runs in a pool of processes


class Pending(NamedTuple):
    """One result in the queue."""

    key: Key
    thaw: Callable[[], Any]  #: the value, as it was when its task ended
    size: int
    about: ComputeDetails
    names: Entry | None = None  #: the entry that has the result already


class Late:
    """A cache that is opened on first use, mostly by the thread that stores."""

    def __init__(self, open_cache: Callable[[], UnifiedCache]) -> None:
        self._open = open_cache
        self._lock = threading.RLock()
        self._cache: UnifiedCache | None = None

    def __call__(self) -> UnifiedCache:
        """Return the open cache."""
        with self._lock:
            if self._cache is None:
                self._cache = self._open()
            return self._cache

    def close(self) -> None:
        """Close it, if it was opened."""
        with self._lock, contextlib.suppress(CachenessError):
            if self._cache is not None:
                self._cache.close()

    def reset_after_fork(self) -> None:
        """Make a new lock: a thread of the parent may hold the old one."""
        self._lock = threading.RLock()


class WriteBehind:
    """Stores results in a background thread. If the queue is full, the caller stores its own."""

    def __init__(
        self,
        cache: Late,
        meter: Meter,
        limit: int,
        warn: Callable[[BaseException], None],
    ) -> None:
        self._cache, self._meter, self._warn = cache, meter, warn
        # Half: an encoded value may need as much memory again as the value.
        self._room = limit // 2
        self._queue: deque[Pending] = deque()
        self._notes: dict[str, str] = {}  # why results are not stored, by key
        self._waiting = 0  # bytes in the queue and in the current batch
        self._stored = 0
        self._came = self._came_before = 0  # results so far, and when tasks had the interpreter last
        self._flushing = 0  # callers that wait
        self._state = threading.Condition()
        self._noting = threading.Lock()
        self._thread: threading.Thread | None = None
        _queues.add(self)
        atexit.register(self.close)
        # A child of multiprocessing, such as a Dask worker, exits without running atexit.
        self._finalizer = multiprocessing.util.Finalize(self, self.close, exitpriority=100)

    def put(self, key: Key, value: Any, size: int, about: ComputeDetails) -> None:
        """Store a result soon, or now if too much is waiting."""
        if size <= self._room:
            pending = Pending(key, frozen(value), size, about)
            with self._state:
                fits = self._waiting + size <= self._room
                if fits:
                    self._enqueue(pending)
            if fits:
                self._store_here()
                return
        self._store([Pending(key, lambda: value, size, about)])

    def link(self, key: Key, entry: Entry, about: ComputeDetails) -> None:
        """Store soon that a key has the result of an entry."""
        with self._state:
            self._enqueue(Pending(key, _nothing, 0, about, entry))
        self._store_here()

    def note(self, key: str, why: str) -> None:
        """Store with a key, at the latest when it is flushed, why its result is not stored."""
        with self._state:
            self._notes[key] = why
            if len(self._notes) >= _MOST_NOTES:
                self._wake()

    @property
    def waiting(self) -> int:
        """Return the bytes that wait to be stored."""
        return self._waiting

    def flush(self) -> int:
        """Wait until nothing is waiting; return how many results were stored so far."""
        with self._state:
            self._flushing += 1
            self._state.notify_all()
            try:
                self._state.wait_for(lambda: not self._waiting)
            finally:
                self._flushing -= 1
        self._write_notes()
        with self._state:
            return self._stored

    def close(self) -> None:
        """Store what is waiting, and close the cache."""
        self.flush()
        atexit.unregister(self.close)
        self._finalizer.cancel()
        self._cache.close()

    def reset_after_fork(self) -> None:
        """In a forked child, drop what is waiting: the parent stores it, and the child has no thread for it."""
        self._state, self._thread, self._waiting, self._stored = threading.Condition(), None, 0, 0
        self._flushing = 0
        self._queue, self._notes, self._noting = deque(), {}, threading.Lock()
        self._cache.reset_after_fork()

    def _enqueue(self, pending: Pending) -> None:
        self._queue.append(pending)
        self._came += 1
        # Counted from one on, so that `flush` also waits for values without a size.
        self._waiting += max(pending.size, 1)
        if len(self._queue) == 1 or self._is_due():  # otherwise the thread waits for more results
            self._wake()

    def _wake(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._drain, name="cacheness-write-behind", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # at its exit Python starts none any more, and the system has a limit
                self._thread = None
        self._state.notify_all()

    def _store_here(self) -> None:
        """Store what is waiting, if no thread could be started for it."""
        while self._thread is None:
            with self._state:
                batch = self._take()
            if not batch:
                return
            self._store_waiting(batch)

    def _drain(self) -> None:
        while True:
            with self._state:
                if not self._state.wait_for(lambda: self._queue or len(self._notes) >= _MOST_NOTES, timeout=5):
                    self._thread = None
                    return
                self._wait_for_others()
                batch = self._take()
            self._store_waiting(batch)

    def _wait_for_others(self) -> None:
        """Wait until a batch is due, or no result has come for a moment."""
        end = time.monotonic() + _LINGER
        came = -1
        while came != self._came and time.monotonic() < end:
            came = self._came
            if self._state.wait_for(self._is_due, timeout=_QUIET):
                return

    def _let_tasks_run(self, seconds: float) -> None:
        """Leave the interpreter to the tasks of this process for a time, while they have new results."""
        with self._state:
            is_behind = self._flushing or len(self._queue) >= _MOST_BEHIND
            if self._came != self._came_before and not is_behind:
                self._came_before = self._came
                self._state.wait_for(lambda: self._flushing, timeout=seconds)

    def _store_waiting(self, batch: list[Pending]) -> None:
        try:
            if batch:
                self._store(batch)
            self._write_notes()
        finally:
            with self._state:
                self._waiting -= sum(max(pending.size, 1) for pending in batch)
                self._state.notify_all()

    def _is_due(self) -> bool:
        """Return True when there is a batch, or a caller waits for what there is."""
        waits = self._flushing or len(self._notes) >= _MOST_NOTES
        return bool(waits) or len(self._queue) >= _BATCH or self._waiting >= min(_BATCH_BYTES, self._room)

    def _take(self) -> list[Pending]:
        batch, size = list[Pending](), 0
        while self._queue and len(batch) < _BATCH and size < _BATCH_BYTES:
            batch.append(self._queue.popleft())
            size += batch[-1].size
        return batch

    def _write_notes(self) -> None:
        with self._noting:  # so that a flush waits for those that are being written
            with self._state:
                notes, self._notes = self._notes, {}
            if notes:
                with isolated(lambda _: None):  # reasons are optional; errors of the store are reported by results
                    self._cache().note_unstored(notes)

    def _store(self, batch: list[Pending]) -> None:
        """Store results together; if there is no room for one of them, store the others without it."""
        remaining, failed = [batch], 0
        while remaining:
            some = remaining.pop()
            with isolated(self._warn):  # the results exist, also when the store is down
                try:
                    self._store_together(some)
                except StoreFull:
                    # One of them may be larger than the quota. On a full disk all fail, and few are tried one by one.
                    if len(some) == 1 or failed >= _MOST_FAILED:
                        failed += 1
                        raise
                    middle = len(some) // 2
                    remaining += some[middle:], some[:middle]

    def _store_together(self, batch: list[Pending]) -> None:
        start, cache = time.perf_counter(), self._cache()
        with cache.write_batch():
            stored = self._put_all(cache, batch)
        _delete_stale(cache, batch)
        with self._state:
            self._stored += len(stored)
        live.tell(stored=len(stored), stored_bytes=sum(stored))
        if len(batch) == 1:
            self._meter.saw(batch[0].size, time.perf_counter() - start)

    def _put_all(self, cache: UnifiedCache, batch: list[Pending]) -> list[int]:
        """Store a batch, and count it by function; return the sizes of what could be stored."""
        stored: list[int] = []
        counts: dict[str, tuple[float, int]] = {}
        start = time.perf_counter()
        for number, pending in enumerate(batch, 1):
            if number % _AT_ONCE == 0:
                self._let_tasks_run(_TASKS_SHARE * (time.perf_counter() - start))
                start = time.perf_counter()
            key, thaw, size, about, names = pending
            if names is not None:
                cache.link(key, names, provenance=about.provenance)
                stored.append(size)
                continue
            try:
                value = _read(thaw)
                entry = cache.put(value, key, compute_seconds=about.seconds, provenance=about.provenance)
            except CodecError as error:  # this value cannot be stored; others can
                (about.refused or self._warn)(error)
                continue
            stored.append(size)
            spent, bytes_stored = counts.get(entry.function, (0.0, 0))
            counts[entry.function] = spent + about.seconds, bytes_stored + entry.size
        for function, (spent, bytes_stored) in counts.items():
            # The calls themselves were counted with their graph.
            cache.count(function, "miss", calls=0, spent=spent, size=bytes_stored)
        return stored


def _delete_stale(cache: UnifiedCache, batch: list[Pending]) -> None:
    """Delete stored results of graphs in a pool whose client has found that an input file changed.

    The client writes that, and deletes the results, when the graph has ended; this process may store later.
    """
    keys = {pool: stale_key(pool) for pool in {pending.about.pool for pending in batch} - {b""}}
    stale = cache.unstored(list(keys.values())) if keys else {}
    for pending in batch:
        if keys.get(pending.about.pool) in stale:
            cache.invalidate(pending.key)


def _nothing() -> None:
    """The value of a link."""


def _read(thaw: Callable[[], Any]) -> Any:
    try:
        return thaw()
    except (Exception, SystemExit) as error:  # what a pickle calls may raise anything
        raise CodecError(f"what was pickled cannot be read again: {type(error).__name__}: {error}") from error


def _reset_after_fork() -> None:
    for queue in list(_queues):
        queue.reset_after_fork()


_queues: weakref.WeakSet[WriteBehind] = weakref.WeakSet()
os.register_at_fork(after_in_child=_reset_after_fork)


def frozen(value: Any) -> Callable[[], Any]:
    """Return a function that restores this value in its current state.

    Later tasks may change it in place, as pandas code often does; the stored value must be the one
    that the task returned.
    """
    if isinstance(value, _PLAIN):
        return lambda: value
    if type(value) is np.ndarray and not value.dtype.hasobject:
        copy = value.copy()
        return lambda: copy
    try:
        data = pickle.dumps(value, protocol=5)
    except CANNOT_BE_PICKLED:  # lambdas, and classes defined in a notebook
        data = cloudpickle.dumps(value, protocol=5)
    return lambda: pickle.loads(data)
