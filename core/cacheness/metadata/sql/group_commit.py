"""Combine concurrent puts of threads in one transaction, which needs one sync.

SQLite has one writer, and a durable commit waits for the disk. Of the threads of a process that put
at the same time one leads: its transaction includes the puts of the others. If they cannot be
stored together, each is stored in a savepoint, so that an error affects one put only. Puts that
arrive during the commit are included by the next leader. A thread that puts alone pays nothing for
it. PostgreSQL groups syncs by itself.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from cacheness import forks
from cacheness.deadlines import waiting
from cacheness.errors import CachenessError, CommitUnanswered, StoreBusy, StoreUnavailable
from cacheness.metadata.sql.sqlite_transactions import SqliteTransaction
from cacheness.records import Entry

#: Puts that share a transaction, and their bytes in rows: further puts wait.
MOST_PUTS: Final = 64
MOST_BYTES: Final = 16 << 20
#: Seconds between checks that the leader still exists; only an interruption can remove it.
_LOOK_EVERY: Final = 0.05

Publish: TypeAlias = Callable[[SqliteTransaction, Sequence[Entry], str, bool], list[str]]


class _Leadership:
    """Held by the leading thread, on its stack, so that it is released however the call ends."""

    __slots__ = ("__weakref__", "thread")

    def __init__(self, thread: int) -> None:
        self.thread = thread


class _Put:
    """One thread's put, and its result."""

    __slots__ = ("done", "entries", "error", "fresh", "is_taken", "leadership", "replaced", "session", "thread")

    def __init__(self, entries: Sequence[Entry], session: str, fresh: bool) -> None:
        self.entries = entries
        self.session = session
        self.fresh = fresh  #: made now, and not copies
        self.thread = threading.get_ident()
        self.is_taken = False  #: set when a transaction that includes it has begun
        self.leadership: _Leadership | None = None  #: set when it must lead the next one
        self.replaced: list[str] | None = None  #: the replaced blobs, after the commit
        self.error: Exception | None = None  #: of this put alone
        self.done: threading.Event  #: made when it begins to wait

    @property
    def size(self) -> int:
        """Return the bytes in its rows."""
        return sum(len(entry.inline or b"") for entry in self.entries)


