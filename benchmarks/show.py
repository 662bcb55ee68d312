"""The tables on the terminal, and how figures are written everywhere."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.outcomes import Outcome
from benchmarks.rows import Row

WIDTH = 170

_UNITS = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9))
_VERDICTS = {True: "[green]holds[/]", False: "[bold red]FALLS SHORT[/]", None: "[dim]shown[/]"}


def seconds(value: float) -> str:
    """A duration with three digits and a fitting unit."""
    name, size = next((unit for unit in _UNITS if value >= unit[1]), ("s", 1.0))
    return f"{value / size:.3g} {name}"


def figure(value: float, unit: str) -> str:
    """A figure as the tables show it."""
    if unit == "s":
        return seconds(value)
    return (f"{value:,.0f} {unit}" if value >= 1000 else f"{value:.3g} {unit}").strip()


def measured(row: Row) -> str:
    """What is held against the budget, and what a row without one is there for."""
    return f"{row.measured:.2f} x" if row.peer else figure(row.ours, row.unit)


def curves(rows: Iterable[Row]) -> dict[str, dict[float, Row]]:
    """The rows that are points, by the name of their curve and their place on it."""
    found: dict[str, dict[float, Row]] = {}
    for row in rows:
        if row.curve:
            found.setdefault(row.curve, {})[row.at] = row
    return found


def show(rows: list[Row], console: Console) -> None:
    """Comparisons one a line; then the curves, one a line each."""
    flat = [row for row in rows if not row.curve]
    if flat:
        console.print(_comparisons(flat))
    for axis in dict.fromkeys(row.axis for row in rows if row.curve):
        console.print(_points(curves(row for row in rows if row.axis == axis), axis))


def show_outcome(outcome: Outcome, console: Console) -> None:
    """One benchmark: what it found, and what went wrong."""
    console.print(f"\n[bold]{escape(outcome.title)}[/]  [dim]{outcome.name}, {outcome.seconds:.0f} s[/]")
    show(outcome.rows, console)
    if outcome.error:
        console.print(f"[bold red]did not finish:[/] {escape(outcome.error)}")


def sum_up(outcomes: list[Outcome], console: Console) -> None:
    """How many budgets hold, which do not, and what did not finish."""
    judged = sum(len(outcome.judged) for outcome in outcomes)
    short = [row for outcome in outcomes for row in outcome.short]
    took = sum(outcome.seconds for outcome in outcomes)
    console.print(f"\n[bold]{judged - len(short)} of {judged} budgets hold[/]; {took:.0f} s.")
    for row in short:
        console.print(f"[red]FALLS SHORT[/] {escape(name_of(row))}: {measured(row)}, budget {row.budget}")
    for outcome in outcomes:
        if outcome.error:
            console.print(f"[red]DID NOT FINISH[/] {outcome.name}: {escape(outcome.error)}")


def name_of(row: Row) -> str:
    """A row for people; no two rows of a run share it."""
    return f"{row.what}, against {row.peer}" if row.peer else row.what


def _comparisons(rows: list[Row]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("what", "ours", "±", "peer", "theirs", "ratio", "budget", ""):
        table.add_column(title, justify="right" if title in {"ours", "±", "theirs", "ratio", "budget"} else "left")
    for row in rows:
        theirs = figure(row.theirs, row.unit) if row.peer else ""
        ratio = measured(row) if row.peer else ""
        spread = f"{row.spread:.0%}" if row.spread else ""
        figures = (figure(row.ours, row.unit), spread, row.peer, theirs, ratio, row.budget, _VERDICTS[row.holds])
        table.add_row(escape(row.what) + (f" [dim]({escape(row.note)})[/]" if row.note else ""), *figures)
    return table


def _points(points: dict[str, dict[float, Row]], axis: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(f"by number of {axis}")
    places = sorted({place for found in points.values() for place in found})
    for place in places:
        table.add_column(f"{place:,.0f}", justify="right")
    for name, found in points.items():
        table.add_row(escape(name), *(figure(found[p].ours, found[p].unit) if p in found else "" for p in places))
    return table
