"""What was found in a code object, kept for as long as that lives."""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable
from functools import partial
from typing import TypeVar

T = TypeVar("T")


def once_per_code(read: Callable[[types.CodeType], T]) -> Callable[[types.CodeType], T]:
    """Return a function that reads each code object once.

    It knows them by identity: comparing two code objects compares all their constants.
    """
    known: dict[int, tuple[weakref.ref[types.CodeType], T]] = {}

    def found(code: types.CodeType) -> T:
        key = id(code)
        kept = known.get(key)
        if kept is None or kept[0]() is not code:
            # No function of Python's: what a signal raises in a callback is lost, such as the end of a task's time.
            gone = weakref.ref(code, partial(known.pop, key))
            kept = known[key] = (gone, read(code))
        return kept[1]

    return found
