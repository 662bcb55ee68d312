"""Where figures go with age: an hour's rows of all processes become one, then a day's, then a month's."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, TypeAlias

#: Hours after which an hour's rows of all processes are added up: no process writes to it any more.
ENDED: Final = 2
#: Hours after which hours become days, and days months.
DAYS_AFTER: Final = 8 * 24
MONTHS_AFTER: Final = 400 * 24

#: span, hour, function, outcome, reason, who
Place: TypeAlias = tuple[str, int, str, str, str, str]
#: calls, seconds_spent, seconds_saved, bytes
Sums: TypeAlias = tuple[int, float, float, int]


def is_due(place: Place, hour: int) -> bool:
    """Return True when a row is old enough to be added to others, in this hour."""
    span, at, *_, who = place
    if span == "hour":
        return at < hour - (ENDED if who else DAYS_AFTER)
    return span == "day" and at < hour - MONTHS_AFTER


def folded(rows: Iterable[tuple[Place, Sums]]) -> dict[Place, Sums]:
    """What such rows add to others, in the order of their places."""
    more: dict[Place, Sums] = {}
    for place, sums in rows:
        for target in _targets(place):
            more[target] = added(more.get(target, (0, 0.0, 0.0, 0)), sums)
    return dict(sorted(more.items()))


def added(one: Sums, other: Sums) -> Sums:
    """Two rows as one."""
    return one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3]


def _targets(place: Place) -> list[Place]:
    span, hour, function, outcome, reason, who = place
    what = (function, outcome, reason, "")
    if span == "hour" and who:
        return [("hour", hour, *what), ("all", 0, *what)]
    if span == "hour":
        return [("day", hour // 24 * 24, *what)]
    first = datetime.fromtimestamp(hour * 3600, UTC).replace(day=1, hour=0)
    return [("month", int(first.timestamp()) // 3600, *what)]
