"""Separate the user's work from the cache: errors of the cache do not reach the user's code."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType


class isolated:  # noqa: N801  used like a function
    """Pass an error inside the block to `report`, and continue after the block.

    `report` may raise it again. Exceptions outside Exception, such as KeyboardInterrupt, are not
    caught. A class and not a generator, because a cached call enters it several times.
    """

    __slots__ = ("_report",)

    def __init__(self, report: Callable[[Exception], None]) -> None:
        self._report = report

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> bool:
        if not isinstance(error, Exception):
            return False
        self._report(error)
        return True


#: Functions that return True where another caller than `cached` computes the stored result, by the caller's name.
computing_elsewhere: dict[str, Callable[[], bool]] = {}