class GroupCommit:
    """The puts of one process into one database.

    Args:
        transact: runs work in a synced transaction, once: after an error before its commit nothing of it is stored.
        publish: stores entries under a session within a transaction; returns the replaced blobs.
        refuse: raises our error for a driver's error.
        busy: seconds that a put waits for others.
    """

    def __init__(
        self,
        transact: Callable[[Callable[[SqliteTransaction], None]], None],
        publish: Publish,
        refuse: Callable[[Exception], None],
        busy: float,
    ) -> None:
        self._transact = transact
        self._publish = publish
        self._refuse = refuse
        self._busy = busy
        self.reset_after_fork()
        forks.watch_forks(self)

    def reset_after_fork(self) -> None:
        """In a forked child, drop the puts of the parent's threads."""
        self._lock = threading.RLock()
        self._waiting: list[_Put] = []
        self._leading: weakref.ref[_Leadership] | None = None
        self._generation = forks.generation()

    def commit(self, entries: Sequence[Entry], session: str, *, fresh: bool = False) -> list[str]:
        """Publish entries durably; return the replaced blobs.

        Raises:
            SessionLost: the session was ended or fenced; nothing of these entries was stored.
            StoreBusy: other processes kept the database locked for too long; nothing of these entries was stored.
            CommitUnanswered: it is unknown whether they were stored.
        """
        put = _Put(entries, session, fresh)
        try:
            if self._interrupts_the_leader(put):  # a leader that cannot be waited for
                self._transact(lambda transaction: self._store(transaction, put))
            while put.replaced is None and put.error is None:
                if put.leadership is None:
                    self._wait(put)
                else:
                    self._lead(put)
        finally:
            if put.replaced is None and put.error is None:
                self._leave(put)
        error, put.error = put.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame, and so the entries
        return put.replaced or []

    def _interrupts_the_leader(self, put: _Put) -> bool:
        """Queue a put, unless this is a finalizer or signal handler within the leader's own thread."""
        with self._lock:
            leader = self._leader()
            if leader is None:
                put.leadership = self._lead_by(put)
            elif leader.thread == put.thread:
                return True
            else:
                put.done = threading.Event()
                self._waiting.append(put)
            return False

    def _leader(self) -> _Leadership | None:
        return None if self._leading is None else self._leading()

    def _lead_by(self, put: _Put) -> _Leadership:
        leadership = _Leadership(put.thread)
        self._leading = weakref.ref(leadership)
        return leadership

    def _wait(self, put: _Put) -> None:
        """Wait until a leader has stored the put, or the put must lead."""
        generation = self._generation
        with waiting(self._busy) as deadline:
            while not put.done.wait(min(_LOOK_EVERY, max(deadline - time.monotonic(), 0.0))):
                with self._lock:
                    if self._look_after(put, generation, is_late=time.monotonic() >= deadline):
                        return
        put.done.clear()

    def _leave(self, put: _Put) -> None:
        """Remove an abandoned put, so that nothing waits for it.

        A traceback may keep it alive, wherever it was interrupted.
        """
        with self._lock:
            if put in self._waiting:
                self._waiting.remove(put)
            put.leadership = None

    def _look_after(self, put: _Put, generation: int, *, is_late: bool) -> bool:
        """Return True when a waiting put must lead, because there is no leader."""
        if generation != forks.generation():
            raise StoreUnavailable("this process was forked within a put, which its parent continues")
        if put.done.is_set():
            return False  # another thread became leader just now
        if self._leader() is None:
            if put.is_taken:
                raise CommitUnanswered("the thread that stored it was interrupted. Whether it is stored is not known")
            self._waiting.remove(put)
            put.leadership = self._lead_by(put)
            return True
        if is_late and not put.is_taken:
            raise StoreBusy(
                "nothing was stored: other threads of this process kept the metadata database busy for longer than this"
                " call may wait (busy_timeout). Store many results with put_many or write_batch"
            )
        return False

    def _lead(self, put: _Put) -> None:
        """Store this put, and all puts that wait at that time."""
        group = [put]

        def work(transaction: SqliteTransaction) -> None:
            group.extend(self._take(put))
            if len(group) == 1:
                self._store(transaction, put)
            elif not self._store_together(transaction, group):
                for one in group:
                    self._store_apart(transaction, one)

        # No error is kept in a variable: its traceback would keep this frame and the queued puts in it alive.
        is_stored = is_known = False
        try:
            self._transact(work)
            is_stored = True
        except CommitUnanswered:
            raise
        except Exception:
            is_known = True
            raise
        finally:
            if not is_stored:
                put.replaced = None
            self._end(put, group[1:], is_stored=is_stored, is_known=is_known)

    def _take(self, leader: _Put) -> list[_Put]:
        with self._lock:
            size, group = leader.size, list[_Put]()
            while self._waiting and len(group) + 1 < MOST_PUTS:
                size += self._waiting[0].size
                if size > MOST_BYTES:
                    break
                put = self._waiting.pop(0)
                put.is_taken = True
                group.append(put)
            return group

    def _store(self, transaction: SqliteTransaction, put: _Put) -> None:
        put.replaced = self._publish(transaction, put.entries, put.session, put.fresh)

    def _store_together(self, transaction: SqliteTransaction, group: Sequence[_Put]) -> bool:
        """Store puts of one session by the same statements; return False, with nothing stored, if one has an error."""
        if len({(one.session, one.fresh) for one in group}) > 1:
            return False
        try:
            with transaction.savepoint():
                entries = [entry for one in group for entry in one.entries]
                replaced = self._publish(transaction, entries, group[0].session, group[0].fresh)
        except Exception:
            if not transaction.is_open:
                raise
            return False
        for one in group:
            one.replaced = []
        group[-1].replaced = replaced
        return True

    def _store_apart(self, transaction: SqliteTransaction, put: _Put) -> None:
        try:
            with transaction.savepoint():
                self._store(transaction, put)
        except Exception as error:
            if not transaction.is_open:  # SQLite rolled back the whole transaction: its disk is full, for example
                raise
            put.error = self._meaning(error).with_traceback(None)

    def _meaning(self, error: Exception) -> Exception:
        if not isinstance(error, CachenessError):
            try:
                self._refuse(error)
            except CachenessError as meant:
                return meant
        return error

    def _end(self, put: _Put, others: Sequence[_Put], *, is_stored: bool, is_known: bool) -> None:
        """Wake the other threads, and let one of the waiting ones lead."""
        with self._lock:
            put.leadership = None
            for other in [] if is_stored else others:
                other.replaced = other.error = None
                if is_known:  # nothing of it was stored, and it may succeed without the others
                    other.is_taken = False
                    self._waiting.append(other)
                else:
                    other.error = CommitUnanswered("the commit that it shared was interrupted, or got no answer")
            following = self._waiting.pop(0) if self._waiting else None
            if following is None:
                self._leading = None
            else:
                following.leadership = self._lead_by(following)
                following.done.set()
            for other in others:
                if other.error is not None or other.replaced is not None:
                    other.done.set()
