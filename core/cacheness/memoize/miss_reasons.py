"""Why a call missed, as far as that is known without a survey: what the look-up saw, and one earlier entry."""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Final

from cacheness import forks
from cacheness.keys import Key
from cacheness.records import Entry

#: In the order in which they are looked for: the part of a key, and the reason when it differs.
_PARTS: Final = (
    ("version", "version changed"),
    ("code", "code changed"),
    ("values", "code changed"),
    ("versions", "library changed"),
)
NEVER_SEEN: Final = "never seen"
NEW_ARGUMENTS: Final = "new arguments"
EVICTED: Final = "evicted or deleted"
KEPT: Final = 10_000  #: keys
ASK_AGAIN: Final = 3600.0  #: seconds, after which a function's newest entry is looked at again


class MissReasons:
    """What this process knows of keys and functions. Thread-safe; asks for one entry an hour and function."""

    def __init__(self) -> None:
        self.reset_after_fork()
        forks.watch_forks(self)

    def reset_after_fork(self) -> None:
        """Take another lock than one that a thread of the parent may hold."""
        self._lock = threading.RLock()
        self._keys: OrderedDict[bytes, str] = OrderedDict()  #: why it was not stored; "" for one that was
        self._functions: OrderedDict[tuple[str, str], tuple[float, str]] = OrderedDict()

    def stored(self, key: bytes) -> None:
        """Note that the result of a key was stored."""
        self._note(key, "")

    def not_stored(self, key: bytes, why: str) -> None:
        """Note why the result of a key was not stored."""
        self._note(key, why)

    def of(self, key: Key, newest: Callable[[], Iterable[Entry]]) -> str:
        """Why a key is not there. `newest` gives the newest entry of its function, and may fail."""
        with self._lock:
            known = self._keys.get(key.digest)
        if known is not None:
            return f"not stored before: {known}" if known else EVICTED
        if not key.function:
            return ""
        own, now = json.loads(key.components), time.monotonic()
        about = key.function, json.dumps([own.get(part) for part, _ in _PARTS], sort_keys=True)
        with self._lock:
            asked, reason = self._functions.get(about, (float("-inf"), ""))
            if now - asked < ASK_AGAIN:
                return NEW_ARGUMENTS if reason == NEVER_SEEN else reason
        reason = _compared(own, next(iter(newest()), None))
        with self._lock:
            self._functions[about] = now, reason
            _cut(self._functions)
        return reason

    def _note(self, key: bytes, why: str) -> None:
        with self._lock:
            self._keys[key] = why
            self._keys.move_to_end(key)
            _cut(self._keys)


def _compared(own: dict[str, Any], earlier: Entry | None) -> str:
    if earlier is None:
        return NEVER_SEEN
    theirs = json.loads(earlier.components)
    changed = (reason for part, reason in _PARTS if own.get(part) != theirs.get(part))
    return next(changed, NEW_ARGUMENTS)


def _cut(known: OrderedDict[Any, Any]) -> None:
    while len(known) > KEPT:
        known.popitem(last=False)
