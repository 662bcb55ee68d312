from __future__ import annotations

import datetime as dt
import decimal
import io
import subprocess
import sys
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from polars.testing.parametric import dataframes

from cacheness.codecs import pandas_blocks
from cacheness.codecs.arrow import ArrowCodec
from cacheness.codecs.pickle import PickleCodec
from cacheness.errors import CodecError
from cacheness.protocols import Buffer
from cacheness.testing.contracts.codecs import CodecContract

CODEC = ArrowCodec()
TIMES = pd.to_datetime(["2026-01-01", None])


def payload(value: Any) -> bytes:
    return b"".join(CODEC.encode(value))


def zone_of(dtype: Any) -> Any:
    return getattr(dtype, "tz", None)


def same_frame(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    pd.testing.assert_frame_equal(one, other, check_exact=True, check_freq=True, check_flags=True)
    return (
        all(type(a) is type(b) for a, b in ((one.index, other.index), (one.columns, other.columns)))
        and one.columns.dtype == other.columns.dtype
        and [repr(d) for d in one.dtypes] == [repr(d) for d in other.dtypes]
        and all(type(zone_of(a)) is type(zone_of(b)) for a, b in zip(one.dtypes, other.dtypes, strict=True))
        and type(zone_of(one.index.dtype)) is type(zone_of(other.index.dtype))
        and (one.index.names, one.columns.names) == (other.index.names, other.columns.names)
        and one.attrs == other.attrs
    )


def column(cells: Any, **more: Any) -> pd.DataFrame:
    return pd.DataFrame({"a": cells}, **more)


#: Text is a type of its own in pandas 3. Before, it is in columns of objects, which do not fit, and "string" comes
#: back as an option of the process says; the names of columns are objects.
IS_PANDAS_3 = not pd.__version__.startswith("2.")
OF_TEXT = (
    column(["text", None]),
    column(pd.array(["text", None], "string[pyarrow]")),
    column([1, 2], index=["x", None]),
    pd.DataFrame({"a": np.zeros(0), "b": pd.Series([], dtype="str")}),
    column(pd.Categorical(["y", None, "x"], categories=["x", "y", "unused"], ordered=True)),
)
NAMED_BY_OBJECTS = pd.DataFrame([[1]], columns=pd.Index(["a"], dtype=object))

FRAMES = (
    column([1, 2]),
    column(np.float16([1, np.nan])),
    column([True, False]),
    column([1.5, None]),
    column([-0.0, np.inf]),
    *(column(np.array(["2026-01-01", "NaT"], f"M8[{unit}]")) for unit in ("s", "ms", "us", "ns")),
    column(np.array([1, 2], "m8[ms]")),
    column(TIMES.tz_localize(ZoneInfo("Europe/Berlin"))),
    column(TIMES.tz_localize(dt.UTC)),
    column([1, 2], index=pd.DatetimeIndex(["2026", "2020"], tz=ZoneInfo("Europe/Berlin"), name="t")),
    column([1, 2], index=pd.DatetimeIndex(["2026", "2020"], tz=dt.UTC)),
    column(pd.Categorical([2, 1])),
    column(pd.array([1, None], "Int64")),
    column(pd.array([1.5, None], "Float32")),
    column(pd.array([True, None], "boolean")),
    column([1, 2], index=pd.Index([5, 6], name="i")),
    column([1, 2], index=pd.Index([5, 6], name="a")),
    column([1, 2], index=pd.Index([1.5, np.nan])),
    column([1, 2], index=pd.RangeIndex(3, 7, 2, name="r")),
    column([1, 2]).rename_axis(columns="names"),
    pd.DataFrame({"": [1], "index": [2]}, index=[7]),
    pd.DataFrame(np.arange(12.0).reshape(3, 4), columns=list("abcd")),
    *(OF_TEXT if IS_PANDAS_3 else [NAMED_BY_OBJECTS]),
)


class Subclass(pd.DataFrame):
    pass


def with_attrs() -> pd.DataFrame:
    frame = column([1])
    frame.attrs["unit"] = ("m",)
    return frame


REFUSED_FRAMES = (
    column([object()]),
    column([{"a": 1}]),
    pd.DataFrame({"a": [1], "__index_level_0__": [2]}, index=[7]),
    column([1], index=pd.Index([7], name="__index_level_0__")),
    column(pd.array(["x"], "string[python]")),
    column(pd.array([1], "int64[pyarrow]")),
    column(np.array([1.0], ">f8")),
    column([1j]),
    column(pd.Categorical([], categories=["lost", "without", "rows"])),
    column(pd.period_range("2026", periods=2, freq="M")),
    column(pd.Categorical(pd.interval_range(0, 2))),
    column(pd.to_datetime(["2026"]).tz_localize(dt.timezone(dt.timedelta(hours=2), "named"))),
    column([1, 2], index=pd.date_range("2026", periods=2)),
    column([1, 2], index=pd.MultiIndex.from_tuples([("b", 1), ("a", 2)])),
    column([1, 2], index=pd.Index([1, 2], dtype="Int64")),
    column([1, 2], index=pd.Index([1, 2], name=("a", "tuple"))),
    pd.DataFrame([[1, 2]]),
    pd.DataFrame([[1, 2]], columns=["a", "a"]),
    pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("a", "b")])),
    pd.DataFrame(),
    pd.DataFrame(index=[1, 2]),
    with_attrs(),
    column([1]).set_flags(allows_duplicate_labels=False),
    Subclass({"a": [1]}),
    *([NAMED_BY_OBJECTS] if IS_PANDAS_3 else OF_TEXT),
)


