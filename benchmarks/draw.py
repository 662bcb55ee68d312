"""The results as pictures: bars that must end before the budget's line, and curves over sizes."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.bench import Row, figure, seconds

LEAST_RATE = 50  #: what is above is no duration but a rate
GOOD, BAD, LINE = "#4878a8", "#c44e52", "#333333"


def used(row: Row) -> float:
    """How much of its budget a row uses: 1 is all of it."""
    if row.at_least is not None:
        return row.at_least / row.measured
    return row.measured / row.at_most if row.at_most else float(row.measured > 0)


def draw_budgets(rows: list[Row], about: str, path: Path) -> None:
    """A bar for each budget, as long as the part of it that is used."""
    judged = [row for row in rows if row.holds is not None and row.at_most != 0]
    if not judged:
        return
    height = 0.32 * len(judged) + 1.4
    drawing = Figure(figsize=(11, height), layout="constrained")
    axes = drawing.subplots()
    lengths = [max(used(row), 0.011) for row in judged]
    axes.barh(range(len(judged)), lengths, color=[GOOD if row.holds else BAD for row in judged], height=0.65)
    axes.set_yticks(range(len(judged)), [f"{row.what}, against {row.peer}" if row.peer else row.what for row in judged])
    for place, row in enumerate(judged):
        measured = f"{row.measured:.2g} x" if row.peer else figure(row.ours, row.unit)
        end = max(lengths[place], 1)  # beside the line, never across it
        axes.annotate(f" {measured}, budget {row.budget}", (end, place), va="center", fontsize=7, color=LINE)
    axes.axvline(1, color=LINE, linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(0.01, max(10, *lengths) * 3)
    axes.set_ylim(-0.8, len(judged) - 0.2)
    axes.set_xticks([0.01, 0.1, 1, 10], ["1 %", "10 %", "the budget", "10 x"])
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=8, length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_title("How much of each budget is used", loc="left", fontsize=10)
    save(drawing, about, path)


def draw_curves(rows: list[Row], about: str, path: Path) -> None:
    """Cost over number of entries, and over number of writers; one panel for each thing measured."""
    panels: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.curve:
            database, _, what = row.curve.partition(": ")
            panels[what][database].append((row.at, row.ours))
    if not panels:
        return
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    drawing = Figure(figsize=(4 * columns, 2.6 * lines), layout="constrained")
    axes = drawing.subplots(lines, columns, squeeze=False)
    for place, (what, databases) in zip(axes.flat, panels.items(), strict=False):
        for database, points in databases.items():
            place.plot(*zip(*points, strict=True), marker="o", markersize=3, label=database)
        heights = [height for points in databases.values() for _, height in points]
        place.set_title(what, fontsize=9, loc="left")
        place.set_xscale("log")
        place.set_yscale("log")
        place.set_ylim(10 ** math.floor(math.log10(min(heights))), 10 ** math.ceil(math.log10(max(heights))))
        in_seconds = max(heights) < LEAST_RATE
        place.yaxis.set_major_formatter(lambda y, _, s=in_seconds: seconds(y) if s else f"{y:,.0f}")
        place.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
        place.xaxis.set_minor_formatter("")
        place.yaxis.set_minor_formatter("")
        place.tick_params(labelsize=7)
        place.spines[["top", "right"]].set_visible(False)
        place.legend(fontsize=7, frameon=False)
    for place in axes.flat[len(panels) :]:
        place.set_visible(False)
    save(drawing, about, path)


def save(drawing: Figure, about: str, path: Path) -> None:
    """Text stays text, so that the picture is small and can be searched."""
    drawing.text(0.005, 0.003, about, fontsize=6, color="#777777")
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "cacheness"}):
        drawing.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
