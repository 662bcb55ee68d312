"""Memoise functions of code objects, as long as the code object lives."""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable
from functools import partial
from typing import TypeVar

T = TypeVar("T")


def once_per_code(read: Callable[[types.CodeType], T]) -> Callable[[types.CodeType], T]:
    """Return a function that reads each code object once.

    Keyed by identity: comparing two code objects compares all their constants.
    """
    known: dict[int, tuple[weakref.ref[types.CodeType], T]] = {}

    def found(code: types.CodeType) -> T:
        key = id(code)
        kept = known.get(key)
        if kept is None or kept[0]() is not code:
            # Not a Python function, because an exception of a signal handler inside a callback
            # would be lost, such as a task's timeout.
            gone = weakref.ref(code, partial(known.pop, key))
            kept = known[key] = (gone, read(code))
        return kept[1]

    return found
