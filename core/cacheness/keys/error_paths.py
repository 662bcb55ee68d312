"""Where in a value the encoder stopped, in words that a user can act upon."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

WAYS_OUT: Final = (
    "Leave it out of the key (ignore=), say what counts of its type (cacheness.register(type, fn) or"
    " a __cacheness_key__ method), or give the key yourself (key=)"
)


class Unencodable(Exception):
    """A value that has no canonical encoding. Carries the reason; the encoder adds the place."""


#: What the user's own code may raise while a key is made; it means that a thing cannot be seen.
FAILURES: Final[tuple[type[BaseException], ...]] = (Exception, SystemExit)


def brief_of(error: BaseException) -> str:
    """Return an error's type and text for people, whatever its own `__str__` does."""
    try:
        text = str(error)
    except FAILURES:
        text = "its text cannot be read"
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


class Harmless(str):
    """A line about something that is not followed, and that decides no result: a lock, a logger."""

    __slots__ = ()


def deciding(unfollowed: Iterable[str]) -> tuple[str, ...]:
    """Of what is not followed, the lines about what can decide a result: because of them a key is incomplete."""
    return tuple(line for line in unfollowed if type(line) is not Harmless)


class Step(str):
    """What an error calls a way that cannot be seen by looking at the values."""

    __slots__ = ()


def place_of(root: str, stack: Sequence[Any]) -> str:
    """The way from `root` to the innermost value that was being encoded.

    Found by looking again, so that encoding need not keep track of names.
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
