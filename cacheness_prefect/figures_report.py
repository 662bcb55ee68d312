"""Report what a store did in the last day: an artifact, and events for automations."""

from __future__ import annotations

from typing import Any, Final

from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event

from cacheness import Report, UnifiedCache
from cacheness.records import COLUMNS
from cacheness.units import number_of, seconds_named
from cacheness_prefect.repair_artifacts import plain

REPORT: Final = "cacheness.report"  #: the events for automations
NO_HITS: Final = "cacheness.report.no-hits"

DAY, WEEK = 24 * 3600.0, 7 * 24 * 3600.0
#: With this many calls per day, no hit at all is worth an event.
ENOUGH_CALLS: Final = 20
_FUNCTIONS: Final = 30  #: rows of the artifact
_REASONS: Final = 20


def publish_figures(cache: UnifiedCache, label: str) -> None:
    """Report the calls of the last day.

    Args:
        cache: an open cache.
        label: its name for users.
    """
    day, reasons = cache.report(since=DAY), cache.report(since=DAY, by="reason")
    create_markdown_artifact(
        markdown=text_of(day, reasons), key="cacheness-figures", description=f"Figures of {label}, of the last day"
    )
    stats = cache.stats()
    held = {name: stats[name] for name in ("entries", "bytes")}
    payload = {**day.total.as_dict(), **held, "reasons": {row.name: row.misses for row in reasons.rows[:_REASONS]}}
    resource = {"prefect.resource.id": f"cacheness.store.{label}", "prefect.resource.name": label}
    events = [REPORT, NO_HITS] if has_stopped_hitting(day, cache.report(since=WEEK)) else [REPORT]
    for event in events:
        emit_event(event, resource=resource, payload=payload)


def has_stopped_hitting(day: Report, week: Report) -> bool:
    """Return True when no call of the last day was a hit, and calls of the week before were.

    Args:
        day: the last day.
        week: the last week, with that day.
    """
    was_given = day.total.hits + day.total.waited
    return day.total.looked_up >= ENOUGH_CALLS and not was_given and bool(week.total.hits)


def text_of(day: Report, reasons: Report) -> str:
    """Return the artifact, in Markdown.

    Args:
        day: by function.
        reasons: by reason.
    """
    total: Any = day.total
    if not total.calls:
        return "No calls were counted in the last day."
    rate = "" if total.hit_rate is None else f", **hit rate {total.hit_rate:.0%}**"
    saved, spent = map(seconds_named, (total.seconds_saved, total.seconds_spent))
    lines = [
        f"**{number_of(total.calls, 'call')}**{rate}, {saved} saved, {spent} computing and waiting.",
        "",
        f"| function | {' | '.join(COLUMNS)} | hit rate | saved | spent |",
        "|---" + "|---:" * (len(COLUMNS) + 3) + "|",
    ]
    for row in day.rows[:_FUNCTIONS]:
        share = "" if row.hit_rate is None else f"{row.hit_rate:.0%}"
        lines.append(
            f"| {_cell(day.name_of(row))} | {' | '.join(f'{count:,}' for count in row.counts)} |"
            f" {share} | {seconds_named(row.seconds_saved)} | {seconds_named(row.seconds_spent)} |"
        )
    if len(day.rows) > _FUNCTIONS:
        lines.append(f"\n… and {len(day.rows) - _FUNCTIONS:,} more functions.")
    if reasons.rows:
        lines += ["", "Why calls missed:", "", "| reason | misses |", "|---|---:|"]
        lines += [f"| {_cell(reasons.name_of(row))} | {row.misses:,} |" for row in reasons.rows[:_REASONS]]
    return "\n".join(lines)


def _cell(name: str) -> str:
    return plain("".join(char if char.isprintable() else "?" for char in name))
