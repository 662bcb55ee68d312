"""The first entries in an order, for who wants to know what fills a cache and what may go."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

#: What makes an entry, as `list_entries` describes it, come before others.
WORTH: Final[Mapping[str, Callable[[dict[str, Any]], Any]]] = {
    "size": lambda entry: entry["size"],
    "uses": lambda entry: entry["uses"],
    "seconds": lambda entry: entry["compute_seconds"] or 0.0,
    "unused": lambda entry: -entry["accessed_at"].timestamp(),
}


def first_of(
    best: Sequence[dict[str, Any]], more: Sequence[dict[str, Any]], most: int, order: str
) -> list[dict[str, Any]]:
    """Return the first entries of those that were the first so far and of more, in their order."""
    return heapq.nlargest(most, [*best, *more], key=WORTH[order])
