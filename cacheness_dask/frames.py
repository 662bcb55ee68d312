"""Slices of one data frame, quickly: what `from_pandas` puts into a graph by the thousand.

The core's encoder takes any frame, and takes its time: names of columns, types and flags are the same
in every slice. Here they are encoded once. A frame that this does not know in full is left to the core.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cacheness_dask.terms import SCALARS, container, text


class Frames:
    """Encodes pandas frames whose columns are plain numbers, times or flags."""

    def __init__(self, digest: Callable[[Any], bytes]) -> None:
        self._digest = digest
        self._columns: Any = None
        self._names = b""  #: the term of those columns

    def term(self, frame: Any) -> bytes | None:
        """The term of a frame, None when it is not of the simple kind."""
        kind = type(frame)
        if kind.__name__ != "DataFrame" or not kind.__module__.startswith("pandas"):
            return None
        blocks = getattr(getattr(frame, "_mgr", None), "blocks", None)
        if blocks is None or frame.attrs or not frame.flags.allows_duplicate_labels:
            return None
        if not all(type(block.values) is np.ndarray and block.values.dtype.kind in "biufcmM" for block in blocks):
            return None
        parts = [self._name(frame.columns), self._index(frame.index)]
        for block in blocks:
            parts.append(_array(block.mgr_locs.as_array))
            parts.append(_array(block.values))
        return container(b"pandas", parts)

    def _name(self, columns: Any) -> bytes:
        if self._columns is None or not columns.is_(self._columns):
            self._columns, self._names = columns, b"v" + self._digest(columns)
        return self._names

    def _index(self, index: Any) -> bytes:
        if type(index).__name__ != "RangeIndex":
            return b"v" + self._digest(index)
        name = index.name
        named = SCALARS[type(None)](None) if name is None else b"v" + self._digest(name)
        return container(b"range", [named, *(b"i%d;" % n for n in (index.start, index.stop, index.step))])


def _array(values: Any) -> bytes:
    kind = text(f"{values.dtype.str} {values.shape}")
    return SCALARS[bytes](kind) + SCALARS[bytes](values.tobytes())
