"""Arrays, frames and tables: by what they say, whatever their layout; at memory speed, without copies."""
# ruff: noqa: DTZ001, E501, FLY002 - tables of values; wide lines read better here

from __future__ import annotations

import datetime as dt
import itertools
import sys
import tracemalloc
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cacheness import UnhashableArgument
from cacheness.keys import digest_of
from tests.keys.corpus import TEXT_WITH_NAN

A = np.arange(12.0).reshape(3, 4)

SAME: dict[str, tuple[Any, Any]] = {
    "C and F order": (A, np.asfortranarray(A)),
    "a view and a copy": (A[::2, ::3], A[::2, ::3].copy()),
    "a transpose and a copy of it": (A.T, np.ascontiguousarray(A.T)),
    "reversed twice": (A, A[::-1][::-1]),
    "NaN of either sign": (np.array([np.nan, 1.0]), np.array([-np.nan, 1.0])),
    "NaN in complex numbers": (np.array([complex(np.nan, 1)]), np.array([complex(-np.nan, 1)])),
    "large in either order": (np.arange(600_000.0).reshape(600, 1000), np.asfortranarray(np.arange(600_000.0).reshape(600, 1000))),
    "struct with and without padding bytes": (
        np.zeros(2, np.dtype([("a", "i1"), ("b", "f8")], align=True)),
        np.frombuffer(b"\0" + b"\7" * 7 + b"\0" * 9 + b"\7" * 7 + b"\0" * 8, np.dtype([("a", "i1"), ("b", "f8")], align=True)),
    ),
    "long doubles": (np.ones(3, "g"), np.linspace(1, 1, 3).astype("g")),
    "texts made in different ways": (np.array(["a", "b"], object), np.array(["".join(["a"]), "b"], object)),
    "frames of other blocks": (pd.DataFrame({"a": [1.0], "b": [2.0]}), pd.DataFrame(np.array([[1.0, 2.0]]), columns=["a", "b"])),
    "a part of a frame and a copy": (pd.DataFrame({"a": [1, 2, 3], "s": list("xyz")})[1:], pd.DataFrame({"a": [1, 2, 3], "s": list("xyz")})[1:].copy()),
    "arrow sliced": (pa.array([1, None, 3, 4])[1:], pa.array([None, 3, 4])),
    "arrow chunked": (pa.chunked_array([["a", None], ["bc"]]), pa.chunked_array([["a"], [None, "bc"], []], pa.string())),
    "arrow bools sliced": (pa.array([True, None, False, True] * 5)[3:], pa.array(([True, None, False, True] * 5)[3:])),
    "arrow lists sliced": (pa.array([[1], None, [2, 3]])[1:], pa.array([None, [2, 3]])),
    "arrow structs sliced": (pa.array([{"a": 1}, None, {"a": None}])[1:], pa.array([None, {"a": None}], pa.struct([("a", pa.int64())]))),
    "arrow nulls over garbage": (
        pa.Array.from_buffers(pa.int64(), 2, [pa.py_buffer(b"\1"), pa.py_buffer(np.array([1, 99]))]),
        pa.array([1, None]),
    ),
    "arrow maps sliced": (pa.array([[("k", 1)], [("l", 2)]], pa.map_(pa.string(), pa.int64()))[1:], pa.array([[("l", 2)]], pa.map_(pa.string(), pa.int64()))),
    "arrow string views": (pa.array(["a" * 20, "b", None], pa.string_view())[1:], pa.array(["b", None], pa.string_view())),
    "arrow NaN": (pa.array([float("nan")]), pa.array([-float("nan")])),
    "arrow run ends": (pa.RunEndEncodedArray.from_arrays([2, 3], [1, 2]), pa.RunEndEncodedArray.from_arrays([1, 2, 3], [1, 1, 2])),
    "tables in batches": (pa.concat_tables([pa.table({"a": [1]}), pa.table({"a": [2]})]), pa.table({"a": [1, 2]})),
    "polars in chunks": (pl.concat([pl.DataFrame({"a": ["x"]})] * 2, rechunk=False), pl.DataFrame({"a": ["x", "x"]})),
    "polars sliced": (pl.Series("a", ["x", None, "zz"])[1:], pl.Series("a", [None, "zz"])),
    "sparse, looked at or not": (sp.csr_array(np.eye(3)), _looked := sp.csr_array(np.eye(3))),
    "xarray copied": (xr.DataArray(A, dims=("x", "y"), coords={"x": [1, 2, 3]}), xr.DataArray(A, dims=("x", "y"), coords={"x": [1, 2, 3]}).copy(deep=True)),
    "generators of one seed": (np.random.default_rng(1), np.random.default_rng(1)),
    "a memory map's values": (np.arange(3), np.arange(3)),
}  # fmt: skip
_ = _looked.has_canonical_format


