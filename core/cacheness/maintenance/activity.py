"""Sum up calls for reports: by function, hour, outcome, or reason of a miss."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

from cacheness import html
from cacheness.lazy_dataclass import dataclass
from cacheness.printable import printable
from cacheness.records import COLUMNS, HITS, Activity
from cacheness.units import number_of

By: TypeAlias = Literal["function", "hour", "outcome", "reason"]


@dataclass(frozen=True, slots=True)
class Sum:
    """The sum of calls with a common property."""

    name: str  #: function, hour (2026-11-29 16:00), outcome, or reason; "" for none, or if not known
    hits: int = 0  #: returned a stored result at once; includes near hits
    misses: int = 0  #: computed here, or found nothing
    waited: int = 0  #: returned what another call was computing
    not_cacheable: int = 0  #: did not use the cache
    failed: int = 0  #: the function raised, or the cache did not answer
    seconds_spent: float = 0.0  #: computing and waiting
    seconds_saved: float = 0.0  #: the cost of the hits' results when they were computed
    bytes_saved: int = 0  #: stored bytes that were read instead of computing
    bytes_stored: int = 0

    @property
    def calls(self) -> int:
        """Return the number of all calls."""
        return self.hits + self.misses + self.waited + self.not_cacheable + self.failed

    @property
    def counts(self) -> tuple[int, ...]:
        """Return numbers of calls in the order of `COLUMNS`: all, and by outcome."""
        return self.calls, self.hits, self.misses, self.waited, self.not_cacheable, self.failed

    @property
    def looked_up(self) -> int:
        """Return the calls that looked for a result, and got an answer: hits, misses and waited."""
        return self.hits + self.misses + self.waited

    @property
    def hit_rate(self) -> float | None:
        """Return the share of hits among calls that looked for a result; None when there were none."""
        return self.hits / self.looked_up if self.looked_up else None

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as data, with calls, hit rate and the number of look-ups."""
        return {**asdict(self), "calls": self.calls, "looked_up": self.looked_up, "hit_rate": self.hit_rate}


@dataclass(frozen=True, slots=True)
class Report:
    """Sums of calls, most seconds spent first, hours in order."""

    by: By  #: the property by which calls are summed up
    rows: tuple[Sum, ...]  #: a sum per function, hour, outcome or reason
    total: Sum  #: of the rows: by reason, only of the misses

    @classmethod
    def of(cls, activity: Iterable[Activity], by: By) -> Report:
        """Return the summed figures.

        Args:
            activity: rows of hours.
            by: the property of a row of the report.

        Raises:
            ValueError: `by` is none of these.
        """
        if by not in ("function", "hour", "outcome", "reason"):
            raise ValueError(f"by={by!r} must be 'function', 'hour', 'outcome' or 'reason'")
        found = list(activity)
        groups: dict[str, list[Activity]] = {}
        if by == "reason":
            found = [row for row in found if row.outcome == "miss"]
        for row in found:
            groups.setdefault(_name(row, by), []).append(row)
        if by == "reason":  # seconds of Dask's tasks are counted separately from their misses, and have no reason
            groups = {name: group for name, group in groups.items() if any(row.calls for row in group)}
        rows = [_sum(name, group) for name, group in groups.items()]
        if by == "hour":
            rows.sort(key=lambda row: row.name)
        else:
            rows.sort(key=lambda row: (-row.seconds_spent, -row.calls, row.name))
        return cls(by, tuple(rows), _sum("total", (row for group in groups.values() for row in group)))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Sum]:
        return iter(self.rows)

    def name_of(self, row: Sum) -> str:
        """Return the name of a row, or words in its place.

        They are "no function", or "not known" for a reason.

        Args:
            row: a row of this report, or its total.
        """
        return row.name or ("not known" if self.by == "reason" else "no function")

    def as_dict(self) -> dict[str, Any]:
        """Return the whole report as plain data for JSON."""
        return {"by": self.by, "rows": [row.as_dict() for row in self.rows], "total": self.total.as_dict()}

    def _repr_html_(self) -> str:
        head = [self.by, *COLUMNS, "hit rate", "seconds saved", "seconds spent"]
        return html.of_rows("What calls came to", head, [self._cells(row) for row in (*self.rows, self.total)])

    def __str__(self) -> str:
        if not self.total.calls:
            return "no calls were counted"
        lines = [self._line(row) for row in (*self.rows, self.total)]
        return "\n".join(lines)

    def _cells(self, row: Sum) -> list[str]:
        rate = "" if row.hit_rate is None else f"{row.hit_rate:.0%}"
        times = (f"{seconds:,.1f}" for seconds in (row.seconds_saved, row.seconds_spent))
        return [self.name_of(row), *(f"{number:,}" for number in row.counts), rate, *times]

    def _line(self, row: Sum) -> str:
        rate = "" if row.hit_rate is None else f", hit rate {row.hit_rate:.0%}"
        return (
            f"{printable(self.name_of(row))}: {number_of(row.calls, 'call')}, {number_of(row.hits, 'hit')},"
            f" {number_of(row.misses, 'miss')}, {row.waited:,} waited, {row.not_cacheable:,} not cacheable,"
            f" {row.failed:,} failed{rate}; {row.seconds_saved:,.1f} s saved, {row.seconds_spent:,.1f} s spent"
        )


@dataclass(frozen=True, slots=True)
class Overview:
    """The totals of a namespace and all its calls, from one read."""

    stats: dict[str, Any]  #: as returned by `UnifiedCache.stats`
    activity: tuple[Activity, ...]  #: per function, outcome and reason

    def report(self, by: Literal["function", "outcome", "reason"] = "function") -> Report:
        """Return the calls summed up.

        Args:
            by: what the rows of the report are.
        """
        return Report.of(self.activity, by)


def _name(row: Activity, by: By) -> str:
    if by == "hour":
        return f"{datetime.fromtimestamp(row.hour * 3600, UTC):%Y-%m-%d %H:%M}"
    return str(getattr(row, by))


def _sum(name: str, rows: Iterable[Activity]) -> Sum:
    calls = dict.fromkeys(("hit", "near hit", "miss", "waited", "not cacheable", "failed"), 0)
    spent = saved = 0.0
    read = stored = 0
    for row in rows:
        calls[row.outcome] = calls.get(row.outcome, 0) + row.calls
        spent, saved = spent + row.seconds_spent, saved + row.seconds_saved
        read += row.bytes if row.outcome in HITS else 0
        stored += row.bytes if row.outcome == "miss" else 0
    return Sum(
        name,
        hits=calls["hit"] + calls["near hit"],
        misses=calls["miss"],
        waited=calls["waited"],
        not_cacheable=calls["not cacheable"],
        failed=calls["failed"],
        seconds_spent=spent,
        seconds_saved=saved,
        bytes_saved=read,
        bytes_stored=stored,
    )
