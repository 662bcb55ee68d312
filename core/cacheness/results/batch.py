"""The puts of one `write_batch` block: encoded at once, published together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from cacheness.results.store import Draft

BATCH_BYTES: Final = 64 << 20  #: encoded values that a batch holds
BATCH_ROWS: Final = 1000  #: results per transaction; others wait for SQLite's lock during it
BATCH_SECONDS: Final = 10.0  #: that the first result waits for the others, checked at a put


class Batch:
    """Drafts that wait for one transaction. Belongs to one thread."""

    def __init__(self, publish: Callable[[Sequence[Draft]], object]) -> None:
        self._publish = publish
        self._drafts: list[Draft] = []
        self._keys: set[bytes] = set()
        self._bytes = 0
        self._began = 0.0

    def add(self, draft: Draft) -> None:
        """Add a draft; publish everything once there is enough. If that fails, the other drafts stay waiting."""
        if self._bytes + draft.entry.size >= BATCH_BYTES:
            self._release([*self._drafts, draft])
            return
        if not self._drafts:
            self._began = time.monotonic()
        # A copy, because the encoded buffers may share memory with the value, which may change before the flush.
        self._drafts.append(Draft(draft.entry, [b"".join(draft.buffers)], draft.code))
        self._keys.add(draft.entry.key)
        self._bytes += draft.entry.size
        if len(self._drafts) >= BATCH_ROWS or time.monotonic() - self._began > BATCH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Publish all waiting drafts."""
        if self._drafts:
            self._release(self._drafts)

    def flush_if_it_holds(self, key: bytes) -> None:
        """Publish all waiting drafts if this key is among them."""
        if key in self._keys:
            self.flush()

    def _release(self, drafts: Sequence[Draft]) -> None:
        self._publish(drafts)
        self._drafts.clear()
        self._keys.clear()
        self._bytes = 0