def noted(value: Any, **attrs: Any) -> Any:
    value.attrs.update(attrs)
    return value


DIFFERENT: list[Any] = [
    noted(pd.Series([1, 2]), u="m"), noted(pd.Series([1, 2]), u="s"), noted(pd.DataFrame({"a": [1]}), u="m"), noted(pd.DataFrame({"a": [1]}), u="s"),
    pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [1]}).set_flags(allows_duplicate_labels=False), pd.Series([1, 2]).set_flags(allows_duplicate_labels=False),
    A, A.T, A.reshape(4, 3), A.ravel(), A.astype("f4"), A.astype("i8"), A.astype(">f8"), A + 1, A.tolist(), A.tobytes(), np.matrix(A),
    np.ma.array(A, mask=A > 3), np.ma.array(A), np.float64(1), np.float32(1), 1.0, np.int64(1), np.bool_(True), np.array(1.0), np.array([1.0]),
    np.array([0.0]), np.array([-0.0]), np.array([np.nan]), np.zeros((0, 3)), np.zeros((3, 0)), np.zeros((0, 3), "f4"),
    np.array(["a", "b"]), np.array([b"a", b"b"]), np.array(["a", "b"], object), np.array(["ab", ""], object), np.array(["a-b", "c"], object),
    np.array(["a", "b-c"], object), np.array(["a", None], object), np.array(["a", np.nan], object), np.array([1, "a"], object),
    np.array(["1", "a"], object), np.array(["a", "b"], np.dtypes.StringDType()), np.array([["a", "b"]], object), np.array([("a", "b"), None], object),
    np.array(["2020"], "M8[D]"), np.array(["2020"], "M8[s]"), np.array([18262], "i8"), np.array([1], "m8[s]"), np.dtype("f8"), np.float64,
    np.array([(1, 2)], [("a", "i4"), ("b", "i4")]), np.array([(1, 2)], [("a", "i4"), ("c", "i4")]), np.random.default_rng(1), np.random.default_rng(2),
    pd.Series([1, 2]), pd.Series([1, 2], name="a"), pd.Series([1.0, 2.0]), pd.Series([1, 2], index=[1, 2]), pd.Series([1, 2], dtype="Int64"),
    pd.Series([1, 2], dtype="category"), *(pd.Series(["1", "2"], dtype=kind) for kind in TEXT_WITH_NAN), pd.Series(["1", "2"], dtype=object), pd.Series([1, 2], dtype=object), pd.Index([1, 2]),
    pd.Series([True, None], dtype=object), pd.Series([True, None], dtype="boolean"), pd.Series([1, 0], dtype=bool),
    pd.DataFrame({"a": [1], "b": [2]}), pd.DataFrame({"b": [2], "a": [1]}), pd.DataFrame({"a": [2], "b": [1]}), pd.DataFrame({"a": [1, 2]}),
    pd.DataFrame({"a": [1], "b": [2]}, index=["x"]), pd.DataFrame({1: [1]}), pd.DataFrame({"1": [1]}), pd.DataFrame(), pd.DataFrame(index=[1]),
    pd.DataFrame([[1, 2]], columns=["a", "a"]), pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", 1), ("a", 2)])),
    pd.Series(pd.to_datetime(["2020-01-01"])), pd.Series(pd.to_datetime(["2020-01-01"]).tz_localize("UTC")), pd.Series(pd.Categorical(["a"], ["a", "b"])),
    pd.Series(pd.Categorical(["a"], ["a", "b"], ordered=True)), pd.Series(pd.Categorical(["a"], ["b", "a"])), pd.Series(pd.period_range("2020", periods=1, freq="M")),
    pd.interval_range(0, 2), pd.interval_range(0, 2, closed="left"), pd.RangeIndex(2), pd.RangeIndex(3), pd.Timestamp("2020"), pd.Timestamp("2020", tz="UTC"),
    dt.datetime(2020, 1, 1), np.datetime64("2020"), pd.NaT, pd.NA, None, pd.Timedelta(1), pd.Series(pd.arrays.SparseArray([0, 1])),
    pa.array([1, 2]), pa.array([1, 2], pa.int32()), pa.array([1.0, 2.0]), pa.array(["1", "2"]), pa.array(["12", ""]), pa.array(["1", "2"], pa.large_string()),
    pa.array([b"1", b"2"]), pa.array(["1", "2"], pa.string_view()), pa.chunked_array([[1, 2]]), pa.array([1, None]), pa.array([None, 1]), pa.array([1, 0]),
    pa.array([[1], [2]]), pa.array([[1, 2], []]), pa.array([[1, 2], None]), pa.array([[1, 2]]), pa.array([[1, 2]], pa.list_(pa.int64(), 2)), pa.array([{"a": 1}]),
    pa.array([{"b": 1}]), pa.array([None], pa.struct([("a", pa.int64())])), pa.array([{"a": None}], pa.struct([("a", pa.int64())])), pa.nulls(2), pa.nulls(3),
    pa.array(["1", "2"]).dictionary_encode(), pa.array([True, False]), pa.array([True, None]), pa.table({"a": [1]}), pa.table({"b": [1]}),
    pa.record_batch({"a": [1]}), pa.table({"a": [1], "b": [1]}), pa.scalar(1), pa.scalar(1, pa.int8()), pa.int64(), pa.schema([("a", pa.int64())]),
    pa.array([dt.date(2020, 1, 1)]), pa.array([1], pa.duration("s")), pa.array([1], pa.timestamp("s")), pa.array([1], pa.timestamp("s", "UTC")),
    pl.Series([1, 2]), pl.Series("a", [1, 2]), pl.Series([1.0, 2.0]), pl.Series(["1", "2"]), pl.Series(["1", "2"], dtype=pl.Categorical),
    pl.Series(["1", "2"], dtype=pl.Enum(["1", "2"])), pl.Series([1, None]), pl.Series([1, object()], dtype=pl.Object).head(1), pl.DataFrame({"a": [1]}),
    pl.DataFrame({"b": [1]}), pl.DataFrame({"a": [1], "b": [1]}), pl.Int64, pl.Int32, pl.Datetime("us"), pl.Datetime("ms"), pl.DataFrame(),
    sp.csr_array(np.eye(2)), sp.csc_array(np.eye(2)), sp.csr_matrix(np.eye(2)), sp.coo_array(np.eye(2)), sp.lil_array(np.eye(2)), sp.csr_array(2 * np.eye(2)),
    xr.DataArray(A, dims=("x", "y")), xr.DataArray(A, dims=("y", "x")), xr.DataArray(A, dims=("x", "y"), name="n"), xr.DataArray(A, dims=("x", "y"), attrs={"u": 1}),
    xr.Dataset({"a": ("x", [1, 2])}), xr.Dataset({"a": ("x", [1, 2])}, coords={"x": [0, 1]}), xr.Dataset({"a": ("x", [1, 2])}, attrs={"u": 1}),
]  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_equal_content_agrees_whatever_its_layout(name: str) -> None:
    one, other = SAME[name]
    assert digest_of(one) == digest_of(other)


