# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""Keep results after a change of code: by evidence, with a bound, until the change is revoked.

python examples/accept.py [folder]
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from typing import Any

from cacheness import UnifiedCache


def before(mass: float, height: float) -> float:
    """Return the index, by the code that stored the results."""
    index = mass / height**2
    return round(index, 1)


def tidied(mass: float, height: float, digits: int = 1) -> float:
    """Return the same, with a helper and a new parameter."""
    return round(mass / _square(height), digits)


def _square(height: float) -> float:
    return height * height


def wrong(mass: float, height: float) -> float:
    """Return another result for tall people."""
    if height > 1.9:
        height -= 0.01
    return round(mass / height**2, 1)


def main(folder: str) -> None:
    """Store results, change the function twice, and accept the harmless change."""
    cache = UnifiedCache(folder)
    old = cache.cached(before)
    people = [(50.0 + n % 60, 1.5 + n % 50 / 100) for n in range(300)]
    for person in people:
        old(*person)
    (name,) = cache.functions()  # the module of a script has the name of its file

    for function in (tidied, wrong):
        for change in cache.accept(function, former=name):
            print(f"{function.__name__}: {change.state}, {change.equal} calls came out equal")

    hits = _hits(cache, tidied, people)
    print(f"at least 250 of {len(people)} are served: {hits >= 250}")  # of the others, one in twenty is compared
    (change,) = cache.accepted_changes()
    print("bound:", f"{100 * change.bound:.1f} %")
    cache.revoke(change.id)
    print("after it was revoked:", *(one.state for one in cache.accepted_changes()))
    cache.close()


def _hits(cache: UnifiedCache, function: Callable[..., Any], people: list[tuple[float, float]]) -> int:
    cached = cache.cached(function)
    with cache.listening() as calls:
        for person in people:
            cached(*person)
    return sum(call.outcome == "hit" for call in calls)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
