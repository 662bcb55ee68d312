"""The digest that a result has as an argument is kept beside it, where nothing but the value decides it."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import json
import pathlib
import re
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cacheness import UnifiedCache
from cacheness.codecs.compression import decompress
from cacheness.keys import Inputs, closed_digest, digest_of, make_key, register
from cacheness.keys.closed import MOST_NODES
from cacheness.results.store import PutDetails
from tests.keys.corpus import IS_PANDAS_3, values

NAMES = ["a", "b"]
PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.complex_numbers(), st.text(), st.binary(),
    st.decimals(), st.dates(), st.times(), st.datetimes(), st.timedeltas(), st.uuids(), st.fractions(),
)  # fmt: skip
NESTED = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.tuples(inner, inner), st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=10,
)
FRAMES: dict[str, Any] = {
    "strings": pd.DataFrame({"s": ["x", None, "z"]}),
    "objects": pd.DataFrame({"o": pd.Series(["x", 1, None], dtype=object)}),
    "nullable": pd.DataFrame({"i": pd.array([1, None], dtype="Int64"), "b": pd.array([True, None], dtype="boolean")}),
    "arrow": pd.DataFrame({"i": pd.array([1, None], dtype="int64[pyarrow]")}),
    "zones": pd.DataFrame({"t": pd.date_range("2024", periods=3, tz="Europe/Berlin")}),
    "in UTC": pd.DataFrame({"t": pd.to_datetime(["2024"]).tz_localize(dt.UTC)}),
    "index in UTC": pd.DataFrame({"x": [1, 2]}, index=pd.DatetimeIndex(["2026", "2020"], tz=dt.UTC)),
    "named index": pd.DataFrame({"x": [1.0, 2.0]}, index=pd.Index(["p", "q"], name="k")),
    "multi columns": pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])),
    "noted": pd.DataFrame({"x": [1]}),
    "periods": pd.Series(pd.period_range("2024-01", periods=2, freq="M")),
    "intervals": pd.Series(pd.interval_range(0, 3)),
    "frequency": pd.Series([1, 2, 3], index=pd.date_range("2024", periods=3, freq="D")),
    "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "strided": np.arange(20)[::3],
    "big endian": np.arange(3, dtype=">i4"),
    "masked": np.ma.array([1, 2, 3], mask=[0, 1, 0]),
    "zero-dimensional": np.array(3.5),
    "read only": np.broadcast_to(np.arange(3), (2, 3)),
    "void": np.zeros(2, dtype="V3"),
    "lazy": pl.Series("s", [[1, 2], None]),
    "categories of polars": pl.Series("c", ["x", "y", "x"], dtype=pl.Categorical),
    "chunks": pa.chunked_array([[1, 2], [3]]),
    "dictionary": pa.array(["x", "y", "x"]).dictionary_encode(),
    "batch": pa.record_batch({"x": [1, 2]}),
    "in a dict": {"frame": pd.DataFrame({"x": [1]}), "array": np.arange(3), "list": [np.float32(1.5)]},
    "pattern": re.compile("a+", re.IGNORECASE),
    "fold": dt.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=dt.UTC),
}  # fmt: skip
FRAMES["noted"].attrs["unit"] = "m"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with UnifiedCache(tmp_path_factory.mktemp("closed")) as cache:
        yield cache


def check(cache: UnifiedCache, value: Any) -> bool:
    """That the kept digest, where there is one, is that of the loaded value as an argument; whether there is one."""
    draft = cache._store.draft(cache.key(x="here"), value, PutDetails())  # stored and loaded, without the disk
    data = decompress(b"".join(draft.buffers), draft.entry.codec, draft.entry.raw_size)
    kept, loaded = draft.entry.value, cache._store._decoder(draft.entry).decode(bytearray(data))
    if kept is not None:
        assert kept == closed_digest(loaded) == digest_of(loaded, inputs=Inputs())
        argument = json.loads(make_key(args={"x": loaded}, function=check).components)["args"]["x"][0]
        assert argument == kept.hex()[:16]
    return kept is not None


#: Of the corpus, what has none: code, files, what leads to them, and too many members.
OPEN = {
    "long list",
    "default",
    "digest",
    "type",
    "function",
    "exception",
    "flag",
    "path",
    "directory",
    "file",
    "glob",
    "periods",
    # Before pandas 3, zones are objects of pytz, whose version counts.
    *(() if IS_PANDAS_3 else ("zones",)),
}


def test_what_is_kept_is_the_digest_that_the_loaded_value_has(cache: UnifiedCache, tmp_path: pathlib.Path) -> None:
    corpus = values(tmp_path) | FRAMES
    assert {name for name, value in corpus.items() if not check(cache, value)} == OPEN


@given(NESTED)
@settings(max_examples=50, deadline=None)
def test_it_is_so_for_any_plain_value(cache: UnifiedCache, value: Any) -> None:
    check(cache, value)


@dataclasses.dataclass
class Point:
    x: int


class Text(str):
    __slots__ = ()


class Pair(NamedTuple):
    first: int


class Keyed:
    def __cacheness_key__(self) -> int:
        return 1


class Registered:
    pass


register(Registered, id)


@pytest.mark.parametrize(
    "value",
    [
        Point(1), [Point(1)], {"p": (Point(1),)}, Text("x"), Keyed(), Registered(), len, print, Point, json, check,
        np.array([Point(1)], dtype=object), pd.DataFrame({"o": [Point(1), len]}), pathlib.Path("nowhere"), "data/x.csv",
        ["table.parquet"], {"name": "file:/a"}, collections.defaultdict(check), Pair(1),
        pl.DataFrame({"o": pl.Series([Point(1)], dtype=pl.Object)}), np.ufunc, np.sin,
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_code_files_libraries_or_users_decide_has_none(value: Any) -> None:
    assert closed_digest(value) is None


def test_a_dict_key_or_a_text_in_a_frame_names_no_file() -> None:
    assert closed_digest({"data/x.csv": 1}) is not None
    assert closed_digest(pd.DataFrame({"s": ["data/x.csv"]})) is not None


def test_many_members_have_none_unless_asked_for(cache: UnifiedCache) -> None:
    few, many = list(range(MOST_NODES)), [list(range(MOST_NODES // 2)), list(range(MOST_NODES // 2))]
    assert closed_digest(few) is not None
    assert closed_digest(many) is None
    assert cache.put(many, x=1).value is None
    assert cache.put(many, x=1, by_value=True).value == digest_of(many)
    assert cache.put(few, x=1, by_value=False).value is None
    wide = pd.DataFrame(np.zeros((1, MOST_NODES + 1)))
    assert closed_digest(wide) is None
    assert closed_digest(wide, None) == digest_of(wide)
    assert closed_digest(np.array(["x"] * 300, dtype=object)) is None


def test_a_decorated_function_says_so(cache: UnifiedCache) -> None:
    @cache.cached(by_value=True)
    def many() -> list[int]:
        return list(range(1000))

    many()
    (entry,) = cache.iter_entries(function=many.__wrapped__)
    assert entry.value == digest_of(list(range(1000)))


def test_a_value_that_was_changed_after_its_put_keeps_its_digest(cache: UnifiedCache) -> None:
    value = [1]
    with cache.write_batch():
        cache.put(value, x="changed")
        value.append(2)
    assert cache.lookup(x="changed").entry.value == digest_of([1])  # type: ignore[union-attr]