def test_different_content_or_types_differ() -> None:
    digests = [digest_of(value) for value in DIFFERENT]
    doubles = [
        (DIFFERENT[one], DIFFERENT[other])
        for one, other in itertools.combinations(range(len(digests)), 2)
        if digests[one] == digests[other]
    ]
    assert doubles == []
    assert [digest_of(value) for value in DIFFERENT] == digests


@pytest.mark.slow
@given(hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(max_dims=3, max_side=4)), st.data())
@settings(max_examples=150, deadline=None)
def test_layout_never_matters_and_a_changed_value_always_does(array: np.ndarray[Any, Any], data: st.DataObject) -> None:
    digest = digest_of(array)
    assert digest_of(np.asfortranarray(array)) == digest
    padded = np.zeros((*array.shape, 2), array.dtype)
    padded[..., 0] = array
    assert digest_of(padded[..., 0]) == digest
    other = array.copy()
    place = data.draw(st.tuples(*(st.integers(0, side - 1) for side in array.shape)))
    other[place] = data.draw(hnp.from_dtype(array.dtype))
    raw = np.array([array[place], other[place]])
    same = raw[0].tobytes() == raw[1].tobytes() or bool(raw[0] != raw[0] and raw[1] != raw[1])
    if array.dtype.kind != "c":
        assert (digest_of(other) == digest) == same


