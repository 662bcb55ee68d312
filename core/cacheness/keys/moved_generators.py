"""Whether a process-wide generator of random numbers moved while a body ran: a suspicion, and no proof.

A body that seeds one moves it, too, and so does another thread, or a library that draws for its own ends.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from cacheness.keys.error_paths import FAILURES


def positions() -> Mapping[str, Any]:
    """Where the generators of Python and NumPy stand, as far as they are loaded."""
    found: dict[str, Any] = {"random": random.getstate()}
    mtrand = sys.modules.get("numpy.random.mtrand")
    with suppress(*FAILURES):  # somebody may have put another kind of generator there
        if mtrand is not None:
            kind, words, *rest = vars(mtrand)["_rand"].get_state()
            found["numpy.random"] = (kind, words.tobytes(), *rest)
    return found


def moved_since(before: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of those that stand elsewhere now; one that was loaded since, if anything was drawn from it."""
    now = positions().items()
    return tuple(n for n, place in now if (place != before[n] if n in before else place[2] != _UNUSED))


#: Where a generator of NumPy stands among its words before any is used.
_UNUSED: Final = 624
