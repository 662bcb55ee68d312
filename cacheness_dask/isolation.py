"""The edge between the user's work and the cache: whatever breaks here must not break the work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def unbroken(tell: Callable[[Exception], None]) -> Iterator[None]:
    """Tell what went wrong inside of the block, and go on after it."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  drivers and the user's own objects raise anything
        tell(error)