@pytest.mark.slow
@given(
    st.lists(st.none() | st.integers(-5, 5) | st.floats(width=32), max_size=30),
    st.lists(st.integers(0, 30), max_size=4),
)
@settings(max_examples=150, deadline=None)
def test_arrow_may_be_cut_anywhere(values: list[Any], cuts: list[int]) -> None:
    for kind in (pa.float64(), pa.string(), pa.list_(pa.float64()), pa.bool_()):
        whole = pa.array([_as(value, kind) for value in values], kind)
        places = sorted({0, len(whole), *(cut for cut in cuts if cut <= len(whole))})
        chunks = [whole[a:b] for a, b in itertools.pairwise(places)]
        assert digest_of(pa.chunked_array(chunks, kind)) == digest_of(pa.chunked_array([whole], kind))


def _as(value: Any, kind: pa.DataType) -> Any:
    if value is None:
        return None
    if pa.types.is_string(kind):
        return str(value) * 3
    if pa.types.is_list(kind):
        return [value, None][: len(str(value)) % 3]
    return bool(value) if pa.types.is_boolean(kind) else float(value)


def test_text_counts_the_same_with_and_without_arrow(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = np.array(["a", "", "ü" * 3, "x\0y", "\ud800"], object)
    plain = np.array(["a", "", "ü" * 3, "x\0y"], object)
    before = digest_of(texts), digest_of(plain)
    monkeypatch.delitem(sys.modules, "pyarrow")
    assert (digest_of(texts), digest_of(plain)) == before


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.zeros(4 << 20),
        lambda: np.zeros((2048, 2048)).T,
        lambda: pd.DataFrame({"a": np.zeros(2 << 20), "b": np.zeros(2 << 20)}),
        lambda: pa.table({"a": np.zeros(4 << 20)}),
    ],
    ids=["array", "transposed", "frame", "table"],
)
def test_no_large_value_is_copied(make: Any) -> None:
    value = make()
    digest_of(make())
    tracemalloc.start()
    digest_of(value)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_an_object_in_an_array_is_named_when_it_cannot_be_encoded() -> None:
    with pytest.raises(UnhashableArgument, match="generator"):
        digest_of(np.array([1, (x for x in ())], dtype=object))
    with pytest.raises(UnhashableArgument, match=r"args\['df'\].*'col'.*generator"):
        digest_of({"df": pd.DataFrame({"col": [(x for x in ())]})})


def masked(mask: Any, data: Any = (1, 2), **options: Any) -> Any:
    return np.ma.array(list(data), mask=mask, **options)


