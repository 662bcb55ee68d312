"""What the user put into a library: functions in its modules, methods in its classes, entries in its registries."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any, Final

from cacheness.keys.owners import owner_of, owner_of_class
from cacheness.keys.trace import FAILURES

#: Of a library's registry, so many entries are looked at.
_MOST: Final = 1000
#: A library's object is looked into so deep: a descriptor, what it wraps, what that closes over.
_DEEPEST: Final = 4
_HOLDERS: Final = (functools.partial, property, staticmethod, classmethod, types.MethodType, type(functools.cache(len)))
_PARTS: Final = ("__wrapped__", "func", "__func__", "fget")


def has_users(value: Any, depth: int = _DEEPEST) -> bool:
    """Whether a thing that was found in a library is the user's, or leads to something of the user's."""
    if isinstance(value, types.FunctionType):
        if owner_of(value.__globals__.get("__name__")).kind == "user":
            return True
        return depth > 0 and any(has_users(inner, depth - 1) for inner in _within_function(value))
    if isinstance(value, type):
        return owner_of_class(value).kind == "user"
    if isinstance(value, types.ModuleType) or type(value) in _PLAIN:
        return False
    if owner_of_class(type(value)).kind == "user":
        return True
    return depth > 0 and any(has_users(inner, depth - 1) for inner in _within(value))


_PLAIN: Final = frozenset({type(None), bool, int, float, complex, str, bytes, types.BuiltinFunctionType})


def _within_function(fn: types.FunctionType) -> Iterable[Any]:
    for cell in fn.__closure__ or ():
        with suppress(ValueError):  # not assigned yet
            yield cell.cell_contents


def _within(value: Any) -> Iterable[Any]:
    """What an object of a library's holds, so far as it can be seen without running anything."""
    if isinstance(value, Mapping):
        return islice(dict.values(value), _MOST) if isinstance(value, dict) else ()
    if isinstance(value, (list, tuple, set, frozenset)):
        return islice(value, _MOST)
    if isinstance(value, _HOLDERS):
        return [getattr(value, name, None) for name in _PARTS]
    try:
        return list(object.__getattribute__(value, "__dict__").values())
    except FAILURES:
        return ()
