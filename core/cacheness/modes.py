"""What a run may do with a cache: the modes, from the narrowest to the widest."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

Mode: TypeAlias = Literal["off", "offline", "read", "refresh", "readwrite"]
#: The narrowest first.
MODES: Final[tuple[Mode, ...]] = get_args(Mode)


def narrower(one: Mode, other: Mode) -> Mode:
    """Return the one of two modes that allows less."""
    return min(one, other, key=MODES.index)


def writes(mode: Mode) -> bool:
    """Whether results are stored in this mode."""
    return mode in {"refresh", "readwrite"}
