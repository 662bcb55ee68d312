"""Counts hits without a write of their own: buffered here, written along with something else."""

from __future__ import annotations

import logging
import threading
import time

from cacheness.errors import CachenessError
from cacheness.protocols import MetadataStore

_log = logging.getLogger(__name__)

FLUSH_AT = 10_000  #: different keys
FLUSH_EVERY = 60.0  #: seconds, at a put


class UseCounter:
    """Hits and last uses of this process. What a crash or a read-only store loses is counters."""

    def __init__(self, metadata: MetadataStore, namespace: str) -> None:
        self._metadata = metadata
        self._namespace = namespace
        self._lock = threading.RLock()
        self._uses: dict[bytes, tuple[int, int]] = {}
        self._flushed = time.monotonic()

    def count(self, key: bytes) -> None:
        """Note one hit, now."""
        with self._lock:
            hits, _ = self._uses.get(key, (0, 0))
            self._uses[key] = (hits + 1, self._metadata.now())
            full = len(self._uses) >= FLUSH_AT
        if full:
            self.flush()

    def flush_when_due(self) -> None:
        """Write the buffered counters if that was long ago; called where something is written anyway."""
        if time.monotonic() - self._flushed > FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        """Write the buffered counters, if the database takes them."""
        with self._lock:
            uses, self._uses = self._uses, {}
            self._flushed = time.monotonic()
        if not uses:
            return
        try:
            self._metadata.record_use(self._namespace, uses)
        except CachenessError as error:
            _log.debug("usage counters were not written: %s", error)
