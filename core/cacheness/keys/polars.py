"""How the frames and series of polars are encoded: names, types, and values through Arrow."""

from __future__ import annotations

import polars as pl

from cacheness.keys.arrow import add_chunks
from cacheness.keys.encode import Encoder, handles, handles_family


@handles(pl.DataFrame)
def _frame(encoder: Encoder, value: pl.DataFrame) -> None:
    if (start := encoder.enter(value)) >= 0:
        encoder.tagged("polars frame", value.height, value.columns)
        for column in value.iter_columns():
            encoder.step(f"[{column.name!r}]", column)
        encoder.leave(value, start)


@handles(pl.Series)
def _series(encoder: Encoder, value: pl.Series) -> None:
    encoder.tagged("polars series", value.name, value.dtype)
    if value.dtype == pl.Object:
        encoder.step("", value.to_list())
    else:
        array = value.to_arrow()
        add_chunks(encoder, [array], array.type)


@handles_family(lambda kind: issubclass(kind, pl.DataType) or kind is type(pl.DataType))
def _type(encoder: Encoder, value: pl.DataType) -> None:
    encoder.tagged("polars type", str(value))
