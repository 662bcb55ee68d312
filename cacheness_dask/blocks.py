"""Whose block is it: the cache that the code running here is to use, if any.

Each thread and each asyncio task has its own, by `contextvars`. What a block encloses is what runs in
its context: tasks and `asyncio.to_thread` started inside belong to it, plain threads do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import dask

from cacheness_dask.run import Run


class Block:
    """One `caching()` or `nocache()` block that was entered. Leaving it closes this one only, in any order."""

    __slots__ = ("_choice", "_is_everywhere", "left", "outer", "run")

    def __init__(self, run: Run | None, scheduler: Any = None, *, is_everywhere: bool = False) -> None:
        self.run = run  #: None in `nocache()`
        self.outer: Block | None = current()
        self.left = False
        #: The scheduler that was asked for, and what Dask was configured to use then.
        self._choice: tuple[Any, Any] = scheduler, _configured()
        self._is_everywhere = is_everywhere
        if is_everywhere:
            _everywhere.append(self)
        else:
            _innermost.set(self)

    @property
    def scheduler(self) -> Any:
        """What this block, or else one around it, was given for `scheduler=`, unless Dask was given another since."""
        chosen, configured = self._choice
        if chosen is None or self.left:
            return self.outer.scheduler if self.outer is not None else None
        return chosen if configured is _configured() else None

    def leave(self) -> bool:
        """Enclose nothing any more, in any context. Says whether the code running here was enclosed."""
        # No token of the variable: blocks are left in another order, and in another context, than they were entered.
        self.left = True
        if self._is_everywhere:
            _everywhere.remove(self)
            return True
        block = _innermost.get()
        while block is not None and block is not self:
            block = block.outer
        if block is None:
            return False
        _innermost.set(current())
        return True


_innermost: ContextVar[Block | None] = ContextVar("cacheness_dask_block", default=None)
#: Blocks around all that runs in this process, the innermost last.
_everywhere: list[Block] = []


def current() -> Block | None:
    """The innermost block around the code running here that was not left yet."""
    block = _innermost.get()
    while block is not None and block.left:
        block = block.outer
    return block if block is not None else next(reversed(_everywhere), None)


@contextmanager
def nocache() -> Iterator[None]:
    """Compute inside the block without looking anything up and without storing."""
    block = Block(None)
    try:
        yield
    finally:
        block.leave()


def _configured() -> Any:
    return dask.config.get("scheduler", None)
