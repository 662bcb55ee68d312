"""The report on the terminal: the largest, the most complex and the most imported distributions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from examples.census.tables import Summary

ROWS = 8
ENOUGH_FUNCTIONS = 50  #: with fewer, an average is not significant


def console() -> Console:
    """Return the console: at most 100 columns, and 100 in a file or a pipe."""
    found = Console(highlight=False)
    found.width = min(found.width, 100) if found.is_terminal else 100
    return found


def report(summaries: Sequence[Summary], edges: Counter[tuple[str, str]]) -> Group:
    """Return the report, which fits on one screen."""
    files, lines = (sum(getattr(s, column) for s in summaries) for column in ("files", "lines"))
    functions = sum(s.functions for s in summaries)
    head = Text(
        f"{len(summaries)} distributions, {files:,} files, {lines:,} lines, {functions:,} functions, "
        f"{len(edges):,} imports among them",
        style="bold",
    )
    largest = sorted(summaries, key=lambda s: -s.lines)[:ROWS]
    tangled = sorted((s for s in summaries if s.functions >= ENOUGH_FUNCTIONS), key=lambda s: -s.complexity)[:ROWS]
    return Group(
        head,
        "",
        _summaries("The largest", largest),
        "",
        _summaries("The most complex", tangled),
        "",
        *([_imported(edges), ""] if edges else []),
    )


def _summaries(title: str, rows: Sequence[Summary]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("distribution", min_width=20)
    for name in ("files", "lines", "functions", "branches", "complexity", "documented"):
        table.add_column(name, justify="right", min_width=9)
    for s in rows:
        table.add_row(
            s.name, f"{s.files:,}", f"{s.lines:,}", f"{s.functions:,}", f"{s.branches:,}",
            f"{s.complexity:.1f}", f"{s.documented:.0%}",
        )  # fmt: skip
    return table


def _imported(edges: Counter[tuple[str, str]]) -> Table:
    users: Counter[str] = Counter()
    statements: Counter[str] = Counter()
    for (_, used), files in edges.items():
        users[used] += 1
        statements[used] += files
    table = Table(
        title="The most imported", title_justify="left", title_style="bold", box=None, pad_edge=False,
        padding=(0, 2, 0, 0),
    )  # fmt: skip
    table.add_column("distribution", min_width=20)
    table.add_column("imported by", justify="right", min_width=9)
    table.add_column("in files", justify="right", min_width=9)
    for name, count in users.most_common(ROWS):
        table.add_row(name, f"{count:,}", f"{statements[name]:,}")
    return table
