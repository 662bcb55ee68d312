"""The table of docs/how-to/sharing.md: what each call does in each mode."""

from __future__ import annotations

from pathlib import Path

_PAGE = Path(__file__).parents[2] / "docs/how-to/sharing.md"


def cells(*calls: str) -> list[tuple[str, str, str]]:
    """(call, mode, what it does) for the rows of these calls."""
    lines = _PAGE.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| call |"))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:] if line.startswith("|")]
    modes, by_call = rows[0][1:], {row[0]: row[1:] for row in rows[2:]}
    return [(call, mode, done) for call in calls for mode, done in zip(modes, by_call[call], strict=True)]
