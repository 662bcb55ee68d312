"""Count calls by result in memory, and sum them per hour; the totals are absolute, so a repeated write is harmless."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

from cacheness.records import HOUR, Activity, Call, Outcome

FUNCTIONS_AT_MOST: Final = 200  #: per process and hour
ROWS_AT_MOST: Final = 1000  #: per process and hour
NAME_LENGTH: Final = 200  #: characters of a function's name or a reason
AT_ONCE: Final = 1000  #: hits that are summed together
LONGEST: Final = 1e9  #: seconds; the most that one result counts
OTHERS: Final = "(others)"

_Key: TypeAlias = tuple[str, Outcome, str]
_Figures: TypeAlias = tuple[int, float, float, int]
_NOTHING: Final[_Figures] = (0, 0.0, 0.0, 0)


class Figures:
    """Calls of this process by function, outcome and reason. Thread-safe."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Reset the counts, as in a process that has counted nothing."""
        self._lock = threading.RLock()
        self.who = os.urandom(8).hex()  #: the process to which these rows belong
        self._hits: deque[tuple[str, Outcome, float, float, int]] = deque()  #: not summed yet: a hit has no timestamp
        self._new: dict[_Key, list[float]] = {}  #: not added to an hour yet
        self._hours: dict[int, dict[_Key, _Figures]] = {}  #: all rows of this hour and the last one
        self._written: dict[tuple[int, _Key], _Figures] = {}
        self._functions: set[str] = set()
        self.listeners: tuple[list[Call], ...] = ()  #: lists that receive each call
        self._is_behind = False  #: whether there are new rows that the database may not have

    def count(
        self,
        function: str,
        outcome: Outcome,
        reason: str = "",
        *,
        calls: int = 1,
        spent: float = 0.0,
        saved: float = 0.0,
        size: int = 0,
    ) -> None:
        """Count calls, with the seconds that they took and saved, and the bytes of their results."""
        for heard in self.listeners:
            heard.extend([Call(function, outcome, reason, spent, saved, size)] * calls)
        with self._lock:
            figures = self._new.get((function, outcome, reason)) or self._begin(function, outcome, reason)
            figures[0] += calls
            figures[1] += spent
            figures[2] += saved
            figures[3] += size

    def count_hit(self, function: str, outcome: Outcome, spent: float, saved: float, size: int) -> None:
        """Count one call, on the fast path."""
        self._hits.append((function, outcome, spent, saved, size))
        for heard in self.listeners:
            heard.append(Call(function, outcome, "", spent, saved, size))
        if len(self._hits) >= AT_ONCE:
            self._add_up()

    @contextmanager
    def listening(self) -> Iterator[list[Call]]:
        """Append each counted call to a list, during a block."""
        heard: list[Call] = []
        with self._lock:
            self.listeners = (*self.listeners, heard)
        try:
            yield heard
        finally:
            with self._lock:
                self.listeners = tuple(one for one in self.listeners if one is not heard)

    def is_waiting(self) -> bool:
        """Return True when there is something to write."""
        return bool(self._hits) or bool(self._new) or self._is_behind

    def to_write(self, now: int) -> list[Activity]:
        """Return the changed rows, in the order of their key; `now` in microseconds."""
        hour = now // HOUR
        self._add_up()
        with self._lock:
            self._take_up(hour, ((key, (int(n), a, b, int(size))) for key, (n, a, b, size) in self._new.items()))
            self._new = {}
            # Other processes may have summed up an hour that is past, so it gets no new rows: its calls count now.
            for old in [known for known in self._hours if known < hour - 1]:
                figures = self._hours.pop(old).items()
                left = [(key, _less(total, self._written.pop((old, key), _NOTHING))) for key, total in figures]
                self._take_up(hour, ((key, rest) for key, rest in left if any(rest)))
            if len(self._hours) > 1 or hour not in self._hours:
                self._functions = {function for function, _, _ in self._hours.get(hour, {})}
            rows = [
                Activity("hour", known, *key, *figures)  # type: ignore[arg-type]  # their types do not go through a star
                for known in sorted(self._hours)
                for key, figures in sorted(self._hours[known].items())
                if self._written.get((known, key)) != figures
            ]
            self._is_behind = bool(rows)
            return rows

    def written(self, rows: Iterable[Activity]) -> None:
        """Record that the database has these rows."""
        with self._lock:
            for row in rows:
                key = (row.function, row.outcome, row.reason)
                self._written[row.hour, key] = (row.calls, row.seconds_spent, row.seconds_saved, row.bytes)
            self._is_behind = any(
                self._written.get((hour, key)) != figures
                for hour, known in self._hours.items()
                for key, figures in known.items()
            )

    def _add_up(self) -> None:
        with self._lock:
            while self._hits:
                function, outcome, spent, saved, size = self._hits.popleft()
                figures = self._new.get((function, outcome, "")) or self._begin(function, outcome, "")
                figures[0] += 1
                figures[1] += spent
                figures[2] += saved if 0.0 <= saved < LONGEST else 0.0  # a forged entry counts as zero
                figures[3] += size

    def _begin(self, function: str, outcome: Outcome, reason: str) -> list[float]:
        name, why = _text(function), _text(reason)
        if name not in self._functions and len(self._functions) >= FUNCTIONS_AT_MOST:
            name = OTHERS
        self._functions.add(name)
        # Stored under the shortened names; otherwise each call of a long name would look it up again.
        return self._new.setdefault((name, outcome, why), [0, 0.0, 0.0, 0])

    def _take_up(self, hour: int, more: Iterable[tuple[_Key, _Figures]]) -> None:
        known = self._hours.setdefault(hour, {})
        for key, (calls, spent, saved, size) in more:
            if key not in known and len(known) >= ROWS_AT_MOST:
                key = (OTHERS, key[1], "")  # noqa: PLW2901 - its figures go there
            before = known.get(key, _NOTHING)
            known[key] = (before[0] + calls, before[1] + spent, before[2] + saved, before[3] + size)


def _text(text: str) -> str:
    """Return text that every database accepts."""
    return text[:NAME_LENGTH].encode(errors="replace").decode().replace("\0", "?")


def _less(one: _Figures, other: _Figures) -> _Figures:
    return one[0] - other[0], one[1] - other[1], one[2] - other[2], one[3] - other[3]
