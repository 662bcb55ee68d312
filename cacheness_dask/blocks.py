"""Find the block that applies to the running code: the cache that it uses, if any.

Each thread and each asyncio task has its own block, by `contextvars`. A block applies to its
context: tasks and `asyncio.to_thread` started inside belong to it, plain threads do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import dask

from cacheness_dask.run import Run


class Block:
    """One `caching()` or `nocache()` block that was entered. Leaving it closes only this one, in any order."""

    __slots__ = ("_choice", "_is_everywhere", "left", "outer", "run")

    def __init__(self, run: Run | None, scheduler: Any = None, *, is_everywhere: bool = False) -> None:
        self.run = run  #: None in `nocache()`
        self.outer: Block | None = current()
        self.left = False
        #: The requested scheduler, and Dask's configured one at that time.
        self._choice: tuple[Any, Any] = scheduler, _configured()
        self._is_everywhere = is_everywhere
        if is_everywhere:
            _everywhere.append(self)
        else:
            _innermost.set(self)

    @property
    def scheduler(self) -> Any:
        """Return the `scheduler=` of this block, or of an outer one, unless Dask was given another since."""
        chosen, configured = self._choice
        if chosen is None or self.left:
            return self.outer.scheduler if self.outer is not None else None
        return chosen if configured is _configured() else None

    def leave(self) -> bool:
        """Leave the block, in every context. Return whether the running code was inside it."""
        # The variable's token is not used, because blocks are left in another order, and in another
        # context, than they were entered.
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
#: Blocks that apply to the whole process, the innermost last.
_everywhere: list[Block] = []


def current() -> Block | None:
    """Return the innermost block around the running code that was not left yet."""
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
