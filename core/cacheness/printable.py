"""Make text from a store safe to show: it may contain control characters of terminals or writing direction."""

from __future__ import annotations

import reprlib
from typing import Any


def printable(text: str, *, also: str = "") -> str:
    """Return text with invisible characters escaped as in Python, except those in `also`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in also else repr(char)[1:-1] for char in text)


def represented(value: Any) -> str:
    """Return what `reprlib` writes of a value, or its type: Python writes no number of more than 4,300 digits."""
    try:
        return reprlib.repr(value)
    except ValueError:
        return f"<{type(value).__qualname__}>"


def cut(text: str, most: int) -> str:
    """Return text of at most so many characters, with an ellipsis if it was truncated."""
    return text if len(text) <= most else text[: most - 1] + "…"