class TestFramesOfPandas(CodecContract):
    codec = CODEC
    values = FRAMES
    refused = (*REFUSED_FRAMES, pd.Series([1]), None, 5, [1], {"a": 1}, np.arange(3))

    def same(self, one: Any, other: Any) -> bool:
        return same_frame(one, other)


@pytest.fixture
def small_columns_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of any size stay in the memory that was read."""
    monkeypatch.setattr(pandas_blocks, "_WORTHWHILE", 0)
    monkeypatch.setattr(pandas_blocks, "_LEAST_USED", 0)


@pytest.mark.usefixtures("small_columns_stay")
class TestFramesOfPandasOnTheirMemory(TestFramesOfPandas):
    pass


@pytest.mark.parametrize("make", [bytes, bytearray])
@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.usefixtures("small_columns_stay")
def test_a_decoded_frame_can_be_written_to(frame: pd.DataFrame, make: type[Buffer]) -> None:
    decoded = CODEC.decode(make(payload(frame)))
    for position in range(len(frame.columns) if len(frame) else 0):
        decoded.iloc[0, position] = decoded.iloc[-1, position]
        assert decoded.iloc[[0], position].equals(decoded.iloc[[-1], position].set_axis(decoded.index[[0]]))


ROWS = 100_000
HOURS = pd.DatetimeIndex(np.arange(ROWS).astype("M8[h]").astype("M8[s]"))
in_pandas_3 = pytest.mark.skipif(not IS_PANDAS_3, reason="before version 3, numbers of a frame are copied")


def memory_of(values: Any) -> Any:
    """The array of numbers in a column or an index, whatever pandas puts around it."""
    array = values.array
    if isinstance(array, pd.Categorical):
        return array.codes
    return np.asarray(array.view("i8") if zone_of(array) else array)


def many_columns() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "i": np.arange(ROWS),
            "x": np.arange(ROWS) / 7,
            "j": np.arange(ROWS) // 3,
            "y": -np.arange(ROWS, dtype=float),
            "s": [f"text {n}" for n in range(ROWS)],
            "t": HOURS,
            "z": HOURS.tz_localize(dt.UTC).tz_convert(ZoneInfo("Europe/Berlin")),
            "c": pd.Categorical.from_codes(np.arange(ROWS) % 3, list("zxy")),
            "b": np.arange(ROWS) % 2 == 0,
            "n": np.where(np.arange(ROWS) % 2, 1.5, np.nan),
        },
        index=pd.Index(np.arange(ROWS) * 2, name="k"),
    )


@in_pandas_3
def test_numbers_of_a_large_frame_stay_in_the_memory_that_was_read() -> None:
    frame = many_columns()
    data = bytearray(payload(frame))
    decoded = CODEC.decode(data)
    assert same_frame(decoded, frame)
    here = np.frombuffer(data, np.uint8)
    parts = {**decoded, "index": decoded.index}
    on_it = {name for name, part in parts.items() if name != "s" and np.shares_memory(memory_of(part), here)}
    assert on_it == {"i", "x", "j", "y", "t", "z", "c", "n", "index"}


@in_pandas_3
def test_columns_of_one_type_are_one_block() -> None:
    frame = pd.DataFrame({f"{kind}{n}": np.arange(ROWS, dtype=kind) + n for n in range(3) for kind in ("i8", "f8")})
    decoded = CODEC.decode(bytearray(payload(frame)))
    assert same_frame(decoded, frame)
    floats = decoded[["f80", "f81", "f82"]].to_numpy()
    assert np.array_equal(floats[1], [1.0, 2.0, 3.0])
    bases = {memory_of(decoded[name]).base.shape for name in frame}
    assert bases == {(3, ROWS)}


@in_pandas_3
def test_a_change_of_one_column_changes_no_other() -> None:
    frame = many_columns()
    data = payload(frame)
    decoded, other = CODEC.decode(bytearray(data)), CODEC.decode(bytearray(data))
    view = decoded[:]
    for name in frame:
        decoded.iloc[1:3, decoded.columns.get_loc(name)] = decoded[name].iloc[0]
        expected = frame.copy()
        expected.iloc[1:3, expected.columns.get_loc(name)] = expected[name].iloc[0]
        assert same_frame(decoded[[name]], expected[[name]])
    assert same_frame(other, frame)
    assert same_frame(view, frame)


@pytest.mark.usefixtures("small_columns_stay")
def test_a_column_can_be_added_to_a_frame_of_many_columns_with_gaps() -> None:
    frame = pd.DataFrame({f"c{n}": np.arange(4) if n % 3 else [True, False, True, True] for n in range(400)})
    decoded = CODEC.decode(bytearray(payload(frame)))
    assert same_frame(decoded, frame)
    decoded["new"] = 1  # pandas warns of too many blocks


@pytest.mark.parametrize("made", ["small", "large"])
@pytest.mark.parametrize("labels", [np.arange(ROWS), HOURS, HOURS - HOURS[0]])
def test_a_series_made_of_an_index_can_be_written_to(labels: Any, made: str) -> None:
    index = pd.Index(labels[: 3 if made == "small" else ROWS])
    if hasattr(index, "freq"):
        index.freq = None
    labels_read = pd.Series(CODEC.decode(bytearray(payload(column(np.arange(len(index)), index=index)))).index)
    labels_read.iloc[0] = labels_read.iloc[1]
    assert labels_read.iloc[0] == index[1]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_numbers_that_are_none_keep_their_bytes(dtype: str) -> None:
    values = np.array([1.5, np.nan, -np.nan, np.nan], dtype)
    values.view(f"u{values.itemsize}")[3] ^= 1  # another payload
    decoded = CODEC.decode(bytearray(payload(pd.DataFrame({"a": values, "b": [1, 2, 3, 4]}))))
    assert decoded["a"].to_numpy().tobytes() == values.tobytes()


@in_pandas_3
def test_a_frame_that_needs_little_of_the_memory_is_copied() -> None:
    times = pd.Series(HOURS).where(np.arange(ROWS) % 2 == 0)  # with nulls, which are filled in a copy
    frame = pd.DataFrame({"n": times, "m": np.arange(ROWS).astype("i1")})
    data = bytearray(payload(frame))
    decoded = CODEC.decode(data)
    assert same_frame(decoded, frame)
    assert not np.shares_memory(memory_of(decoded["m"]), np.frombuffer(data, np.uint8))


@pytest.mark.parametrize("frame", REFUSED_FRAMES[2:])
def test_a_frame_that_arrow_refuses_goes_by_pickle_just_as_it_was(frame: pd.DataFrame) -> None:
    decoded = PickleCodec().decode(b"".join(PickleCodec().encode(frame)))
    assert same_frame(decoded, frame)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
CELLS: dict[str, st.SearchStrategy[Any]] = {
    "int8": st.integers(-128, 127),
    "uint64": st.integers(0, 2**64 - 1),
    "float32": st.floats(width=32),
    "float64": st.none() | st.floats(),
    "bool": st.booleans(),
    "datetime64[ns]": st.none() | st.integers(-(10**18), 10**18),
    "timedelta64[s]": st.none() | st.timedeltas(dt.timedelta(-999), dt.timedelta(999)),
    "Int64": st.none() | st.integers(-(2**63), 2**63 - 1),
    "boolean": st.none() | st.booleans(),
}
CELLS_OF_TEXT = dict.fromkeys(("str", "string", "string[pyarrow]"), st.none() | TEXT)
CELLS_OF_TEXT["category"] = st.none() | st.sampled_from("xyz")
REFUSED_CELLS: dict[str, st.SearchStrategy[Any]] = {"object": st.none() | TEXT | st.integers(), ">f8": st.floats()}
(CELLS if IS_PANDAS_3 else REFUSED_CELLS).update(CELLS_OF_TEXT)
NAMES = st.none() | TEXT


@st.composite
def frames(draw: st.DrawFn, cells: dict[str, st.SearchStrategy[Any]]) -> pd.DataFrame:
    length = draw(st.integers(0, 4))
    columns = {}
    for name in draw(st.lists(TEXT, min_size=1, max_size=3, unique=True)):
        dtype = draw(st.sampled_from(sorted(cells)))
        values = draw(st.lists(cells[dtype], min_size=length, max_size=length))
        columns[name] = pd.Series(values, dtype=pd.CategoricalDtype(list("zxy")) if dtype == "category" else dtype)
    frame = pd.DataFrame(columns, index=pd.RangeIndex(length))
    if draw(st.booleans()):
        labels = draw(st.lists(st.integers(-9, 9), min_size=length, max_size=length))
        frame = frame.set_axis(pd.Index(labels, dtype="int64"))
    frame.index.name, frame.columns.name = draw(NAMES), draw(NAMES)
    return frame


@pytest.mark.slow
@pytest.mark.usefixtures("small_columns_stay")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(frames(CELLS), st.sampled_from([bytes, bytearray]))
def test_any_frame_of_plain_columns_comes_back_exactly(frame: pd.DataFrame, make: type[Buffer]) -> None:
    assume(len(frame) or "category" not in frame.dtypes.to_list())
    assert CODEC.accepts(frame)
    assert same_frame(CODEC.decode(make(payload(frame))), frame)


@pytest.mark.slow
@given(frames(CELLS | REFUSED_CELLS), st.booleans())
def test_any_frame_that_is_accepted_comes_back_exactly(frame: pd.DataFrame, turned: bool) -> None:
    frame = frame.T if turned else frame
    if CODEC.accepts(frame):
        assert same_frame(CODEC.decode(payload(frame)), frame)


def test_a_frame_opens_with_any_reader_of_feather() -> None:
    frame = column(["x", None], index=pd.Index([5, 6], name="i"))
    pd.testing.assert_frame_equal(pd.read_feather(io.BytesIO(payload(frame))), frame)
    assert pl.read_ipc(payload(pl.DataFrame({"a": ["x", None]})))["a"].to_list() == ["x", None]


def test_numbers_of_a_frame_are_encoded_without_a_copy() -> None:
    cells = np.arange(5000.0)
    parts = CODEC.encode(pd.DataFrame({"a": cells}, copy=False))
    assert any(np.shares_memory(np.frombuffer(part, np.uint8), cells) for part in parts if len(part) > 1000)


# polars


POLARS = (
    pl.DataFrame({"a": [1, None], "b": ["text", "a text longer than twelve letters"], "c": [[1], None]}),
    pl.DataFrame({"a": pl.Series(["x", "y", None], dtype=pl.Categorical)}),
    pl.DataFrame({"a": pl.Series(["x", None], dtype=pl.Enum(["y", "x"]))}),
    pl.DataFrame({"a": [dt.datetime(2026, 1, 1, tzinfo=dt.UTC)], "b": [dt.time(1)], "c": [decimal.Decimal("1.20")]}),
    pl.DataFrame({"a": [{"x": 1, "y": [b"z"]}, None]}),
    pl.DataFrame({"a": []}),
    pl.DataFrame(),
    pl.concat([pl.DataFrame({"a": ["x"]}), pl.DataFrame({"a": [None]}, schema={"a": pl.String})], rechunk=False),
    pl.DataFrame({"": [1]}),
    pl.Series("name", [1.5, None]),
    pl.Series([]),
    pl.Series([], dtype=pl.Enum(["not", "lost"])),
)


def same_polars(one: Any, other: Any) -> bool:
    if isinstance(other, pl.Series):
        return type(one) is pl.Series and one.name == other.name and same_polars(one.to_frame(), other.to_frame())
    pl.testing.assert_frame_equal(one, other, check_exact=True)
    return one.schema == other.schema


class TestFramesOfPolars(CodecContract):
    codec = CODEC
    values = POLARS
    refused = (
        pl.DataFrame({"a": [object()]}),
        pl.DataFrame({"a": [1 << 100]}, schema={"a": pl.Int128}),
        pl.concat([pl.DataFrame({"a": pl.Series([x], dtype=pl.Categorical)}) for x in "xy"], rechunk=False),
        pl.LazyFrame({"a": [1]}),
    )

    def same(self, one: Any, other: Any) -> bool:
        return same_polars(one, other)


@pytest.mark.slow
@given(dataframes(excluded_dtypes=[pl.Object], max_cols=3, max_size=4))
def test_any_frame_of_polars_comes_back_exactly(frame: pl.DataFrame) -> None:
    if CODEC.accepts(frame):
        assert same_polars(CODEC.decode(payload(frame)), frame)


# pyarrow


def schema_with_notes() -> pa.Schema:
    return pa.schema([pa.field("a", pa.int64(), nullable=False, metadata={"k": "v"})], metadata={"s": "m"})


ARROW = (
    pa.table({"a": [1, None], "b": ["x", None]}),
    pa.table({"a": pa.chunked_array([["x"], [], ["y", None]])}),
    pa.table({"a": list(range(100)), "b": [str(i) for i in range(100)]}).slice(13, 40),
    pa.table({}),
    pa.table([pa.array([1]), pa.array([2])], names=["same", "same"]),
    pa.table([pa.array([1])], schema=schema_with_notes()),
    pa.table({"a": pa.array(["x", "y", "x"]).dictionary_encode()}),
    pa.table({"a": pa.array([[("k", [1])]], pa.map_(pa.string(), pa.list_(pa.int8())))}),
    pa.table({"a": pa.array(["x" * 30, None], pa.string_view())}),
    pa.table({"a": pa.RunEndEncodedArray.from_arrays([2, 3], ["x", "y"])}),
    pa.record_batch({"a": [1, 2]}),
    pa.record_batch({"a": pa.array([], pa.int8())}),
    pa.chunked_array([[1], [2, None]]),
    pa.chunked_array([], pa.string()),
)


class TestTablesOfArrow(CodecContract):
    codec = CODEC
    values = ARROW
    refused = (
        pa.table({"a": pa.chunked_array([pa.array([x]).dictionary_encode() for x in "xy"])}),
        pa.table({"a": pa.array([b"0" * 16], pa.uuid())}),
        pa.record_batch([], names=[]),
        pa.array([1]),
        pa.scalar(1),
    )

    def same(self, one: Any, other: Any) -> bool:
        notes = one.schema.equals(other.schema, check_metadata=True) if hasattr(other, "schema") else True
        return type(one) is type(other) and one.equals(other) and notes


def test_tables_are_encoded_without_a_copy() -> None:
    table = pa.table({"a": np.arange(5000.0)})
    cells = np.frombuffer(table["a"].chunk(0).buffers()[1], np.uint8)
    assert any(
        np.shares_memory(np.frombuffer(part, np.uint8), cells) for part in CODEC.encode(table) if len(part) > 999
    )


def test_a_table_read_from_a_blob_by_other_means_is_left_to_pickle() -> None:
    assert not CODEC.accepts(pa.ipc.open_file(payload(pa.table({"a": [1]}))).read_all())


def test_a_table_of_unknown_kind_is_an_error() -> None:
    stored = payload(pa.table({"a": [1]})).replace(b"pyarrow.Table", b"pyarrow.Tible")
    with pytest.raises(CodecError, match="Tible"):
        CODEC.decode(stored)


def test_offsets_that_lead_astray_are_noticed_before_they_are_followed() -> None:
    table = pa.table({"a": ["abcdefgh"] * 8})
    stored = bytearray(payload(table))
    offsets = bytes(table["a"].chunk(0).buffers()[1])
    place = stored.index(offsets)
    stored[place + 4 : place + 8] = (1 << 30).to_bytes(4, "little")
    with pytest.raises(CodecError):
        CODEC.decode(stored)


@pytest.mark.slow
def test_asking_whether_a_value_is_a_frame_imports_nothing() -> None:
    code = (
        "import sys; from cacheness.codecs.arrow import ArrowCodec; from cacheness.codecs.numpy import NumpyCodec\n"
        "class DataFrame: pass\n"
        "assert not any(codec.accepts(x) for codec in (ArrowCodec(), NumpyCodec()) for x in ([], DataFrame(), None))\n"
        "assert not {'numpy', 'pandas', 'polars', 'pyarrow', 'cloudpickle', 'zstandard'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["pyarrow", "pandas"])
def test_without_the_library_an_error_names_it(missing: str) -> None:
    stored = payload(column([1]))
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from cacheness.codecs.arrow import ArrowCodec; from cacheness.errors import MissingExtra\n"
        f"try: ArrowCodec().decode({stored!r})\n"
        "except MissingExtra as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert missing in said
    assert f"pip install {missing}" in said


LONG = pa.table(
    {
        "number": np.arange(100_000),
        "text": ["a text of some length"] * 100_000,
        "list": [[1, 2]] * 100_000,
        "word": pa.array(["x", "y"] * 50_000).dictionary_encode(),
    }
)
FEW = {
    "table": LONG.slice(5, 3),
    "batch": LONG.to_batches()[0].slice(5, 3),
    "column": LONG.column("text").slice(5, 3),
    "array": LONG.column("list").chunk(0).slice(5, 3),
    "words": LONG.column("word").chunk(0).slice(5, 3),
    "nothing": LONG.column("text").chunk(0).slice(5, 0),
    "no rows": LONG.to_batches()[0].slice(5, 0),
}


@pytest.mark.parametrize("name", FEW)
def test_a_few_rows_of_a_large_table_are_pickled_small(name: str) -> None:
    codec, value = PickleCodec(), {"within": [FEW[name]]}
    encoded = b"".join(codec.encode(value))
    assert len(encoded) < 4000
    found = codec.decode(bytearray(encoded))["within"][0]
    assert type(found) is type(FEW[name])
    assert found.equals(FEW[name])
    if isinstance(found, pa.Table):
        assert found.schema.equals(FEW[name].schema, check_metadata=True)


@pytest.mark.slow
def test_a_few_rows_of_a_large_frame_of_polars_are_stored_small() -> None:
    frame = pl.DataFrame(
        {"s": ["a text that does not fit into a view"] * 100_000, "l": [["one of some length"]] * 100_000}
    )
    for few in (frame[:3], frame["s"][7:9], frame.tail(2)):
        assert len(payload(few)) < 4000
        assert CODEC.decode(bytearray(payload(few))).equals(few)
