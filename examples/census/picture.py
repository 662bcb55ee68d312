"""Draw the largest distributions, the most complex ones, and the imports between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Curve

from examples.census.report import ENOUGH_FUNCTIONS
from examples.census.tables import Summary

INK, FAINT, BLUE, ORANGE = "#22272e", "#8b949e", "#2f6f9f", "#d9722e"
BARS = 15
NODES = 44  #: with more, labels around the circle overlap
mpl.rcParams.update({"font.family": "DejaVu Sans", "font.size": 10, "text.color": INK, "svg.fonttype": "none"})


def draw(summaries: Sequence[Summary], edges: Counter[tuple[str, str]], path: Path) -> None:
    """Write the picture, as PNG or SVG by the suffix of the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture_of(summaries, edges).savefig(path, dpi=110)


def picture_of(summaries: Sequence[Summary], edges: Counter[tuple[str, str]]) -> Figure:
    """Return the picture: bars on the left, the graph on the right."""
    figure = Figure(figsize=(17, 10.5), facecolor="white")
    files, lines = (sum(getattr(s, column) for s in summaries) for column in ("files", "lines"))
    figure.text(0.018, 0.952, "A census of the installed Python code", fontsize=19, weight="bold")
    figure.text(0.018, 0.925, f"{len(summaries)} distributions · {files:,} files · {lines:,} lines", color=FAINT)
    largest = sorted(summaries, key=lambda s: -s.lines)[:BARS]
    tangled = sorted((s for s in summaries if s.functions >= ENOUGH_FUNCTIONS), key=lambda s: -s.complexity)[:BARS]
    _bars(figure.add_axes((0.125, 0.49, 0.27, 0.37)), "The largest, in thousands of lines", largest, "lines", 1000)
    _bars(
        figure.add_axes((0.125, 0.03, 0.27, 0.37)),
        "The most complex, in ways through a function",
        tangled,
        "complexity",
        1,
    )
    _circle(figure.add_axes((0.42, 0.01, 0.57, 0.91)), {s.name: s.lines for s in summaries}, edges)
    return figure


def _bars(axes: Axes, title: str, rows: Sequence[Summary], column: str, unit: float) -> None:
    values = [getattr(s, column) / unit for s in rows]
    axes.barh(range(len(rows)), values, color=BLUE, height=0.66)
    axes.set_yticks(range(len(rows)), [s.name for s in rows])
    axes.invert_yaxis()
    axes.set_title(title, loc="left", fontsize=11, weight="bold")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelcolor=INK)
    axes.set_xticks([])
    axes.set_xlim(0, max([*values, 1e-9]) * 1.16)
    for y, value in enumerate(values):
        axes.text(value, y, f" {value:,.1f}" if unit == 1 else f" {value:,.0f}", va="center", color=FAINT, fontsize=9)


def _circle(axes: Axes, lines: Mapping[str, int], edges: Counter[tuple[str, str]]) -> None:
    names = _best_connected(edges)
    inside = {pair: files for pair, files in edges.items() if set(pair) <= set(names)}
    names = _neighbours_together(names, inside)
    angle = {name: 2 * np.pi * (i + 0.5) / len(names) for i, name in enumerate(names)}
    used = Counter(other for _, other in inside)
    for (importer, imported), files in sorted(inside.items(), key=lambda item: item[1]):
        _curve(axes, angle[importer], angle[imported], files)
    for name in names:
        _label(axes, name, angle[name], lines.get(name, 0), used[name])
    axes.set_aspect("equal")
    axes.set_xlim(-1.64, 1.64)
    axes.set_ylim(-1.64, 1.64)
    axes.axis("off")
    axes.figure.text(0.42, 0.952, f"Imports between {len(names)} well-connected packages", fontsize=11, weight="bold")
    axes.figure.text(
        0.42,
        0.907,
        "A line is blue where it leaves the importer and orange where it arrives; it widens with the files that\n"
        "import. A dot grows with the lines of code; a bold name is imported by ten or more of these.",
        color=FAINT,
    )


def _best_connected(edges: Counter[tuple[str, str]]) -> list[str]:
    degree = Counter(name for pair in edges for name in pair)
    return sorted(name for name, _ in sorted(degree.items(), key=lambda item: (-item[1], item[0]))[:NODES])


def _neighbours_together(names: list[str], edges: Mapping[tuple[str, str], int]) -> list[str]:
    """Order names by the graph's lowest eigenvectors, so that connected ones are neighbours."""
    index = {name: i for i, name in enumerate(names)}
    weight = np.zeros((len(names), len(names)))
    for (a, b), files in edges.items():
        weight[index[a], index[b]] += np.log1p(files)
        weight[index[b], index[a]] += np.log1p(files)
    if len(names) < 3:
        return names
    _, modes = np.linalg.eigh(np.diag(weight.sum(axis=0)) - weight)
    turn = np.arctan2(modes[:, 2], modes[:, 1])
    return [names[i] for i in np.lexsort((np.arange(len(names)), turn))]


def _curve(axes: Axes, start: float, end: float, files: int) -> None:
    """Draw a line that bends towards the centre, in two halves of different colours."""
    a, b = (np.array([np.cos(t), np.sin(t)]) for t in (start, end))
    bend = 0.35 * (a + b) / 2
    middle = (a + 2 * bend + b) / 4
    width = 0.5 + 0.55 * np.log10(files) ** 1.6 if files > 1 else 0.5
    for points, colour in (((a, (a + bend) / 2, middle), BLUE), ((middle, (b + bend) / 2, b), ORANGE)):
        curve = Curve(points, [Curve.MOVETO, Curve.CURVE3, Curve.CURVE3])
        axes.add_patch(PathPatch(curve, fill=False, edgecolor=colour, linewidth=width, alpha=0.38, capstyle="round"))


def _label(axes: Axes, name: str, angle: float, lines: int, used: int) -> None:
    x, y = np.cos(angle), np.sin(angle)
    axes.scatter([x], [y], s=12 + lines**0.5 * 0.35, color=INK, zorder=3)
    left = x < -1e-9
    axes.text(
        1.05 * x, 1.05 * y, name, rotation=np.degrees(angle) + (180 if left else 0), rotation_mode="anchor",
        ha="right" if left else "left", va="center", fontsize=10.5, weight="bold" if used >= 10 else "normal",
    )  # fmt: skip
