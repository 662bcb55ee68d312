"""Compute leases: one process at a time computes a key, and renews its lease while it lives.

Leases save work and never change results: when a holder dies, its lease runs out and another
process computes; when two processes compute one key, both results are right.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from cacheness import forks, threads
from cacheness.errors import CachenessError, StoreRefused
from cacheness.jitter import between
from cacheness.logs import logger_of
from cacheness.protocols import ComputeLeaseRows

_log = logger_of(__name__)

POLL_SECONDS = 0.05  #: first pause of a waiter; doubles up to POLL_AT_MOST
POLL_AT_MOST = 1.0


class ComputeLeases:
    """The compute leases of one namespace.

    Args of several methods:
        key: 64 hexadecimal digits.
        token: a random text from the caller, which identifies one holder.
    """

    def __init__(self, metadata: ComputeLeaseRows, namespace: str, lease: float) -> None:
        self._metadata = metadata
        self._namespace = namespace
        self._lease = lease
        self._is_refused = False
        self.reset_after_fork()
        forks.watch_forks(self)

    def reset_after_fork(self) -> None:
        """Drop all leases in a forked child: the parent holds them, and its thread renews them."""
        self._lock = threading.RLock()
        self._held: dict[tuple[bytes, str], _HeldLease] = {}
        self._woken = threading.Event()
        self._wakes_at = float("inf")  #: when the renewing thread wakes next
        self._beating = False
        self._abandoned: deque[tuple[bytes, str]] = deque()

    def acquire(
        self,
        key: str,
        token: str,
        *,
        wait: float = 0.0,
        lease: float | None = None,
        unless: Callable[[], bool] | None = None,
    ) -> bool:
        """Take the compute lease of a key, and renew it in a background thread until `release`.

        Args:
            token: a token that already holds the lease takes it again.
            wait: seconds to wait for another holder to release it.
            lease: seconds for which it lasts without renewal; None for the cache's setting.
            unless: called after every pause; if it returns True, for example because the result has
                arrived, the wait ends.

        Returns:
            True when the caller holds the lease now.

        Raises:
            StoreUnavailable: the database does not answer.
        """
        seconds = self._lease if lease is None else lease
        give_up = time.monotonic() + wait
        pause = POLL_SECONDS
        while not self._metadata.take_compute_lease(self._namespace, bytes.fromhex(key), token, seconds):
            if time.monotonic() >= give_up:
                return False
            jittered = pause * between(0.5, 1.0)
            time.sleep(min(jittered, max(give_up - time.monotonic(), 0.0)))
            pause = min(pause * 2, POLL_AT_MOST)
            if unless is not None and unless():
                return False
        self._hold(bytes.fromhex(key), token, seconds)
        return True

    def release(self, key: str, token: str) -> None:
        """Release a lease, so that others need not wait until it runs out."""
        with self._lock:
            self._held.pop((bytes.fromhex(key), token), None)
        try:
            self._metadata.end_compute_lease(self._namespace, bytes.fromhex(key), token)
        except StoreRefused as error:  # a role without DELETE: the computed result is right, and is stored
            if not self._is_refused:
                _log.warning("compute leases are not given up, so other processes wait until they run out: %s", error)
            self._is_refused = True

    def abandon(self, key: str, token: str) -> None:
        """Have the renewing thread release a lease; takes no lock, so a finalizer may call this."""
        self._abandoned.append((bytes.fromhex(key), token))

    def holder(self, key: str) -> str | None:
        """Return the token that holds the lease of a key now, or None."""
        return self._metadata.compute_lease_holder(self._namespace, bytes.fromhex(key))

    def close(self) -> None:
        """Stop renewing, and release every lease if the database answers."""
        with self._lock:
            held, self._held, self._beating = dict(self._held), {}, False
        self._woken.set()
        for key, token in held:
            try:
                self._metadata.end_compute_lease(self._namespace, key, token)
            except CachenessError as error:
                _log.debug("the compute lease of %s was not given up and will run out: %s", key.hex(), error)

    def _hold(self, key: bytes, token: str, lease: float) -> None:
        with self._lock:
            held = self._held[key, token] = _HeldLease(lease)
            if not self._beating:
                self._beating = True
                self._beating = threads.started(self._beat, "cacheness-lease-heartbeat") is not None
            wakes_in_time = self._wakes_at <= held.due and not self._abandoned
        if not wakes_in_time:  # this is rare, and waking the thread at each miss would cost as much as the lease
            self._woken.set()

    def _beat(self) -> None:
        while self._beating:
            self._woken.wait(self._next_due() - time.monotonic())
            self._woken.clear()
            self._end_abandoned()
            for (key, token), held in list(self._held.items()):
                if held.due <= time.monotonic():
                    self._renew(key, token)

    def _end_abandoned(self) -> None:
        while self._abandoned:
            key, token = self._abandoned.popleft()
            try:
                self.release(key.hex(), token)
            except CachenessError as error:
                _log.debug("the compute lease of %s was not given up and will run out: %s", key.hex(), error)

    def _next_due(self) -> float:
        with self._lock:
            due = (held.due for held in self._held.values())
            self._wakes_at = min(due, default=time.monotonic() + self._lease)
            return self._wakes_at

    def _renew(self, key: bytes, token: str) -> None:
        # Under the lock; otherwise the thread would renew a lease that is released at the same time.
        with self._lock:
            held = self._held.get((key, token))
            if held is None:
                return
            try:
                if not self._metadata.take_compute_lease(self._namespace, key, token, held.lease):
                    del self._held[key, token]
            except CachenessError as error:
                _log.debug("the compute lease of %s could not be renewed: %s", key.hex(), error)
            held.renewed()


class _HeldLease:
    """A lease of this process: its duration in seconds, and when to renew it."""

    def __init__(self, lease: float) -> None:
        self.lease = lease
        self.due = 0.0
        self.renewed()

    def renewed(self) -> None:
        """A third of the lease from now, so that two renewals may fail."""
        self.due = time.monotonic() + self.lease / 3
