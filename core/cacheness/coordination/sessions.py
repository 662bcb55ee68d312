"""Manage sessions of writers, and fence sessions whose process is dead.

A session is one writer process. Its commits lock its row, so after fencing a session a repair can
be sure that no commit of it follows. Fencing a running writer is harmless: its next commit is
rejected, and it writes again in a new session under a new name.
"""

from __future__ import annotations

import os
import threading

from cacheness import forks, platform, threads
from cacheness.errors import CachenessError
from cacheness.logs import logger_of
from cacheness.protocols import SessionRows
from cacheness.records import Process, SessionInfo

_log = logger_of(__name__)

HEARTBEAT_SECONDS = 60.0  #: a fifth of the lease, so that four may be missed


class Sessions:
    """The session of this process in one metadata store: opened at the first put, renewed, ended."""

    def __init__(self, metadata: SessionRows) -> None:
        self._metadata = metadata
        self.reset_after_fork()
        forks.watch_forks(self)

    def reset_after_fork(self) -> None:
        """In a forked child, drop the parent's session; the child's first put opens another."""
        self._lock = threading.RLock()
        self._current: str | None = None
        self._lasts = False  #: whether the row of the current session survives a power cut
        self._stop: threading.Event | None = None
        self._abandoned: list[str] = []

    def current(self, *, lasting: bool = True) -> str:
        """Return the current session to write under; open one if there is none.

        A session that is not yet `lasting` is enough if nothing is written before its first commit,
        whose sync also makes its row durable. A power cut may undo such a session; no repair would
        ever delete its blobs.
        """
        with self._lock:
            if self._current is not None and lasting and not self._lasts:
                # Another thread's first commit may still be running. It is rejected after this, and repeated.
                self._abandoned.append(self._current)
                self._current = None
            is_new = self._current is None
            if self._current is None:
                self._current = self._metadata.open_session(this_process(), lasting=lasting)
                self._lasts = lasting
                self._end_abandoned()
            if lasting or not is_new:  # a process that puts one small result ends before its lease does
                self._keep_alive()
            return self._current

    def committed(self, session: str) -> None:
        """Record that the database has confirmed a commit of this session."""
        if session == self._current:
            self._lasts = True

    def lost(self, session: str) -> None:
        """Record that a session was fenced: the next `current()` opens another."""
        with self._lock:
            if self._current == session:
                self._current = None

    def end(self, session: str) -> None:
        """End a session permanently, after its running commit, and forget it."""
        self.lost(session)
        self._metadata.end_session(session)

    def abandon(self, session: str) -> None:
        """End a session if the database answers; otherwise when it next does, or when its lease runs out."""
        try:
            self.end(session)
        except CachenessError as error:
            self._abandoned.append(session)
            _log.debug("session %s could not be ended yet: %s", session, error)

    def close(self) -> None:
        """End the current session, if any, and the heartbeat."""
        with self._lock:
            session, stop = self._current, self._stop
            self._current = self._stop = None
        if stop is not None:
            stop.set()
        if session is not None:
            self.abandon(session)

    def _end_abandoned(self) -> None:
        while self._abandoned:
            self._metadata.end_session(self._abandoned[-1])
            self._abandoned.pop()

    def _keep_alive(self) -> None:
        if self._stop is None:
            stop = threading.Event()
            # If no thread can be started, the session lasts as long as its lease; a put after that opens another.
            if threads.started(lambda: self._beat(stop), "cacheness-session-heartbeat"):
                self._stop = stop

    def _beat(self, stop: threading.Event) -> None:
        while not stop.wait(HEARTBEAT_SECONDS):
            session = self._current
            if session is None:
                continue
            try:
                if not self._metadata.renew_session(session):
                    self.lost(session)
            except CachenessError as error:
                _log.debug("session %s could not be renewed: %s", session, error)


def fence_dead(metadata: SessionRows) -> None:
    """Fence every session whose process is proven dead or whose lease has run out."""
    for session in presumed_dead(metadata):
        metadata.fence(session)


def presumed_dead(metadata: SessionRows) -> set[str]:
    """Return the sessions that `fence_dead` would try to fence. Changes nothing."""
    here = this_process()
    return {s.id for s in metadata.live_sessions() if _is_dead(s, here)}


def _is_dead(session: SessionInfo, here: Process) -> bool:
    return session.lease_expired or proven_dead(session.process, here)


def proven_dead(process: Process, here: Process) -> bool:
    """Return True when a process of this kernel and pid namespace no longer runs.

    A hostname proves nothing: two containers may share one, and the boot id too, and still number
    their processes separately. If nothing can be proved, only the lease decides.
    """
    comparable = bool(here.boot_id and here.pid_ns and process.pid_start)
    if not comparable or (process.boot_id, process.pid_ns) != (here.boot_id, here.pid_ns):
        return False
    return platform.has_ended(process.pid, process.pid_start)


def this_process() -> Process:
    """Return an identity of this process that others on this machine can check. Empty if unknown."""
    pid = os.getpid()
    return Process(
        host=os.uname().nodename,
        boot_id=platform.boot(),
        pid_ns=platform.namespace(),
        pid=pid,
        pid_start=platform.start_of(pid) or "",
    )
