"""Estimate a value's size in memory. Dask's estimates draw samples, and so move the user's generators."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from dask.sizeof import sizeof

#: Members of a collection that are measured.
_MEMBERS: Final = 10
#: Objects of a column that are measured.
_OBJECTS: Final = 100
#: The size of a frame and a column besides their values.
_OVERHEAD: Final = 1200


def size_of(value: Any) -> int:
    """Return the bytes in memory, approximately."""
    # By Dask's function for the type, because users register functions for their types.
    estimate = _OURS.get(getattr(sizeof.dispatch(type(value)), "__name__", ""))
    return int(sizeof(value)) if estimate is None else estimate(value)


def _of_collection(value: Collection[Any]) -> int:
    return sys.getsizeof(value) + _of_members(value if isinstance(value, Sequence) else list(value))


def _of_mapping(value: Mapping[Any, Any]) -> int:
    return sys.getsizeof(value) + _of_members(list(value.keys())) + _of_members(list(value.values()))


def _of_members(members: Sequence[Any]) -> int:
    sample = _spread(members, _MEMBERS)
    return sum(map(size_of, sample)) * len(members) // max(1, len(sample))


def _of_frame(value: Any) -> int:
    objects = [value.iloc[:, at] for at, kind in enumerate(value.dtypes) if _holds_objects(kind)]
    used = int(value.memory_usage(index=False, deep=False).sum())
    return _OVERHEAD + used + size_of(value.index) + size_of(value.columns) + sum(map(_of_objects, objects))


def _of_series(value: Any) -> int:
    used = int(value.memory_usage(index=False, deep=False))
    return _OVERHEAD + used + size_of(value.index) + (_of_objects(value) if _holds_objects(value.dtype) else 0)


def _of_index(value: Any) -> int:
    used = int(value.memory_usage(deep=False))
    return _OVERHEAD + used + (_of_objects(value) if _holds_objects(value.dtype) else 0)


def _holds_objects(kind: Any) -> bool:
    return kind.name == "object" or getattr(kind, "storage", "") == "python"


def _of_objects(column: Any) -> int:
    """Return the size of a column's objects; many rows may share few of them."""
    sample = _spread(column.array, _OBJECTS).to_numpy().tolist()
    different = {id(each): each for each in sample}.values()
    size = sum(map(size_of, different))
    return size * len(column) // len(sample) if 2 * len(different) > len(sample) else size


def _spread(values: Any, count: int) -> Any:
    """Return some members of a sequence, from its beginning to its end."""
    return values[:: max(1, len(values) // count)]


#: Replaces those of Dask's estimates that draw.
_OURS: Final[dict[str, Callable[[Any], int]]] = {
    "sizeof_python_collection": _of_collection,
    "sizeof_python_dict": _of_mapping,
    "sizeof_pandas_dataframe": _of_frame,
    "sizeof_pandas_series": _of_series,
    "sizeof_pandas_index": _of_index,
}
