"""Why a call missed, as far as that is known without a survey: what the look-up saw, and one earlier entry."""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

from cacheness import forks
from cacheness.keys import FunctionCode, Key
from cacheness.records import CODE_CHANGED, NEVER_SEEN, NEW_ARGUMENTS, NOT_STORED_BEFORE, Entry

EVICTED: Final = "evicted or deleted"
KEPT: Final = 10_000  #: keys
ASK_AGAIN: Final = 3600.0  #: seconds, after which a function's newest entry is looked at again
#: In the order in which they are looked for: the part of a function's code, and the reason when it differs.
_PARTS: Final = (
    *((part, CODE_CHANGED) for part in ("code", "values", "bound")),
    ("versions", "library changed"),
)
_NAMED: Final = 3  #: of what changed

#: The code that made entries, by their `fn`.
CodeOf: TypeAlias = Callable[[Iterable[Entry]], Mapping[bytes, FunctionCode]]


class MissReasons:
    """What this process knows of keys and functions. Thread-safe; asks for one entry an hour and function."""

    def __init__(self) -> None:
        self.reset_after_fork()
        forks.watch_forks(self)

    def reset_after_fork(self) -> None:
        """Take another lock than one that a thread of the parent may hold."""
        self._lock = threading.RLock()
        self._keys: OrderedDict[bytes, str] = OrderedDict()  #: why it was not stored; "" for one that was
        self._functions: OrderedDict[tuple[Any, ...], tuple[float, str]] = OrderedDict()

    def stored(self, key: bytes) -> None:
        """Note that the result of a key was stored."""
        self._note(key, "")

    def not_stored(self, key: bytes, why: str) -> None:
        """Note why the result of a key was not stored."""
        self._note(key, why)

    def of(self, key: Key, newest: Callable[[], Iterable[Entry]], code_of: CodeOf) -> str:
        """Why a key is not there. `newest` gives the newest entry of its function, and may fail; so may `code_of`."""
        with self._lock:
            known = self._keys.get(key.digest)
        if known is not None:
            return f"{NOT_STORED_BEFORE}: {known}" if known else EVICTED
        if not key.function:
            return ""
        now, about = time.monotonic(), (key.function, _version_of(key.components), key.code)
        with self._lock:
            asked, reason = self._functions.get(about, (float("-inf"), ""))
            if now - asked < ASK_AGAIN:
                return NEW_ARGUMENTS if reason == NEVER_SEEN else reason
        reason = _compared(key, next(iter(newest()), None), code_of)
        with self._lock:
            self._functions[about] = now, reason
            _cut(self._functions)
        return reason

    def _note(self, key: bytes, why: str) -> None:
        with self._lock:
            self._keys[key] = why
            self._keys.move_to_end(key)
            _cut(self._keys)


def _compared(key: Key, earlier: Entry | None, code_of: CodeOf) -> str:
    if earlier is None:
        return NEVER_SEEN
    if _version_of(key.components) != _version_of(earlier.components):
        return "version changed"
    mine = key.code
    if earlier.fn == (None if mine is None else mine.digest):
        return NEW_ARGUMENTS
    then = None if earlier.fn is None else code_of([earlier]).get(earlier.fn)
    if mine is None or then is None:
        return CODE_CHANGED
    for part, reason in _PARTS:
        now, before = mine.data.get(part, {}), then.data.get(part, {})
        changed = sorted(name for name in {*now, *before} if now.get(name) != before.get(name))
        if changed:
            more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
            return f"{reason}: {', '.join(changed[:_NAMED])}{more}"
    return CODE_CHANGED


def _version_of(components: str) -> Any:
    return json.loads(components).get("version")


def _cut(known: OrderedDict[Any, Any]) -> None:
    while len(known) > KEPT:
        known.popitem(last=False)
