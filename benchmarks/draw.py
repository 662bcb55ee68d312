"""The results as pictures: bars that must end before the budget's line, and curves over sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.rows import Row
from benchmarks.show import curves, figure, measured, name_of

GOOD, BAD, LINE, FAINT = "#4878a8", "#c44e52", "#333333", "#777777"
MOST = 2.0  #: a bar that is longer than two budgets is drawn as long as that
COLUMNS = 3
#: What a panel shows, for people: "SQLite: get" is drawn in the panel "get", as the line "SQLite".
AXES = {
    "entries": "number of entries in the cache",
    "results": "number of results in the cache",
    "writers": "processes that write at the same time",
}


def used(row: Row) -> float:
    """How much of its budget a row uses: 1 is all of it."""
    if row.at_least is not None:
        return row.at_least / row.measured
    if not row.at_most:
        return MOST if row.measured else 0.0
    return row.measured / row.at_most


def draw_budgets(rows: Sequence[Row], about: str, path: Path) -> None:
    """A bar for each budget, as long as the part of it that is used."""
    judged = [row for row in rows if row.holds is not None]
    if not judged:
        return
    drawing = Figure(figsize=(11, 0.26 * len(judged) + 1.1), layout="constrained")
    axes = drawing.subplots()
    lengths = [min(used(row), MOST) for row in judged]
    axes.barh(range(len(judged)), lengths, color=[GOOD if row.holds else BAD for row in judged], height=0.62)
    axes.set_yticks(range(len(judged)), [name_of(row) for row in judged])
    for place, row in enumerate(judged):
        end = max(lengths[place], 1)  # beside the line, never across it
        text = f"{measured(row)}, budget {row.budget}"
        axes.annotate(text, (end, place), (4, 0), textcoords="offset points", va="center", fontsize=7, color=LINE)
    axes.axvline(1, color=LINE, linewidth=1)
    axes.set_xlim(0, MOST + 0.6)
    axes.set_ylim(-0.8, len(judged) - 0.2)
    axes.set_xticks([0, 0.5, 1, 1.5, 2], ["0", "50 %", "the budget", "150 %", "200 %"])
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=8, length=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_title("How much of each budget is used (less is better)", loc="left", fontsize=10)
    save(drawing, about, path)


def draw_curves(rows: Sequence[Row], about: str, path: Path) -> None:
    """One panel for each thing that was measured, one line in it for each database."""
    panels: dict[str, dict[str, list[Row]]] = {}
    for name, points in curves(rows).items():
        line, _, what = name.partition(": ")
        panels.setdefault(what, {})[line] = [points[place] for place in sorted(points)]
    if not panels:
        return
    columns = 2 if len(panels) in {2, 4} else min(COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    drawing = Figure(figsize=(3.7 * columns, 2.5 * lines + 0.3), layout="constrained")
    grid = drawing.subplots(lines, columns, squeeze=False)
    for place, (what, found) in zip(grid.flat, panels.items(), strict=False):
        draw_panel(place, what, found)
    for place in grid.flat[len(panels) :]:
        place.set_visible(False)
    grid[0, 0].legend(fontsize=7, frameon=False)
    drawing.supxlabel(AXES[rows[0].axis], fontsize=8)
    save(drawing, about, path)


def draw_panel(axes: Any, what: str, lines: dict[str, list[Row]]) -> None:
    """Both axes logarithmic and in whole decades, so that a straight rise means the same in every panel."""
    for number, (name, points) in enumerate(lines.items()):
        places, heights = [row.at for row in points], [row.ours for row in points]
        axes.plot(places, heights, marker="o", markersize=3, label=name, color=(GOOD, "#dd8452")[number % 2])
    every = [row for points in lines.values() for row in points]
    places, heights = sorted({row.at for row in every}), [row.ours for row in every if row.ours > 0] or [1.0]
    low, high = math.floor(math.log10(min(heights))), math.ceil(math.log10(max(heights)) + 1e-9)
    axes.set_title(what, fontsize=9, loc="left")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(places, [f"{place:,.0f}" for place in places])
    axes.set_yticks(
        [10.0**n for n in range(low, high + 1)], [figure(10.0**n, every[0].unit) for n in range(low, high + 1)]
    )
    axes.minorticks_off()
    axes.set_ylim(10.0**low, 10.0**high)
    axes.tick_params(labelsize=7)
    axes.grid(axis="y", color="#eeeeee")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def save(drawing: Figure, about: str, path: Path) -> None:
    """Text stays text, so that the picture is small and can be searched."""
    drawing.text(0.005, -0.01, about, fontsize=6, color=FAINT)
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "cacheness", "font.family": "sans-serif"}):
        drawing.savefig(path, metadata={"Date": None}, bbox_inches="tight")
