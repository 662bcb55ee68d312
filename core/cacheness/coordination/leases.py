"""One computation per key across machines: a lease that is renewed while its holder lives.

An economy and never a matter of correctness: when a holder dies, its lease runs out and
somebody else computes; when two compute after all, both results are right.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from cacheness import forks
from cacheness.errors import CachenessError, StoreRefused
from cacheness.jitter import between
from cacheness.protocols import MetadataStore

_log = logging.getLogger(__name__)

POLL_SECONDS = 0.05  #: first pause of a waiter; doubles up to POLL_AT_MOST
POLL_AT_MOST = 1.0


class Flights:
    """The flights of one namespace. Tokens are drawn by the caller and name one holder."""

    def __init__(self, metadata: MetadataStore, namespace: str, lease: float) -> None:
        self._metadata = metadata
        self._namespace = namespace
        self._lease = lease
        self._is_refused = False
        self.forget_after_fork()
        forks.watch_forks(self)

    def forget_after_fork(self) -> None:
        """Leave to the parent what it holds; its thread, which renews that, is not in a child."""
        self._lock = threading.RLock()
        self._held: dict[tuple[bytes, str], _HeldLease] = {}
        self._woken = threading.Event()
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
        """Take the flight of a key, waiting up to `wait` seconds for its holder to end.

        A flight that was taken is renewed by a background thread until `release`. `unless` is
        asked after every pause; when it says True (the result has arrived), the wait ends with
        False. Raises StoreUnavailable when the database does not answer.
        """
        seconds = self._lease if lease is None else lease
        give_up = time.monotonic() + wait
        pause = POLL_SECONDS
        while not self._metadata.take_flight(self._namespace, bytes.fromhex(key), token, seconds):
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
        """Give the flight up, so that a waiter need not wait for the lease."""
        with self._lock:
            self._held.pop((bytes.fromhex(key), token), None)
        try:
            self._metadata.end_flight(self._namespace, bytes.fromhex(key), token)
        except StoreRefused as error:  # a role without DELETE: what was computed is right, and is stored
            if not self._is_refused:
                _log.warning("computations of other processes wait for a lease to run out: %s", error)
            self._is_refused = True

    def abandon(self, key: str, token: str) -> None:
        """Have the heartbeat give the flight up; takes no lock, and so may be called by a finalizer."""
        self._abandoned.append((bytes.fromhex(key), token))

    def holder(self, key: str) -> str | None:
        """The token of whoever is computing this key now."""
        return self._metadata.flight_holder(self._namespace, bytes.fromhex(key))

    def close(self) -> None:
        """Stop renewing; give up what is still held, as far as the database answers."""
        with self._lock:
            held, self._held, self._beating = dict(self._held), {}, False
        self._woken.set()
        for key, token in held:
            try:
                self._metadata.end_flight(self._namespace, key, token)
            except CachenessError as error:
                _log.debug("the flight of %s is left to its lease: %s", key.hex(), error)

    def _hold(self, key: bytes, token: str, lease: float) -> None:
        with self._lock:
            self._held[key, token] = _HeldLease(lease)
            if not self._beating:
                self._beating = True
                threading.Thread(target=self._beat, name="cacheness-flight-heartbeat", daemon=True).start()
        self._woken.set()  # the new flight may be due before those that the heartbeat waits for

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
                _log.debug("the flight of %s is left to its lease: %s", key.hex(), error)

    def _next_due(self) -> float:
        with self._lock:
            return min((held.due for held in self._held.values()), default=time.monotonic() + self._lease)

    def _renew(self, key: bytes, token: str) -> None:
        # Under the lock, so that a flight released meanwhile is not taken again.
        with self._lock:
            held = self._held.get((key, token))
            if held is None:
                return
            try:
                if not self._metadata.take_flight(self._namespace, key, token, held.lease):
                    del self._held[key, token]
            except CachenessError as error:
                _log.debug("the flight of %s could not be renewed: %s", key.hex(), error)
            held.renewed()


class _HeldLease:
    """A flight that is ours: how long it lasts, and when it is to be renewed."""

    def __init__(self, lease: float) -> None:
        self.lease = lease
        self.due = 0.0
        self.renewed()

    def renewed(self) -> None:
        """A third of the lease from now, so that two renewals may fail."""
        self.due = time.monotonic() + self.lease / 3
