"""Decide which frames of pandas are stored as Arrow tables, and convert them.

Arrow distinguishes a null from a NaN and a column's cells from its dtype, and pandas stores the
rest in the schema's metadata. Frames that lose something there, or change, are not accepted: this
module lists what was tested to come back unchanged.
"""

from __future__ import annotations

from datetime import UTC
from typing import Any, Final

from cacheness.codecs.libraries import library
from cacheness.codecs.pandas_blocks import frame_on
from cacheness.codecs.tables import Conversion
from cacheness.protocols import Buffer

#: Arrow gives an index without a name such a column, and before version 26 mistook a column of the
#: frame with such a name for it.
_RESERVED: Final = "__index_level_"
_NUMPY_KINDS: Final = frozenset("biumM")
_FLOATS: Final = frozenset({"float16", "float32", "float64"})
_MASKED: Final = frozenset(
    {
        *("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64"),
        *("Float32", "Float64", "boolean"),
    }
)


def _fits(frame: Any) -> bool:
    plain = not frame.attrs and frame.flags.allows_duplicate_labels
    return (
        plain
        and _header_fits(frame.columns)
        and _index_fits(frame.index)
        and all(_column_fits(dtype, has_rows=len(frame) > 0) for dtype in frame.dtypes)
    )


def _header_fits(columns: Any) -> bool:
    """Unique texts. Numbers and tuples would come back as texts."""
    pd = library("pandas")
    return (
        type(columns) is pd.Index
        and len(columns) > 0
        and columns.dtype == _text_dtype()
        and columns.inferred_type == "string"
        and not columns.hasnans
        and columns.is_unique
        and not any(name.startswith(_RESERVED) for name in columns)
        and _name_fits(columns.name)
    )


def _index_fits(index: Any) -> bool:
    """One level, and no frequency: a MultiIndex loses the order of its levels, and a frequency is not stored."""
    pd = library("pandas")
    if not _name_fits(index.name):
        return False
    if type(index) in {pd.DatetimeIndex, pd.TimedeltaIndex}:
        return index.freq is None and _column_fits(index.dtype, has_rows=True)
    return type(index) is pd.RangeIndex or (type(index) is pd.Index and _plain(index.dtype))


def _name_fits(name: Any) -> bool:
    return name is None or (type(name) is str and not name.startswith(_RESERVED))


def _column_fits(dtype: Any, *, has_rows: bool) -> bool:
    pd = library("pandas")
    if isinstance(dtype, pd.DatetimeTZDtype):
        return dtype.tz is UTC or (type(dtype.tz) is library("zoneinfo").ZoneInfo and dtype.tz.key not in {None, "UTC"})
    if isinstance(dtype, pd.CategoricalDtype):
        categories = dtype.categories
        # Categories are stored with the rows: without rows they would be lost.
        return has_rows and type(categories) is pd.Index and categories.name is None and _plain(categories.dtype)
    if isinstance(dtype, pd.StringDtype):
        # Before pandas 3, such a column comes back as an option of the process has it, which is Python's own texts.
        return bool(dtype.storage == "pyarrow") and not pd.__version__.startswith("2.")
    return _plain(dtype) or (pd.api.types.is_extension_array_dtype(dtype) and dtype.name in _MASKED)


def _plain(dtype: Any) -> bool:
    """Numbers, booleans and times in numpy's arrays; texts in pandas' default type."""
    if isinstance(dtype, library("numpy").dtype):
        return dtype.isnative and (dtype.kind in _NUMPY_KINDS or dtype.name in _FLOATS)
    return bool(dtype == _text_dtype())


def _text_dtype() -> Any:
    """The type that pandas gives a list of texts: objects before pandas 3, which do not fit in a column."""
    return library("pandas").Index(["text"]).dtype


def _to_arrow(frame: Any) -> Any:
    pa, np = library("pyarrow"), library("numpy")
    table = pa.Table.from_pandas(frame)
    for position, dtype in enumerate(frame.dtypes):
        if isinstance(dtype, np.dtype) and dtype.kind == "f" and table.column(position).null_count:
            # Arrow takes NaN for a null, and a null has neither a sign nor a payload.
            values = pa.array(frame.iloc[:, position].to_numpy(), from_pandas=False)
            table = table.set_column(position, table.schema.field(position), values)
    return table


def _from_arrow(table: Any, memory: Buffer) -> Any:
    frame = frame_on(table, memory)
    return _in_our_zones(_copied(table) if frame is None else frame)


def _copied(table: Any) -> Any:
    pd, np = library("pandas"), library("numpy")
    frame = table.to_pandas()
    # Only categories and the index still use Arrow's memory after decoding, and would be read-only.
    for position, dtype in enumerate(frame.dtypes):
        if isinstance(dtype, pd.CategoricalDtype):
            frame.isetitem(position, frame.iloc[:, position].copy())
    if isinstance(frame.index.dtype, np.dtype) and type(frame.index) is not pd.RangeIndex:
        frame.index = frame.index.copy(deep=True)
    return frame


def _in_our_zones(frame: Any) -> Any:
    pd = library("pandas")
    for position, dtype in enumerate(frame.dtypes):
        if isinstance(dtype, pd.DatetimeTZDtype):
            frame.isetitem(position, frame.iloc[:, position].dt.tz_convert(_zone_called(dtype.tz)))
    if isinstance(frame.index.dtype, pd.DatetimeTZDtype):
        frame.index = frame.index.tz_convert(_zone_called(frame.index.dtype.tz))
    return frame


def _zone_called(read: Any) -> Any:
    """The zone that was written. Arrow reads UTC as a ZoneInfo, or all as zones of pytz, which count otherwise."""
    return UTC if str(read) == "UTC" else library("zoneinfo").ZoneInfo(str(read))


FRAME: Final = Conversion(_fits, _to_arrow, _from_arrow)
