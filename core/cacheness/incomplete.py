"""Decide about results whose keys are incomplete: an input that can decide them is not visible."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, get_args

Incomplete = Literal["warn", "serve", "refuse"]
CHOICES: Final[tuple[str, ...]] = get_args(Incomplete)
#: Lines that a warning contains.
_QUOTED: Final = 3

_warned: set[tuple[Any, str]] = set()


def may_cache(
    choice: str, function: str, unseen: Sequence[str], warn: Callable[[str], None], where: Any = None
) -> bool:
    """Return whether the results of a function may be cached; warn once per function, if so configured.

    `unseen` is what the key could not see, `where` distinguishes caches.
    """
    if not unseen or choice == "serve":
        return True
    if choice == "warn" and (where, function) not in _warned:
        _warned.add((where, function))
        warn(
            f"the key of {function} does not cover everything that can decide its result: {quote(unseen)}."
            " Pass it as an argument, define what counts of it (cacheness.register), or pin the function"
            " (version=). Its results are cached; incomplete='serve' does so silently, incomplete='refuse' does not"
        )
    return choice != "refuse"


def quote(unseen: Sequence[str]) -> str:
    """Return the first few lines of what a key could not see."""
    more = f", and {len(unseen) - _QUOTED} more" if len(unseen) > _QUOTED else ""
    return "; ".join(unseen[:_QUOTED]) + more
