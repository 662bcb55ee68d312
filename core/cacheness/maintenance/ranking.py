"""Find the first entries in some order, to show what takes space in a cache and what may be evicted."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

#: The order of entries, by a property of `list_entries`.
WORTH: Final[Mapping[str, Callable[[dict[str, Any]], Any]]] = {
    "size": lambda entry: entry["size"],
    "uses": lambda entry: entry["uses"],
    "seconds": lambda entry: entry["compute_seconds"] or 0.0,
    "unused": lambda entry: -entry["accessed_at"].timestamp(),
}


def first_of(
    best: Sequence[dict[str, Any]], more: Sequence[dict[str, Any]], most: int, order: str
) -> list[dict[str, Any]]:
    """Return the first entries, in order, of the first ones so far and of more."""
    return heapq.nlargest(most, [*best, *more], key=WORTH[order])
