"""Recognise file names in arrays and columns, as in `da.from_array(paths)` and a table of images.

The core takes no text in an array as a name. In a graph it often is one: each block gets some of
the names and reads the files. If none of the first texts looks like a name, none of the others
counts as one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final

import numpy as np

from cacheness.keys.inputs import MOST_STRINGS, paths_in

#: Members of an array or column by which it is judged.
_FIRST: Final = 32


def names_in(value: Any) -> list[str]:
    """Return the texts in an array, series, index or frame that may name files; each once, up to the limit."""
    texts = (
        text for column in _columns(value) if any(map(paths_in, _texts(column, _FIRST))) for text in _texts(column)
    )
    return list(islice(dict.fromkeys(texts), MOST_STRINGS))


def _columns(value: Any) -> Iterator[Any]:
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "UTO" and value.dtype.fields is None:
            yield value.reshape(-1)
    elif isinstance(value, _pandas("Series", "Index")):
        if value.dtype.kind == "O":
            yield value
    elif isinstance(value, _pandas("DataFrame")) and _may_hold_texts(value):
        yield from (value.iloc[:, at] for at, dtype in enumerate(value.dtypes) if dtype.kind == "O")


def _may_hold_texts(frame: Any) -> bool:
    """Return False if no block of a frame holds objects, without the series that `dtypes` makes each time."""
    blocks = getattr(getattr(frame, "_mgr", None), "blocks", None)
    return blocks is None or any(block.dtype.kind == "O" for block in blocks)


def _pandas(*names: str) -> Any:
    """Classes of pandas; none if it is not imported, or another thread is just importing it."""
    found = (getattr(sys.modules.get("pandas"), name, None) for name in names)
    return tuple(kind for kind in found if kind is not None)


def _texts(column: Iterable[Any], most: int = MOST_STRINGS) -> Iterator[str]:
    return (str(member) for member in islice(column, most) if isinstance(member, str))
