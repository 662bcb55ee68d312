"""Add old figures up: rows of processes to rows per hour, day, month and of all time.

There are rows per function, and for all functions together. Rows of hours and days are dropped when
reports of that time may be less detailed; so a report sums up a limited number of rows per
function, however long the history.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Final, TypeAlias

#: Hours after which the rows of all processes for an hour are summed: no process writes to it any more.
ENDED: Final = 2
#: Hours after which rows of hours are dropped, and rows of days.
_HOURS: Final = 8 * 24
_DAYS: Final = 400 * 24
#: For how many hours the rows of each span are kept; the others stay.
KEPT: Final = {"hour": _HOURS, "hours": _HOURS, "day": _DAYS, "days": _DAYS}
#: The spans of all functions together, by the spans of one.
_TOGETHER: Final = {"hour": "hours", "day": "days", "month": "months"}

#: span, hour, function, outcome, reason, who
Place: TypeAlias = tuple[str, int, str, str, str, str]
#: calls, seconds_spent, seconds_saved, bytes
Sums: TypeAlias = tuple[int, float, float, int]


def is_due(place: Place, hour: int) -> bool:
    """Return True when a row is old enough, in this hour, to be added to others or dropped."""
    span, at, *_, who = place
    if who:
        return at < hour - ENDED
    return span in KEPT and at < hour - KEPT[span]


def folded(rows: Iterable[tuple[Place, Sums]]) -> dict[Place, Sums]:
    """Return what such rows add to others, in the order of their keys."""
    more: dict[Place, Sums] = {}
    for place, sums in rows:
        for target in _targets(place):
            more[target] = added(more.get(target, (0, 0.0, 0.0, 0)), sums)
    return dict(sorted(more.items()))


def added(one: Sums, other: Sums) -> Sums:
    """Return the sum of two rows."""
    return one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3]


def bounds_by_function(since: int) -> dict[str, int]:
    """Return the first hour of each span: hours until a day begins, days until a month begins, months."""
    since = max(since, 0)
    days = _first(since, _day)
    return {"hours": since, "days": days, "months": _first(days, _month)}


def bounds_by_hour(since: int, now: int) -> dict[str, int]:
    """Return the first hour shown of each span: hours while they are kept, then days, then months."""
    hours, days = now - _HOURS, now - _DAYS
    return {
        "hours": since if since >= hours else _first(hours, _day),
        "days": since if since >= days else _first(days, _month),
        "months": since,
    }


def is_of_functions(place: Place, bounds: Mapping[str, int]) -> bool:
    """Return True when a row counts in a report by function with these limits."""
    span, hour, *_, who = place
    hours, days, months = bounds["hours"], bounds["days"], bounds["months"]
    if span == "hour":
        return hour >= hours and (bool(who) or hour < days)
    return (span == "day" and days <= hour < months) or (span == "month" and hour >= months)


def span_of_hours(place: Place, bounds: Mapping[str, int]) -> str | None:
    """Return the span under which a report by hour shows a row; None when it does not show it."""
    span, hour, *_, who = place
    hours, days, months = bounds["hours"], bounds["days"], bounds["months"]
    if span == "hour":
        return "hour" if who and hour >= hours else None
    kept = {"hours": hour >= hours, "days": days <= hour < hours, "months": months <= hour < days}
    return span[:-1] if kept.get(span) else None


def _targets(place: Place) -> list[Place]:
    _, hour, function, outcome, reason, who = place
    if not who:  # it was added to all others when it was created
        return []
    spans = {"hour": hour, "day": _day(hour), "month": _month(hour)}
    each = [(span, at, function, outcome, reason, "") for span, at in (*spans.items(), ("all", 0))]
    return [*each, *((_TOGETHER[span], at, "", outcome, "", "") for span, at in spans.items())]


def _day(hour: int) -> int:
    return hour // 24 * 24


def _month(hour: int) -> int:
    first = datetime.fromtimestamp(hour * 3600, UTC).replace(day=1, hour=0)
    return int(first.timestamp()) // 3600


def _first(hour: int, begin: Callable[[int], int]) -> int:
    """Return the hour in which the first whole day or month begins."""
    return hour if begin(hour) == hour else begin(begin(hour) + (25 if begin is _day else 32 * 24))