def marked(value: Any, **attributes: Any) -> Any:
    for name, part in attributes.items():
        setattr(value, name, part)
    return value


class Metres(np.ndarray):  # type: ignore[type-arg]
    pass


class Measured(pd.DataFrame):
    _metadata = ["unit"]  # noqa: RUF012 - as pandas says it

    @property
    def _constructor(self) -> Any:
        return Measured


class Exact(np.float64):
    pass


def of_type(kind: pa.DataType) -> Any:
    return pa.array([], kind)


HIDDEN: list[Any] = [
    masked([False, False]), masked(np.ma.nomask), masked([True, False]), masked([True, False], (3, 2)), masked([True, False], fill_value=7),
    masked([True, False], hard_mask=True), np.ma.masked, np.ma.array(0.0, mask=True), np.ma.array([(1, 2.0)], mask=[(True, False)], dtype=[("a", "i4"), ("b", "f8")]),
    np.dtype("f8", metadata={"unit": "m"}), np.dtype("f8", metadata={"unit": "s"}), np.dtype([("a", "i1"), ("b", "f8")], align=True),
    np.dtype({"names": ["a", "b"], "formats": ["i1", "f8"], "offsets": [0, 8], "itemsize": 16}), np.dtype([(("title", "a"), "i1")]), np.dtype([("a", "i1")]),
    np.dtype((np.record, [("a", "i1")])), np.dtypes.StringDType(na_object=None), np.dtypes.StringDType(coerce=False), np.dtypes.StringDType(),
    np.longlong(1), np.int64(1), Exact(1), np.float64(1), np.zeros(2).view(Metres), marked(np.zeros(2).view(Metres), unit="m"), np.zeros(2),
    pd.Series(["a"], dtype=object), pd.Series(["a"], dtype=pd.StringDtype("python")), pd.Series(["a"], dtype=pd.StringDtype("pyarrow")),
    *(pd.Series(["a"], dtype=kind) for kind in TEXT_WITH_NAN), pd.Series(["a"], dtype=pd.ArrowDtype(pa.string())),
    *(pd.DatetimeIndex(["2020-01-01"], tz=dt.timezone(dt.timedelta(hours=h), "X")) for h in (1, 2)),
    *(pd.Timestamp(dt.datetime(2020, 10, 25, 5), fold=fold) for fold in (0, 1)),
    *(pd.bdate_range("2020-01-06", periods=2, freq="C", holidays=days) for days in ([], ["2020-05-01"], ["2020-05-08"])),
    pd.arrays.SparseArray([0, 1], kind="integer"), pd.arrays.SparseArray([0, 1], kind="block"), pd.arrays.SparseArray([0, 1], fill_value=1),
    pd.DataFrame({"a": [1]}), Measured({"a": [1]}), marked(Measured({"a": [1]}), unit="m"), marked(pd.Series([1]), note="x"), pd.Series([1]),
    pd.CategoricalDtype(["a"]), pd.CategoricalDtype(["b"]), pd.CategoricalDtype(["a"], ordered=True), pd.PeriodDtype("M"), pd.PeriodDtype("2M"),
    pa.table({"a": [1]}), pa.table({"a": [1]}).replace_schema_metadata({"x": "y"}), pa.table({"a": [1]}).replace_schema_metadata({"x": "z"}),
    pa.table({"a": [1]}, schema=pa.schema([pa.field("a", pa.int64(), nullable=False)])),
    pa.table({"a": [1]}, schema=pa.schema([pa.field("a", pa.int64(), metadata={"unit": "m"})])),
    of_type(pa.struct([pa.field("a", pa.int8(), metadata={"k": "v"})])), of_type(pa.struct([pa.field("a", pa.int8())])),
    of_type(pa.struct([pa.field("a: int8, b", pa.int8())])), of_type(pa.struct([pa.field("a", pa.int8()), pa.field("b", pa.int8())])),
    of_type(pa.list_(pa.field("x", pa.int8()))), of_type(pa.list_(pa.field("y", pa.int8()))), of_type(pa.list_(pa.field("x", pa.int8(), nullable=False))),
    of_type(pa.map_(pa.string(), pa.int8())), of_type(pa.map_(pa.string(), pa.int8(), keys_sorted=True)),
    of_type(pa.dictionary(pa.int8(), pa.string())), pa.DictionaryArray.from_arrays(pa.array([], pa.int8()), pa.array([], pa.string()), ordered=True),
    *(pa.UnionArray.from_dense(pa.array([at], pa.int8()), pa.array([0], pa.int32()), [pa.array([1]), pa.array([1])]) for at in (0, 1)),
    *(pa.ExtensionArray.from_storage(pa.opaque(pa.int64(), "a", vendor), pa.array([1])) for vendor in ("u", "v")),
    *(pa.scalar(n, pa.timestamp("ns")) for n in (1, 2)), pa.scalar(None, pa.timestamp("ns")), pa.scalar(None, pa.opaque(pa.int64(), "a", "u")), pa.scalar(1, pa.opaque(pa.int64(), "a", "u")), pa.scalar(2, pa.opaque(pa.int64(), "a", "u")), pa.scalar({"a": 1}), pa.scalar({"a": 2}), pa.py_buffer(b"ab"),
    xr.Variable("x", [1]), xr.IndexVariable("x", [1]), xr.Dataset(coords={"x": [1]}), xr.Dataset(coords={"x": [1]}).drop_indexes("x"),
]  # fmt: skip


