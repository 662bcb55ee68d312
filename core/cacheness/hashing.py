"""Compute BLAKE3, with threads for large data, safely after forks."""

from __future__ import annotations

import os
from typing import Final

from blake3 import blake3

_THREADED_FROM: Final = 8 << 20
_THREADS: Final = min(os.cpu_count() or 1, 8)


def hasher_for(size: int) -> blake3:
    """Return a hasher for about so many bytes."""
    # Not blake3.AUTO: it uses one pool of threads, which a forked child inherits without its threads and waits for.
    return blake3(max_threads=_THREADS if size >= _THREADED_FROM else 1)
