"""Decide which frames of polars are stored as Arrow tables, and convert them without copying."""

from __future__ import annotations

from typing import Any, Final

from cacheness.codecs.libraries import library
from cacheness.codecs.tables import Conversion
from cacheness.errors import CodecError
from cacheness.protocols import Buffer

_PLAIN: Final = frozenset(
    {
        *("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64"),
        *("Float32", "Float64", "Decimal", "Boolean", "String", "Binary", "Null"),
        *("Date", "Datetime", "Duration", "Time"),
    }
)
_SMALL: Final = 4096  #: bytes of shared memory; below this a copy is not worthwhile
_WITH_DICTIONARY: Final = frozenset({"Categorical", "Enum"})


def _frame_fits(frame: Any) -> bool:
    return all(_series_fits(column) for column in frame.iter_columns())


def _series_fits(series: Any) -> bool:
    return _type_fits(series.dtype, _PLAIN | _WITH_DICTIONARY if series.n_chunks() < 2 else _PLAIN)


def _type_fits(kind: Any, allowed: frozenset[str]) -> bool:
    name = type(kind).__name__
    if name in {"List", "Array"}:
        return _type_fits(kind.inner, allowed)
    if name == "Struct":
        return all(_type_fits(field.dtype, allowed) for field in kind.fields)
    return name in allowed


def _to_arrow(frame: Any) -> Any:
    # The newest layout is polars' layout in memory. The compatible one would be a copy, and loses
    # bytes of shared text that a slice does not show.
    levels = library("polars").CompatLevel
    table = frame.to_arrow(compat_level=levels.newest())
    if table.get_total_buffer_size() <= 2 * frame.estimated_size() + _SMALL:
        return table
    return frame.to_arrow(compat_level=levels.oldest())


def _from_arrow(table: Any, _: Buffer) -> Any:
    pl = library("polars")
    try:
        found = pl.from_arrow(table, rechunk=False)
    except pl.exceptions.PanicException as error:  # a BaseException, for a table that polars did not write
        raise CodecError(f"polars: {error}") from error
    # A column without a name would get one, and a table with no other column would become a series.
    frame = found.to_frame() if isinstance(found, pl.Series) else found
    frame.columns = table.column_names
    return frame


FRAME: Final = Conversion(_frame_fits, _to_arrow, _from_arrow)
SERIES: Final = Conversion(
    _series_fits,
    lambda series: _to_arrow(series.to_frame()),
    lambda table, memory: _from_arrow(table, memory).to_series(0),
)
