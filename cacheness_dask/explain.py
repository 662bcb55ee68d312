"""Explain a collection before it is computed: what would be loaded, computed or refused, and why."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dask._expr import FinalizeCompute
from dask._task_spec import GraphNode, Task
from dask.base import collections_to_expr, unpack_collections
from dask.core import flatten
from dask.utils import key_split

from cacheness import Entry, MissingExtra
from cacheness.incomplete import quote
from cacheness_dask.activation import Place, run_with
from cacheness_dask.decisions import GraphPlan
from cacheness_dask.graphs import materialised, name_of
from cacheness_dask.hooks import active
from cacheness_dask.miss_reasons import Reasons
from cacheness_dask.prints import Fingerprints
from cacheness_dask.run import Run

_MOST_NODES: Final = 400  #: more than one can read in a picture
_COLOURS: Final = {"hit": "#2e9e5b", "skipped": "#bfe6cd", "miss": "#f2a33c", "refused": "#c9505a", "data": "#e4e7ec"}
_MEANS: Final = {
    "hit": "hit: loaded",
    "skipped": "skipped: only hits need it",
    "miss": "miss: computed",
    "refused": "refused: always computed",
    "data": "data",
}


@dataclass(frozen=True, slots=True)
class Row:
    """The status of one task."""

    key: Any  #: the key of the task
    name: str  #: the function
    status: str  #: hit, skipped, miss or refused
    why: str  #: the reason for a miss or a refusal


class GraphExplanation(Sequence[Row]):
    """The tasks of a collection, inputs first, each with its status.

    Args:
        rows: a Row for each task.
    """

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows

    def __getitem__(self, index: Any) -> Any:
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def count(self, value: Any) -> int:
        """Return how many tasks have a status.

        Args:
            value: the status: "hit", "miss", "refused" or "skipped".
        """
        return sum(row.status == value for row in self._rows)

    def __str__(self) -> str:
        counts = ", ".join(f"{status}: {n}" for status in _COLOURS if (n := self.count(status)))
        lines = [f"{row.status:8} {row.name}  {row.key!r}  {row.why}" for row in self._rows]
        return "\n".join([counts or "no tasks", *lines])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><td style='color:{_COLOURS[row.status]}'>{row.status}</td><td>{html.escape(row.name)}</td>"
            f"<td><code>{html.escape(str(row.key))}</code></td><td>{html.escape(row.why)}</td></tr>"
            for row in self._rows
        )
        return f"<table><tr><th>status</th><th>function</th><th>task</th><th>why</th></tr>{cells}</table>"


def explain(collection: Any, cache: Place | None = None) -> GraphExplanation:
    """Return what computing a collection would load, compute and not store, with reasons. Computes nothing.

    Args:
        collection: a Dask collection, or several in a list, tuple or dictionary.
        cache: as for `caching`; None for the cache of the `caching()` block around.
    """
    with looking(cache) as run:
        order, plan, prints = planned(collection, run)
        reasons = Reasons(plan, prints.clues, run.cache)
        rows = []
        for key in order:
            status = _status(key, plan)
            if status != "data":
                unseen = prints.incomplete.get(key, ())
                why = (
                    _why(key, status, plan, reasons)
                    + _about_hit(key, plan, run)
                    + (f"; not seen: {quote(unseen)}" if unseen else "")
                )
                rows.append(Row(key, name_of(plan.graph[key]), status, why))
        return GraphExplanation(rows)


def visualize(collection: Any, filename: str | Path = "graph.svg", cache: Place | None = None) -> Picture:
    """Draw the graph of a collection as an SVG or PNG file, coloured by status.

    Args:
        collection: a Dask collection.
        filename: where to write the file; its suffix selects the format. PNG needs the extra `png`.
        cache: as for `caching`; None for the cache of the `caching()` block around.

    Returns:
        The image, which a notebook shows.
    """
    with looking(cache) as run:
        order, plan, _ = planned(collection, run)
    if len(order) > _MOST_NODES:
        raise ValueError(
            f"this graph has {len(order)} nodes, and a picture of more than {_MOST_NODES} shows nothing."
            " Draw a part of it, or read explain(collection)"
        )
    path = Path(filename)
    if path.suffix.lower() not in (".svg", ".png"):
        raise ValueError(f"{path.name} is not an .svg or .png file, the formats that visualize writes")
    picture = Picture(_draw(plan.graph, order, plan))
    path.write_bytes(picture.svg.encode() if path.suffix.lower() == ".svg" else _png_of(picture.svg))
    return picture


def _png_of(svg: str) -> bytes:
    try:
        from resvg_py import svg_to_bytes
    except ImportError as error:
        raise MissingExtra.of(error, "resvg_py", "png", "a picture as PNG") from error
    return bytes(svg_to_bytes(svg_string=svg, zoom=_PNG_ZOOM))


class Picture:
    """An SVG image, which a notebook shows.

    Args:
        svg: the image as text.
    """

    def __init__(self, svg: str) -> None:
        self.svg = svg

    def _repr_svg_(self) -> str:
        return self.svg


@contextmanager
def looking(cache: Place | None) -> Iterator[Run]:
    """Return a run with this cache, or with that of the block around."""
    run = run_with(cache) if cache is not None else active()
    if run is None:
        raise ValueError("no cache is in use here. Give one: explain(collection, cache), or call it inside caching()")
    try:
        yield run
    finally:
        if cache is not None:
            run.close()


def planned(collection: Any, run: Run) -> tuple[list[Any], GraphPlan, Fingerprints]:
    """Return the state of a collection: the nodes of its graph in order, the plan, and the fingerprints."""
    found, _ = unpack_collections(collection)
    if not found:
        raise TypeError(f"{type(collection).__name__} is not a Dask collection")
    expr = FinalizeCompute(collections_to_expr(found)).optimize()
    graph, _ = materialised(expr)
    return run.look(graph, list(flatten(expr.__dask_keys__())))


def _status(key: Any, plan: GraphPlan) -> str:
    if key in plan.hits:
        return "hit"
    if not isinstance(plan.graph[key], Task):
        return "data"
    if key in plan.refused:
        return "refused"
    return "miss" if key in plan.runs else "skipped"


def _why(key: Any, status: str, plan: GraphPlan, reasons: Reasons) -> str:
    if status == "hit":
        return f"entry {plan.hits[key][:12]}…"
    if status == "skipped":
        return "only hits need it"
    if status == "refused":
        return plan.refused[key]
    if key not in plan.misses:
        return "a step of a shuffle, never stored"
    noted = plan.noted.get(plan.misses[key])
    return f"not stored when it was computed: {noted}" if noted else reasons.of(key)


def _about_hit(key: Any, plan: GraphPlan, run: Run) -> str:
    """Return notes for a hit: by early cut-off, or suspected random, because a process-wide generator moved."""
    entry = run.cache.entry(plan.hits[key]) if key in plan.hits else None
    if entry is not None and key in plan.earlier:
        return f": {plan.earlier[key]}" + _moved(entry)
    if entry is not None and entry.link is not None:
        return f": inputs came out the same as for entry {entry.link.hex()[:12]}…" + _moved(entry)
    return _moved(entry)


def _moved(entry: Entry | None) -> str:
    moved = json.loads(entry.provenance).get("moved", ()) if entry is not None else ()
    return f"; moved while it was computed: the process-wide generator of {' and '.join(moved)}" if moved else ""


# the picture

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 156, 30, 18, 46, 24
_PNG_ZOOM = 2  #: pixels of one of these: screens and slides enlarge it
_LETTERS = 23  #: of a label, in a box
_LEGEND = 164  #: from one entry of the legend to the next


def _draw(graph: Mapping[Any, GraphNode], order: list[Any], plan: GraphPlan) -> str:
    rows = _layers(graph, order)
    wide = max(len(row) for row in rows)
    width = max(wide * (_WIDTH + _GAP_X) + 2 * _MARGIN, 5 * _LEGEND + _MARGIN)
    height = len(rows) * (_HEIGHT + _GAP_Y) + 2 * _MARGIN
    where = {key: _place(row, column, len(rows[row]), len(rows), width) for row, column, key in _cells(rows)}
    edges = "".join(_edge(where[dep], where[key]) for key in order for dep in graph[key].dependencies if dep in where)
    boxes = "".join(_box(*where[key], key, graph[key], _status(key, plan)) for key in order)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        f' font-family="system-ui, sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f"{edges}{boxes}{_legend(height)}</svg>\n"
    )


def _layers(graph: Mapping[Any, GraphNode], order: list[Any]) -> list[list[Any]]:
    """Return nodes by distance from the inputs; within a layer, each near the nodes that it needs."""
    depth: dict[Any, int] = {}
    for key in order:
        depth[key] = 1 + max((depth[dep] for dep in graph[key].dependencies if dep in depth), default=-1)
    rows: list[list[Any]] = [[] for _ in range(max(depth.values()) + 1)]
    for key in order:
        rows[depth[key]].append(key)
    seat: dict[Any, float] = {}
    for row in rows:
        row.sort(
            key=lambda key: (_mean([seat[d] for d in graph[key].dependencies if d in seat]), _label(key, graph[key]))
        )
        seat.update({key: (column + 0.5) / len(row) for column, key in enumerate(row)})
    return rows


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.5


def _cells(rows: list[list[Any]]) -> Iterator[tuple[int, int, Any]]:
    for row, keys in enumerate(rows):
        for column, key in enumerate(keys):
            yield row, column, key


def _place(row: int, column: int, columns: int, rows: int, width: int) -> tuple[float, float]:
    x = width / 2 + (column - (columns - 1) / 2) * (_WIDTH + _GAP_X) - _WIDTH / 2
    return x, _MARGIN + (rows - 1 - row) * (_HEIGHT + _GAP_Y)


def _edge(start: tuple[float, float], end: tuple[float, float]) -> str:
    x1, y1 = start[0] + _WIDTH / 2, start[1]
    x2, y2 = end[0] + _WIDTH / 2, end[1] + _HEIGHT
    middle = (y1 + y2) / 2
    return (
        f'<path d="M{x1:.0f} {y1:.0f} C{x1:.0f} {middle:.0f} {x2:.0f} {middle:.0f} {x2:.0f} {y2:.0f}"'
        ' fill="none" stroke="#98a2b3"/>'
    )


def _box(x: float, y: float, key: Any, node: GraphNode, status: str) -> str:
    label = _label(key, node)
    short = label if len(label) <= _LETTERS else label[: _LETTERS - 1] + "…"
    ink = "white" if status in ("hit", "refused") else "#1d2939"
    return (
        f'<g><title>{html.escape(f"{key}: {_MEANS[status]}")}</title><rect x="{x:.0f}" y="{y:.0f}" rx="6"'
        f' width="{_WIDTH}" height="{_HEIGHT}" fill="{_COLOURS[status]}" stroke="#667085" stroke-width="0.6"/>'
        f'<text x="{x + _WIDTH / 2:.0f}" y="{y + 19:.0f}" text-anchor="middle" fill="{ink}">'
        f"{html.escape(short)}</text></g>"
    )


def _label(key: Any, node: GraphNode) -> str:
    return (name_of(node) if isinstance(node, Task) else str(key_split(key))) + _hint(key, node)


def _hint(key: Any, node: GraphNode) -> str:
    """Return what distinguishes a task from its neighbours: its place, or its first argument if that is short."""
    if isinstance(key, tuple):
        return " " + ", ".join(map(str, key[1:]))
    first = node.args[0] if isinstance(node, Task) and node.args else None
    if isinstance(first, str | int | float):
        return f" {str(first).rpartition('/')[2]}"
    return ""


def _legend(height: int) -> str:
    parts = []
    for place, (status, meaning) in enumerate(_MEANS.items()):
        x, y = _MARGIN + place * _LEGEND, height - 26
        parts.append(
            f'<rect x="{x}" y="{y}" width="12" height="12" rx="3" fill="{_COLOURS[status]}"/>'
            f'<text x="{x + 17}" y="{y + 10}" font-size="10" fill="#475467">{meaning}</text>'
        )
    return "".join(parts)
