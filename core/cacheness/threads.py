"""Start background threads. At its exit Python starts none any more, and the system has a limit."""

from __future__ import annotations

import threading
from collections.abc import Callable


def started(run: Callable[[], object], name: str) -> threading.Thread | None:
    """Run a function in a daemon thread, which never keeps a process alive; return None if none can be started."""
    thread = threading.Thread(target=run, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return None
    return thread
