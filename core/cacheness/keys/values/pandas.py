"""Encode frames, series and times of pandas: labels, types and values, column by column."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from cacheness.keys.encode import Encoder, encode, handles, handles_family
from cacheness.keys.owners import module_of
from cacheness.keys.values.attributes import add_attributes, held
from cacheness.keys.values.numpy import add_array, add_objects


@handles_family(lambda kind: issubclass(kind, pd.DataFrame))
def _frame(encoder: Encoder, value: pd.DataFrame) -> None:
    if (start := encoder.enter(value)) >= 0:
        _add_notes(encoder, value, pd.DataFrame)
        names = value.columns.tolist()
        encoder.spend(len(names))
        encoder.open("DataFrame", 2)
        _add_names(encoder, value.columns, names)
        encoder.add(value.index)
        for name, column in zip(names, _columns_of(value), strict=True):
            if type(column) is np.ndarray:
                _add_numbers(encoder, column)
            else:
                encoder.step(f"[{name!r}]", column)
        encoder.leave(value, start)


def _add_numbers(encoder: Encoder, column: np.ndarray[Any, Any]) -> None:
    encoder.open("column", 1)
    add_array(encoder, column)


def _add_names(encoder: Encoder, columns: pd.Index[Any], names: list[Any]) -> None:
    """Append the names of columns, memoised by content, because the slices of a frame repeat them."""
    dtype: Any = columns.dtype
    is_usual = type(columns) is pd.Index and not _beside(columns) and type(columns.name) in _NAMES
    if is_usual and type(dtype) is pd.StringDtype and set(map(type, names)) == {str}:
        encoder.out += _names_as_bytes(tuple(names), columns.name, dtype.storage, dtype.na_value is pd.NA)
    else:
        encoder.add(columns)


_NAMES = (str, type(None))


@lru_cache(maxsize=64)
def _names_as_bytes(names: tuple[str, ...], name: str | None, storage: Any, with_na: bool) -> bytes:
    dtype: Any = pd.StringDtype(storage)
    if (dtype.na_value is pd.NA) is not with_na:  # in pandas 2.2 the storage alone decides
        dtype = pd.StringDtype(storage, na_value=np.nan)
    return encode(pd.Index(names, dtype=dtype, name=name))


def _columns_of(value: pd.DataFrame) -> Sequence[Any]:
    """Return the columns as arrays, from their blocks, which is faster than one access per column."""
    found: list[Any] = [None] * value.shape[1]
    for block in getattr(getattr(value, "_mgr", None), "blocks", ()):
        values = block.values  # noqa: PD011 - of a block, which has nothing else
        rows = values if values.ndim == 2 else [values]
        for at, row in zip(block.mgr_locs, rows, strict=True):
            is_plain = type(row) is np.ndarray and row.dtype.kind not in "biufc"
            found[at] = pd.arrays.NumpyExtensionArray(row) if is_plain else row
    return [value.iloc[:, at].array if column is None else column for at, column in enumerate(found)]


@handles_family(lambda kind: issubclass(kind, pd.Series))
def _series(encoder: Encoder, value: pd.Series[Any]) -> None:
    if (start := encoder.enter(value)) >= 0:
        _add_notes(encoder, value, pd.Series)
        encoder.tagged("Series", value.name, value.index, value.array)
        encoder.leave(value, start)


def _add_notes(encoder: Encoder, value: pd.DataFrame | pd.Series[Any], base: type) -> None:
    """Begin a value around a frame if it has more than labels and values, as few have."""
    kind = type(value)
    beside = _beside(value)
    if kind is not base:
        beside |= {name: getattr(value, name, None) for name in _metadata_of(value) if name != "_name"}
    if value.attrs or not value.flags.allows_duplicate_labels or beside or kind is not base:
        encoder.open("noted", 5)
        encoder.add(None if kind is base else kind)
        encoder.step(".attrs", value.attrs)
        encoder.add(value.flags.allows_duplicate_labels)
        add_attributes(encoder, value, beside)


def _beside(value: Any) -> dict[str, Any]:
    """Attributes that user code has set. Those of pandas begin with an underscore."""
    return {name: part for name, part in vars(value).items() if name[:1] != "_" and name != "sortorder"}


def _metadata_of(value: Any) -> list[str]:
    """The names of a frame's or type's attributes that pandas must keep."""
    return list(getattr(value, "_metadata", ()))


@handles_family(lambda kind: issubclass(kind, pd.Index))
def _index(encoder: Encoder, value: pd.Index[Any]) -> None:
    kind, beside = type(value), _beside(value)
    is_known = module_of(kind).partition(".")[0] == "pandas"
    if beside or not is_known:
        encoder.open("noted index", 3)
        encoder.add(None if is_known else kind)
        add_attributes(encoder, value, beside)
    if isinstance(value, pd.RangeIndex):
        encoder.tagged("RangeIndex", value.name, value.start, value.stop, value.step)
    elif isinstance(value, pd.MultiIndex):
        encoder.tagged("MultiIndex", list(value.names), list(value.levels), [np.asarray(code) for code in value.codes])
    else:
        encoder.tagged("Index", type(value).__name__, value.name, _frequency_of(value), value.array)


def _frequency_of(value: Any) -> Any:
    frequency = getattr(value, "freq", None)
    if frequency is None:
        return None
    # Its name alone does not identify the holidays of a calendar.
    return (frequency.freqstr, frequency.__reduce_ex__(4)[1])


@handles_family(lambda kind: issubclass(kind, pd.api.extensions.ExtensionDtype))
def _dtype(encoder: Encoder, value: Any) -> None:
    kind, names = type(value), _metadata_of(value)
    encoder.open("column type", 2 + len(names))
    encoder.add(kind.__name__ if module_of(kind).partition(".")[0] == "pandas" else kind)
    encoder.add("" if names else value.name)
    for name in names:
        encoder.step(f".{name}", getattr(value, name))


@handles_family(lambda kind: issubclass(kind, pd.api.extensions.ExtensionArray))
def _column(encoder: Encoder, value: Any) -> None:
    kind = type(value)
    if kind is pd.arrays.NumpyExtensionArray:
        _add_numbers(encoder, np.asarray(value))
    elif isinstance(value, pd.Categorical):
        encoder.tagged("categories", value.categories, value.ordered, value.codes)
    elif isinstance(value, (pd.arrays.DatetimeArray, pd.arrays.TimedeltaArray, pd.arrays.PeriodArray)):
        encoder.tagged("times", value.dtype, value.view("i8"))
    elif isinstance(value, pd.arrays.IntervalArray):
        encoder.tagged("intervals", value.closed, value.left, value.right)
    elif isinstance(value, pd.arrays.SparseArray):
        filled = value.sp_index.to_int_index().indices
        encoder.tagged("sparse", value.dtype, value.kind, len(value), filled, value.sp_values)
    elif isinstance(value, pd.arrays.NumpyExtensionArray):  # texts that are Python's
        encoder.tagged("texts", value.dtype)
        add_objects(encoder, value.tolist())
    else:
        _add_extension(encoder, value)


def _add_extension(encoder: Encoder, value: Any) -> None:
    """Append a column of a type that pandas does not define, or that Arrow supports as well."""
    encoder.tagged("extension", value.dtype)
    try:
        elements = value.__arrow_array__()
    except _NOT_FOR_ARROW:
        # One by one: geometries return their well-known binary form, others their pickle state.
        encoder.step("", [value[at] for at in range(len(value))])
        # Attributes besides the values, such as the coordinate system of geometries.
        add_attributes(encoder, value, _beside_elements(value))
    else:
        encoder.add(elements)


def _beside_elements(value: Any) -> dict[str, Any]:
    """Attributes of a column that are not arrays. Its caches, such as a spatial index, are not pickled."""
    kept = held(value)
    if inspect.getattr_static(type(value), "__getstate__") is not vars(object)["__getstate__"]:
        state = value.__getstate__()
        kept = state if isinstance(state, dict) else {str(at): part for at, part in enumerate(_parts_of(state))}
    return {name: part for name, part in kept.items() if not isinstance(part, np.ndarray)}


def _parts_of(state: Any) -> Sequence[Any]:
    return state if isinstance(state, (tuple, list)) else (state,)


#: Exceptions with which a column reports that Arrow has no type for it, or that it does not support Arrow.
_NOT_FOR_ARROW = (AttributeError, ImportError, NotImplementedError, TypeError, ValueError)


@handles(pd.Timestamp)
def _timestamp(encoder: Encoder, value: pd.Timestamp) -> None:
    encoder.tagged("Timestamp", value.asm8.view("i8").item(), value.unit, value.tzinfo, value.fold)


@handles(pd.Timedelta)
def _timedelta(encoder: Encoder, value: pd.Timedelta) -> None:
    encoder.tagged("Timedelta", value.asm8.view("i8").item(), value.unit)


@handles(type(pd.NaT), type(pd.NA))
def _nothing(encoder: Encoder, value: Any) -> None:
    encoder.tagged("NaT" if value is pd.NaT else "NA")
