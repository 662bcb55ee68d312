"""Describe where in a value the encoder stopped, for users."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

WAYS_OUT: Final = (
    "Leave it out of the key (ignore=), define what counts of its type (cacheness.register(type, fn) or"
    " a __cacheness_key__ method), or give the key yourself (key=)"
)


class Unencodable(Exception):
    """A value has no canonical encoding. Contains the reason; the encoder adds the place."""


#: Exceptions that the user's code may raise while a key is made; they mean that an object is not visible.
FAILURES: Final[tuple[type[BaseException], ...]] = (Exception, SystemExit)


def brief_of(error: BaseException) -> str:
    """Return an error's type and text, even if its `__str__` fails."""
    try:
        text = str(error)
    except FAILURES:
        text = "its text cannot be read"
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


class Harmless(str):
    """A line about something that is not followed, and that decides no result: a lock, a logger."""

    __slots__ = ()


def deciding(unfollowed: Iterable[str]) -> tuple[str, ...]:
    """Return those lines about what is not followed that can decide the result: they make a key incomplete."""
    return tuple(line for line in unfollowed if type(line) is not Harmless)


class Step(str):
    """Return the error's description of a path that the values do not show."""

    __slots__ = ()


def place_of(root: str, stack: Sequence[Any]) -> str:
    """Return the path from `root` to the innermost value that was being encoded.

    Searched again after the failure, so that encoding need not track names.
    """
    place = root
    for outer, inner in pairwise(stack):
        place += str(inner) if isinstance(inner, Step) else _label(outer, inner)
    return place


def _label(outer: Any, inner: Any) -> str:
    if isinstance(outer, Mapping):
        for key, value in outer.items():
            if value is inner:
                return f"[{_short(key)}]"
            if key is inner:
                return f" key {_short(key)}"
    elif isinstance(outer, (list, tuple)):
        for index, value in enumerate(outer):
            if value is inner:
                return f"[{index}]"
    elif isinstance(outer, (set, frozenset)):
        return "{…}"
    return ""


def _short(key: Any) -> str:
    return repr(key)[:40] if isinstance(key, (str, bytes, int, float)) else type(key).__qualname__
