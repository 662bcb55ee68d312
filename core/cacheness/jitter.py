"""Random pauses and choices, so that competing processes do not retry at the same moment.

All are drawn from the system, without state: a user's seeded sequence in `random` is not changed,
and a forked child does not repeat its parent's pauses.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final, TypeVar

T = TypeVar("T")

_STEPS: Final = 1 << 32  #: into which a range is divided


def between(shortest: float, longest: float) -> float:
    """Return a random number of seconds between two bounds."""
    return shortest + (longest - shortest) * below(_STEPS) / _STEPS


def below(bound: int) -> int:
    """Return a random whole number from 0 to less than the limit, which is much less than 2 ** 64."""
    return int.from_bytes(os.urandom(8)) % bound


def chosen(items: Sequence[T], most: int) -> list[T]:
    """Return some of the items, at random; all of them if there are no more."""
    return sorted(items, key=lambda _: os.urandom(8))[:most]
