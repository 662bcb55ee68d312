"""Draw bars over time as SVG on the server; colours come from the style sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH: Final = 720
HEIGHT: Final = 160
_LEFT: Final = 56  #: for the scale
_BOTTOM: Final = 22  #: for the hours
_TOP: Final = 10
_LABELS: Final = 6


@dataclass(frozen=True, slots=True)
class Bar:
    """One hour: its name, and the stacked parts, each with its CSS class."""

    name: str
    parts: Sequence[tuple[str, float]]


def bars(title: str, columns: Sequence[Bar], named: Callable[[float], str] | None = None) -> str:
    """Return a chart with a column for each bar. Screen readers read its title and the figures of each column.

    Args:
        title: of the chart.
        columns: in their order.
        named: how a size is formatted; None for a plain number.
    """
    say = named or _short
    most = max((sum(size for _, size in column.parts) for column in columns), default=0.0) or 1.0
    step = (WIDTH - _LEFT) / max(len(columns), 1)
    room = HEIGHT - _TOP - _BOTTOM
    shown = [_axis(most, room, say)]
    every = max(1, -(-len(columns) // _LABELS))
    for number, column in enumerate(columns):
        x, y = _LEFT + number * step, float(HEIGHT - _BOTTOM)
        rectangles = []
        for kind, size in column.parts:
            height = room * size / most
            y -= height
            if height:
                name = escape(kind.replace(" ", "-"))
                rectangles.append(
                    f'<rect class="{name}" x="{x + step * 0.1:.1f}" y="{y:.1f}" width="{step * 0.8:.1f}"'
                    f' height="{height:.1f}"/>'
                )
        parts = ", ".join(f"{say(size)} {kind}" for kind, size in column.parts)
        shown.append(f"<g><title>{escape(column.name)}: {escape(parts)}</title>{''.join(rectangles)}</g>")
        if number % every == 0:
            shown.append(f'<text x="{x + step * 0.1:.1f}" y="{HEIGHT - 6}">{escape(column.name[-5:])}</text>')
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}"><title>{escape(title)}</title>'
        f"{''.join(shown)}</svg>"
    )


def _axis(most: float, room: float, say: Callable[[float], str]) -> str:
    lines = []
    for share in (0.0, 0.5, 1.0):
        y = HEIGHT - _BOTTOM - room * share
        lines.append(f'<line x1="{_LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text class="scale" x="{_LEFT - 6}" y="{y + 4:.1f}">{escape(say(most * share))}</text>')
    return "".join(lines)


def _short(number: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= size:
            return f"{number / (size if letter != 'k' else 1e3):,.1f}{letter}"
    return f"{number:,.0f}" if number >= 10 or number == int(number) else f"{number:.1f}"
