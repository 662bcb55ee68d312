"""Writes the figures of the newest `make bench` into docs/reference/performance.md: `make docs`.

A row that falls short takes its paragraph from docs/reference/performance_notes.md, where it stands under the
row's name. A row that holds takes none, so that no paragraph outlives its reason.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.outcomes import RESULTS, Outcome, load
from benchmarks.rows import Row
from benchmarks.show import curves, figure, measured, name_of

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/reference/performance.md"
NOTES = ROOT / "docs/reference/performance_notes.md"
PLACE = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- end of figures -->)", re.DOTALL)
PICTURES = "../../benchmarks/results"
CURVES = {
    "scale": ("entries", "Cost of an operation against the number of entries"),
    "growth": ("results", "Cost of one call against the number of entries"),
    "many_writers": ("writers", "Throughput and waiting against the number of processes that write"),
}


def main() -> None:
    """Write the page, and print which rows need a paragraph."""
    name = "full" if (RESULTS / "full.json").exists() else "quick"
    outcomes, notes = load(RESULTS / f"{name}.json"), paragraphs(NOTES.read_text())
    if not outcomes:
        sys.exit("there are no figures yet: run `make bench` first")
    text = "\n".join(["", *figures(outcomes, notes, name), ""])
    PAGE.write_text(PLACE.sub(lambda _: text, PAGE.read_text()))
    for row in (row for outcome in outcomes for row in outcome.short):
        if name_of(row) not in notes:
            print(f"no paragraph in {NOTES.relative_to(ROOT)} explains: {name_of(row)}", file=sys.stderr)


def paragraphs(text: str) -> dict[str, str]:
    """The notes by the names of their rows."""
    _, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
    return {name: body.strip() for name, _, body in (section.partition("\n") for section in sections)}


def figures(outcomes: list[Outcome], notes: dict[str, str], name: str) -> Iterator[str]:
    """The generated part of the page, in lines."""
    judged = [row for outcome in outcomes for row in outcome.judged]
    holding = sum(row.holds is True for row in judged)
    command = "make bench" if name == "full" else "make bench-quick"
    yield f"`{command}` on {outcomes[0].at[:10]}, {outcomes[0].machine}: **{holding} of {len(judged)} budgets hold**."
    yield from ("", f"![Every budget, and how much of it is used]({PICTURES}/{name}.svg)", "")
    yield from shortfalls(outcomes, notes)
    for outcome in outcomes:
        yield from section(outcome, outcomes[0], name)


def shortfalls(outcomes: list[Outcome], notes: dict[str, str]) -> Iterator[str]:
    """What does not hold, why, and what would change it."""
    short = [row for outcome in outcomes for row in outcome.short]
    if short:
        yield from ("### What falls short", "")
    for row in short:
        note = notes.get(name_of(row), "Not explained yet.")
        yield from (f"**{name_of(row)}: {measured(row)}, budget {row.budget}.** {note}", "")


def section(outcome: Outcome, first: Outcome, name: str) -> Iterator[str]:
    """One benchmark: how to run it, its tables and its curves."""
    quick = " --quick" if name == "quick" else ""
    elsewhere = "" if outcome.machine == first.machine else f"; {outcome.at[:10]}, {outcome.machine}"
    yield from (f"### {outcome.title}", "")
    yield from (f"`python -m benchmarks{quick} {outcome.name}`, {outcome.seconds:.0f} s{elsewhere}", "")
    if outcome.error:
        yield from (f"**It did not finish:** `{outcome.error}`", "")
    flat = [row for row in outcome.rows if not row.curve]
    if flat:
        yield from (
            "| what | ours | ± | beside | theirs | ratio | budget | |",
            "|---|---:|---:|---|---:|---:|---:|---|",
        )
        yield from map(comparison, flat)
        yield ""
    points = curves(outcome.rows)
    if points:
        axis, title = CURVES.get(outcome.name, (outcome.rows[0].axis, outcome.title))
        yield from (f"![{title}]({PICTURES}/{name}-{axis}.svg)", "")
        yield from table_of(points, axis)
        yield ""


def comparison(row: Row) -> str:
    """One line of a table."""
    verdict = {True: "holds", False: "**falls short**", None: ""}[row.holds]
    spread = f"{row.spread:.0%}" if row.spread else ""
    ratio, theirs = (f"{row.measured:.2f}", figure(row.theirs, row.unit)) if row.peer else ("", "")
    what = f"{row.what} ({row.note})" if row.note else row.what
    return line((what, figure(row.ours, row.unit), spread, row.peer, theirs, ratio, row.budget, verdict))


def table_of(points: dict[str, dict[float, Row]], axis: str) -> Iterator[str]:
    """The points of all curves, one curve a line."""
    places = sorted({place for found in points.values() for place in found})
    yield line([f"number of {axis}", *(f"{place:,.0f}" for place in places)])
    yield line(["---", *("---:" for _ in places)])
    for name, found in points.items():
        yield line([name, *(figure(found[at].ours, found[at].unit) if at in found else "" for at in places)])


def line(cells: Iterable[str]) -> str:
    """A line of a table; a bar in a cell would begin another cell."""
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |".replace("  ", " ")


if __name__ == "__main__":
    main()
