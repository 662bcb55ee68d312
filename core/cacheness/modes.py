"""The modes of a cache, from the most to the least restrictive."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

Mode: TypeAlias = Literal["off", "offline", "read", "refresh", "readwrite"]
#: The most restrictive first.
MODES: Final[tuple[Mode, ...]] = get_args(Mode)
#: Those in which results are stored.
WRITING: Final[frozenset[Mode]] = frozenset({"refresh", "readwrite"})


def narrower(one: Mode, other: Mode) -> Mode:
    """Return the more restrictive of two modes."""
    return min(one, other, key=MODES.index)


def writes(mode: Mode) -> bool:
    """Return True when results are stored in this mode."""
    return mode in WRITING
