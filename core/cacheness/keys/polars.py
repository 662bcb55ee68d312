"""How the frames and series of polars are encoded: names, types, and values through Arrow."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from typing import Any

import polars as pl

from cacheness.keys.arrow import add_chunks
from cacheness.keys.encode import Encoder, handles, handles_family
from cacheness.keys.files import File, add_path, local_path
from cacheness.keys.objects import instance
from cacheness.keys.trace import Unencodable


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


@handles(pl.LazyFrame)
def _lazy(encoder: Encoder, value: pl.LazyFrame) -> None:
    files = list(_sources_in(_plan_of(value)))
    encoder.open("polars lazy frame", 1 + len(files))
    instance(encoder, value)
    for path in files:
        local = local_path(path)
        if local is None or any(c in local for c in "*?["):
            encoder.add(File(path))
        else:
            add_path(encoder, local)


def _plan_of(value: pl.LazyFrame) -> Any:
    try:
        with warnings.catch_warnings():
            # The binary form is for polars alone; what is read of this one is checked.
            warnings.simplefilter("ignore")
            return json.loads(value.serialize(format="json"))
    except (pl.exceptions.PolarsError, TypeError, ValueError, NotImplementedError) as error:
        raise Unencodable(f"a lazy frame whose plan cannot be read ({error}): collect it first") from error


def _sources_in(plan: Any) -> Iterator[str]:
    """The files that a plan reads."""
    if isinstance(plan, list):
        for part in plan:
            yield from _sources_in(part)
    elif isinstance(plan, dict):
        if "PythonScan" in plan:
            raise Unencodable("a lazy frame that reads by a function of Python's: collect it first")
        for name, part in plan.items():
            if name == "Scan" and isinstance(part, dict):
                yield from _paths_of(part.get("sources"))
            yield from _sources_in(part)


def _paths_of(sources: Any) -> Iterator[str]:
    paths = sources.get("Paths") if isinstance(sources, dict) else None
    if paths is None:
        if isinstance(sources, dict) and "Buffers" in sources:
            return  # bytes in memory, which are part of the plan
        raise Unencodable("a lazy frame whose files cannot be seen: collect it first")
    for path in paths:
        text = path.get("inner") if isinstance(path, dict) else path
        if not isinstance(text, str):
            raise Unencodable(f"a lazy frame that reads {path!r:.80}, whose content cannot be seen")
        yield text
