"""Render small HTML tables for notebooks; all text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from cacheness.printable import cut, printable

LONGEST: Final = 300  #: characters of one text


def of_fields(title: str, fields: Mapping[str, object]) -> str:
    """Return a title, and a row for each field that is not empty."""
    rows = [f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in fields.items() if value != ""]
    return f"<table><caption>{_text(title)}</caption>{''.join(rows)}</table>"


def of_rows(title: str, head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a title, a head, and rows."""
    names = "".join(f"<th>{_text(name)}</th>" for name in head)
    cells = ("".join(f"<td>{_text(value)}</td>" for value in row) for row in rows)
    lines = "".join(f"<tr>{line}</tr>" for line in cells)
    return f"<table><caption>{_text(title)}</caption><tr>{names}</tr>{lines}</table>"


def _text(value: object) -> str:
    from html import escape  # its table of names is large, and most processes show nothing

    return escape(printable(cut(f"{value}", LONGEST)))
