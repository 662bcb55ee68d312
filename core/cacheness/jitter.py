"""Random pauses and choices, so that competing processes do not retry at the same moment."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final, TypeVar

T = TypeVar("T")

#: Draws from the system and keeps no state: a user's seeded sequence in `random` is not changed,
#: and a forked child does not repeat its parent's pauses.
_SYSTEM: Final = random.SystemRandom()


def between(shortest: float, longest: float) -> float:
    """Return a random number of seconds between two bounds."""
    return _SYSTEM.uniform(shortest, longest)


def below(bound: int) -> int:
    """Return a random whole number from 0 to less than the limit."""
    return _SYSTEM.randrange(bound)


def chosen(items: Sequence[T], most: int) -> list[T]:
    """Return some of the items, at random; all of them if there are no more."""
    return _SYSTEM.sample(items, min(most, len(items)))