def test_what_is_hidden_in_arrays_and_tables_counts() -> None:
    digests = [digest_of(value) for value in HIDDEN]
    doubles = [
        (at, other, HIDDEN[at], HIDDEN[other])
        for at, other in itertools.combinations(range(len(digests)), 2)
        if digests[at] == digests[other]
    ]
    assert doubles == []
    assert [digest_of(value) for value in HIDDEN] == digests


class Pair(pd.api.extensions.ExtensionDtype):
    name = "pair"
    type = tuple

    @classmethod
    def construct_array_type(cls) -> Any:
        return Pairs


class Pairs(pd.api.extensions.ExtensionArray):
    """A column of a library that does not know of Arrow."""

    def __init__(self, pairs: list[Any], frame: str = "") -> None:
        self.pairs = np.empty(len(pairs), object)
        self.pairs[:] = pairs
        self.frame = frame

    dtype = Pair()  # type: ignore[assignment]

    def __getitem__(self, at: Any) -> Any:
        return self.pairs[at]

    def __len__(self) -> int:
        return len(self.pairs)


def test_a_column_that_arrow_does_not_know_counts_by_its_elements() -> None:
    digests = [digest_of(Pairs(pairs)) for pairs in ([(1, 2)], [(2, 1)], [(1, 2), None], [])]
    assert len({*digests, digest_of(Pairs([(1, 2)], "east"))}) == 5
    assert digest_of(Pairs([(1, 2)])) == digests[0]


class Indexed(Pairs):
    """It builds an index when it is asked for one, and tells pickle of the rest."""

    index: Any = None

    def __getstate__(self) -> Any:
        return self.pairs, self.frame


def test_what_a_column_remembers_for_speed_does_not_count() -> None:
    one, other = Indexed([(1, 2)], "east"), Indexed([(1, 2)], "east")
    other.index = iter(())
    assert digest_of(one) == digest_of(other)
    assert len({digest_of(one), digest_of(Indexed([(1, 2)], "west")), digest_of(Indexed([(2, 2)], "east"))}) == 3


def test_bytes_between_the_parts_of_a_scalar_do_not_count() -> None:
    kind = np.dtype([("a", "i1"), ("b", "f8")], align=True)
    one, other = np.zeros(1, kind)[0], np.frombuffer(b"\0" + b"\7" * 7 + b"\0" * 8, kind)[0]
    assert digest_of(one) == digest_of(other)
    assert digest_of(np.longdouble(1)) == digest_of(np.linspace(1, 1, 3).astype("g")[1])
