"""Text from a store, made safe to show: it may hold what steers a terminal or turns the direction of writing."""

from __future__ import annotations


def printable(text: str, *, also: str = "") -> str:
    """Text whose characters that cannot be seen are written as Python writes them, but for those in `also`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in also else repr(char)[1:-1] for char in text)


def cut(text: str, most: int) -> str:
    """Text of at most so many characters; an ellipsis says that there was more."""
    return text if len(text) <= most else text[: most - 1] + "…"
