"""Commands that show figures of calls, and whether the store works."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cacheness.cli.endings import FOUND, Misuse
from cacheness.cli.options import AsJson, Place, about_a_cache
from cacheness.cli.screen import NAME, NUMBER, TEXT, hint, print_json, say, table
from cacheness.printable import printable
from cacheness.units import bytes_named, number_of, seconds_named, seconds_of

if TYPE_CHECKING:
    from cacheness.maintenance.activity import Report

By = Literal["function", "hour", "outcome", "reason"]


@about_a_cache
def stats(*, place: Place, as_json: AsJson = False) -> None:
    """Show what the cache holds, its hit rate, and what it saved."""
    with place.opened() as cache:
        found = cache.stats()
    if as_json:
        print_json(found)
        return
    rate = "" if found["hit_rate"] is None else f", hit rate {found['hit_rate']:.0%}"
    say(
        f"{number_of(found['entries'], 'entry')}, {number_of(found['bytes'], 'byte')}: expired ones count until deleted"
    )
    calls = (
        *(number_of(found["calls"], "call"), number_of(found["hits"], "hit"), number_of(found["misses"], "miss")),
        *(f"{found[name]:,} {name.replace('_', ' ')}" for name in ("waited", "not_cacheable", "failed")),
    )
    say(f"{calls[0]}: {', '.join(calls[1:])}{rate}")
    say(f"{seconds_named(found['seconds_saved'])} and {bytes_named(found['bytes_saved'])} saved")


@about_a_cache
def report(
    *,
    place: Place,
    since: Annotated[str | None, typer.Option(metavar="AGE", help="Only the last while: 1h, '7 days'.")] = None,
    by: Annotated[By, typer.Option(help="One row for each function, hour, outcome, or reason of a miss.")] = "function",
    prometheus: Annotated[
        bool, typer.Option("--prometheus", help="Print what Prometheus reads: all that ever was.")
    ] = False,
    html: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write a page with charts. It needs the extra `ui`.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show figures of calls: hits, misses, seconds saved and spent. Into a pipe: columns between tabs."""
    try:
        age = None if since is None else seconds_of(since)
    except ValueError as error:
        raise Misuse(f"--since {error}") from None
    if prometheus and (since is not None or by != "function" or as_json):
        raise Misuse("--prometheus prints all figures: it cannot be combined with --since, --by and --json")
    if html is not None and (since is not None or by != "function" or as_json or prometheus):
        raise Misuse("--html writes a separate page: it cannot be combined with --since, --by, --json and --prometheus")
    with place.opened() as cache:
        if html is not None:
            from cacheness.cli.page import write_report

            write_report(cache, html)
            return
        if prometheus:
            from cacheness.maintenance.prometheus import text_of

            ever = cache.overview()
            print(text_of(cache.config.namespace, ever.stats, ever.report("function")), end="")
            return
        found = cache.report(since=age, by=by)
    if as_json:
        print_json(found.as_dict())
        return
    if found.rows:
        _print_report(found)
    else:
        hint("No calls were counted." if by != "reason" else "No call missed.")


def _print_report(found: Report) -> None:
    by = found.by
    rows: list[tuple[str, ...]] = []
    for row in (*found.rows, found.total) if len(found.rows) > 1 else found.rows:
        rate = "-" if row.hit_rate is None else f"{row.hit_rate:.0%}"
        name = printable(found.name_of(row))
        times = (seconds_named(row.seconds_saved), seconds_named(row.seconds_spent))
        if by == "reason":  # misses are the only outcome with these reasons
            rows.append((name, f"{row.misses:,}", times[1]))
        else:
            rows.append((name, *(f"{number:,}" for number in row.counts), rate, *times))
    if by == "reason":
        table({by: TEXT, "misses": NUMBER, "spent": NUMBER}, rows, ["spent"])
        return
    names = ("calls", "hits", "misses", "waited", "not\ncacheable", "failed", "hit\nrate", "saved", "spent")
    leave_out = ("hit\nrate", "spent", "saved", "not\ncacheable", "failed", "waited")
    table({by: NAME, **dict.fromkeys(names, NUMBER)}, rows, leave_out)


@about_a_cache
def doctor(*, place: Place, as_json: AsJson = False) -> None:
    """Test each part of the store, and print what to do about failures. Exit code 1 when something fails."""
    from cacheness.errors import CachenessError
    from cacheness.maintenance.doctor import without_opening

    try:
        with place.opened() as cache:
            found = cache.diagnose()
    except CachenessError as error:
        found = without_opening(error)
    if as_json:
        print_json([finding.as_dict() for finding in found])
    else:
        for finding in found:
            say(f"{'ok  ' if finding.ok else 'BAD '} {finding.part}: {printable(finding.detail)}")
            if finding.advice:
                say(f"     {finding.advice}")
    if not all(finding.ok for finding in found):
        raise typer.Exit(FOUND)
