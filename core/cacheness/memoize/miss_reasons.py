"""Find why a call missed, cheaply: from the look-up, and one earlier entry."""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from cacheness import forks
from cacheness.keys import FunctionCode, Key
from cacheness.records import CODE_CHANGED, DISPUTED, NEVER_SEEN, NEW_ARGUMENTS, NOT_STORED_BEFORE, Dispute, Entry

EVICTED: Final = "evicted or deleted"
KEPT: Final = 10_000  #: keys
ASK_AGAIN: Final = 3600.0  #: seconds, after which a function's newest entry is read again
#: In the order of the checks: the component of a function's code, and the reason when it differs.
_PARTS: Final = (
    *((part, CODE_CHANGED) for part in ("code", "values", "bound")),
    ("versions", "library changed"),
)
_NAMED: Final = 3  #: of what changed


class Asked(Protocol):
    """A cache for questions about a miss. It may fail."""

    def iter_entries(self, *, function: str, limit: int) -> Iterator[Entry]:
        """Return the newest entries of a function."""
        ...

    def code_of(self, entries: Iterable[Entry], /) -> Mapping[bytes, FunctionCode]:
        """Return the code that made entries, by their `fn`."""
        ...

    def disputes(self, keys: Sequence[Key] | None = None) -> list[Dispute]:
        """Return disputes, of these keys or of all."""
        ...


class MissReasons:
    """The knowledge of this process about keys and functions. Thread-safe; reads one entry per hour and function.

    It reads all disputes once an hour, and those of a key if its function has some.
    """

    def __init__(self) -> None:
        self.reset_after_fork()
        forks.watch_forks(self)

    def reset_after_fork(self) -> None:
        """Make a new lock, because a thread of the parent may hold the old one."""
        self._lock = threading.RLock()
        self._keys: OrderedDict[bytes, str] = OrderedDict()  #: why it was not stored; "" if it was
        self._functions: OrderedDict[tuple[Any, ...], tuple[float, str]] = OrderedDict()
        self._stores: OrderedDict[tuple[Any, ...], bool] = OrderedDict()  #: whether it stored a result of a function
        self._disputed: set[str] = set()  #: functions
        self._asked_for_disputes = float("-inf")

    def stored(self, key: Key) -> None:
        """Record that the result of a key was stored."""
        self._note(key.digest, "")
        with self._lock:
            self._stores[_about(key)] = True
            _cut(self._stores)

    def not_stored(self, key: Key, why: str) -> None:
        """Record why the result of a key was not stored."""
        self._note(key.digest, why)
        with self._lock:
            self._stores.setdefault(_about(key), False)
            _cut(self._stores)

    def disputed(self, function: str) -> None:
        """Record that a result of a function is disputed now."""
        with self._lock:
            self._disputed.add(function)

    def of(self, key: Key, cache: Asked) -> str:
        """Return why a key was not found."""
        with self._lock:
            known = self._keys.get(key.digest)
        if known:
            return known if known == DISPUTED else f"{NOT_STORED_BEFORE}: {known}"
        if known is not None:  # an entry of this process was deleted, or is disputed
            return DISPUTED if cache.disputes([key]) else EVICTED
        if not key.function:
            return ""
        reason = self._of_function(key, cache)
        return DISPUTED if self._has_disputes(key.function, cache) and cache.disputes([key]) else reason

    def _of_function(self, key: Key, cache: Asked) -> str:
        now, about = time.monotonic(), _about(key)
        with self._lock:
            asked, reason = self._functions.get(about, (float("-inf"), ""))
            if now - asked < ASK_AGAIN:
                # The result of the first call is stored by now, unless none was.
                return NEW_ARGUMENTS if reason == NEVER_SEEN and self._stores.get(about, True) else reason
        reason = _compared(key, next(cache.iter_entries(function=key.function, limit=1), None), cache)
        with self._lock:
            self._functions[about] = now, reason
            _cut(self._functions)
        return reason

    def _has_disputes(self, function: str, cache: Asked) -> bool:
        now = time.monotonic()
        if now - self._asked_for_disputes >= ASK_AGAIN:
            self._asked_for_disputes = now
            found = {dispute.function for dispute in cache.disputes()}
            with self._lock:
                self._disputed |= found
        return function in self._disputed

    def _note(self, key: bytes, why: str) -> None:
        with self._lock:
            self._keys[key] = why
            self._keys.move_to_end(key)
            _cut(self._keys)


def _about(key: Key) -> tuple[Any, ...]:
    """Return what identifies a function, its version and its code."""
    return key.function, _version_of(key.components), key.code


def _compared(key: Key, earlier: Entry | None, cache: Asked) -> str:
    if earlier is None:
        return NEVER_SEEN
    if _version_of(key.components) != _version_of(earlier.components):
        return "version changed"
    mine = key.code
    if earlier.fn == (None if mine is None else mine.digest):
        return NEW_ARGUMENTS
    then = None if earlier.fn is None else cache.code_of([earlier]).get(earlier.fn)
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
