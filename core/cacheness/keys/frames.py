"""How the frames, series and times of pandas are encoded: labels, types and values, column by column."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cacheness.keys.arrays import add_array
from cacheness.keys.encode import Encoder, handles, handles_family
from cacheness.keys.trace import Unencodable


@handles(pd.DataFrame)
def _frame(encoder: Encoder, value: pd.DataFrame) -> None:
    if (start := encoder.enter(value)) >= 0:
        _add_notes(encoder, value)
        encoder.tagged("DataFrame", value.columns, value.index)
        for at in range(value.shape[1]):
            encoder.step(f"[{value.columns[at]!r}]", value.iloc[:, at].array)
        encoder.leave(value, start)


@handles(pd.Series)
def _series(encoder: Encoder, value: pd.Series[Any]) -> None:
    if (start := encoder.enter(value)) >= 0:
        _add_notes(encoder, value)
        encoder.tagged("Series", value.name, value.index, value.array)
        encoder.leave(value, start)


def _add_notes(encoder: Encoder, value: pd.DataFrame | pd.Series[Any]) -> None:
    """Open a value around a frame that carries more than its labels and values, as few do."""
    if value.attrs or not value.flags.allows_duplicate_labels:
        encoder.open("noted", 3)
        encoder.step(".attrs", value.attrs)
        encoder.add(value.flags.allows_duplicate_labels)


@handles_family(lambda kind: issubclass(kind, pd.Index))
def _index(encoder: Encoder, value: pd.Index[Any]) -> None:
    if isinstance(value, pd.RangeIndex):
        encoder.tagged("RangeIndex", value.name, value.start, value.stop, value.step)
    elif isinstance(value, pd.MultiIndex):
        encoder.tagged("MultiIndex", list(value.names), list(value.levels), [np.asarray(code) for code in value.codes])
    else:
        frequency = getattr(value, "freqstr", None)
        encoder.tagged("Index", type(value).__name__, value.name, frequency, value.array)


@handles_family(lambda kind: issubclass(kind, pd.api.extensions.ExtensionArray))
def _column(encoder: Encoder, value: Any) -> None:
    if isinstance(value, pd.arrays.NumpyExtensionArray):
        encoder.open("column", 1)
        add_array(encoder, value.to_numpy())
    elif isinstance(value, pd.Categorical):
        encoder.tagged("categories", value.categories, value.ordered, value.codes)
    elif isinstance(value, (pd.arrays.DatetimeArray, pd.arrays.TimedeltaArray, pd.arrays.PeriodArray)):
        encoder.tagged("times", str(value.dtype), value.view("i8"))
    elif isinstance(value, pd.arrays.IntervalArray):
        encoder.tagged("intervals", value.closed, value.left, value.right)
    elif isinstance(value, pd.arrays.SparseArray):
        encoder.tagged("sparse", str(value.dtype), len(value), value.sp_index.indices, value.sp_values)
    elif hasattr(value, "__arrow_array__"):
        encoder.tagged("extension", type(value.dtype).__name__, str(value.dtype), value.__arrow_array__())
    else:
        raise Unencodable(f"a column of type {value.dtype}, which has no __arrow_array__")


@handles(pd.Timestamp)
def _timestamp(encoder: Encoder, value: pd.Timestamp) -> None:
    encoder.tagged("Timestamp", value.asm8.view("i8").item(), value.unit, value.tzinfo)


@handles(pd.Timedelta)
def _timedelta(encoder: Encoder, value: pd.Timedelta) -> None:
    encoder.tagged("Timedelta", value.asm8.view("i8").item(), value.unit)


@handles(type(pd.NaT), type(pd.NA))
def _nothing(encoder: Encoder, value: Any) -> None:
    encoder.tagged("NaT" if value is pd.NaT else "NA")
