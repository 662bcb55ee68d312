"""Frames of pandas: one key for equal frames, however pandas keeps them; and quickly, because graphs hold thousands."""
# ruff: noqa: DTZ001 - times without a zone are a case here

from __future__ import annotations

import datetime as dt
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from cacheness.keys import digest_of
from cacheness.keys.values import pandas as frames
from tests.keys.corpus import TEXT_WITH_NAN

KINDS: dict[str, Callable[[int], Any]] = {
    "int64": lambda n: np.arange(n) - 1,
    "int8": lambda n: np.arange(n, dtype="i1"),
    "float64": lambda n: np.where(np.arange(n) % 2, np.nan, np.arange(n) / 3),
    "complex": lambda n: np.arange(n) * 1j,
    "bool": lambda n: np.arange(n) % 2 == 0,
    "datetime": lambda n: pd.date_range("2020-01-01", periods=n, freq="7h"),
    "zoned": lambda n: pd.date_range("2020-01-01", periods=n, tz="Europe/Berlin"),
    "timedelta": lambda n: pd.to_timedelta(np.arange(n), unit="s"),
    "period": lambda n: pd.period_range("2020-01", periods=n, freq="M"),
    "str": lambda n: [f"t{at % 3}" for at in range(n)],
    "object": lambda n: np.array([(at,) for at in range(n)] + [None], dtype=object)[:n],
    "category": lambda n: pd.Categorical([f"t{at % 3}" for at in range(n)]),
    "Int64": lambda n: pd.array([None, *range(n)], dtype="Int64")[:n],
    "arrow": lambda n: pd.array([None, *range(n)], dtype="int32[pyarrow]")[:n],
    "sparse": lambda n: pd.arrays.SparseArray(np.arange(n) % 2),
}
NAMES = st.sampled_from(["a", "b", "a", "é", 1, 2.5, None, ("x", "y"), dt.datetime(2020, 1, 1)])


@st.composite
def a_frame(draw: st.DrawFn) -> pd.DataFrame:
    """A frame of any types, with names that repeat and are not always text."""
    rows = draw(st.integers(0, 5))
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), max_size=6))
    columns = [pd.Series(KINDS[kind](rows)) for kind in kinds]
    frame = pd.concat(columns, axis=1) if columns else pd.DataFrame(index=range(rows))
    named = draw(st.lists(NAMES, min_size=len(kinds), max_size=len(kinds)))
    if draw(st.booleans()):
        named = [str(name) for name in named]
    frame.columns = pd.Index(named, name=draw(st.sampled_from([None, "n"])), tupleize_cols=False)
    return frame


def together(frame: pd.DataFrame) -> pd.DataFrame:
    """With the columns of one type in one block."""
    frame = frame.copy()
    frame._mgr = frame._mgr.consolidate()
    return frame


def apart(frame: pd.DataFrame) -> pd.DataFrame:
    """With a block for each column, the last one made first."""
    made = {at: frame.iloc[:, at].copy() for at in reversed(range(frame.shape[1]))}
    found = pd.DataFrame(made, index=frame.index, copy=False)[list(range(frame.shape[1]))]
    found.columns = frame.columns
    return found


LAYOUTS: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "together": together,
    "apart": apart,
    "pickled": lambda frame: pickle.loads(pickle.dumps(frame)),
    "a slice of a larger one": lambda frame: (
        frame.take([*range(len(frame))] * 2).iloc[: len(frame)].set_axis(frame.index)
    ),
    "every other row": lambda frame: frame.loc[frame.index.repeat(2)].iloc[::2].set_axis(frame.index),
    "columns picked": lambda frame: together(frame).iloc[:, list(range(frame.shape[1]))],
}


@pytest.mark.slow
@given(a_frame())
@settings(max_examples=60, deadline=None)
def test_equal_frames_have_one_key_whatever_their_layout(frame: pd.DataFrame) -> None:
    right = digest_of(frame)
    for how, change in LAYOUTS.items():
        other = change(frame)
        assert_frame_equal(frame, other, check_index_type=True, check_column_type=True)
        assert digest_of(other) == right, how


@given(a_frame())
@settings(max_examples=60, deadline=None)
def test_blocks_and_columns_tell_the_same(frame: pd.DataFrame) -> None:
    with pytest.MonkeyPatch.context() as patched:
        short = digest_of(together(frame))
        patched.setattr(frames, "_columns_of", lambda value: [value.iloc[:, at].array for at in range(value.shape[1])])
        patched.setattr(frames, "_add_names", lambda encoder, columns, _: encoder.add(columns))
        assert digest_of(frame) == short


def test_columns_in_fortran_order_and_with_gaps() -> None:
    values = np.arange(12.0).reshape(3, 4)
    names = pd.RangeIndex(4)  # what pandas 3 makes of the numbers, and pandas 2 does not
    right = digest_of(pd.DataFrame({at: values[:, at].copy() for at in range(4)}).set_axis(names, axis=1))
    assert digest_of(pd.DataFrame(values)) == digest_of(pd.DataFrame(np.asfortranarray(values))) == right
    assert digest_of(pd.DataFrame(np.repeat(values, 2, 1)[:, ::2])) == right
    swapped = values.astype(">f8")
    other = digest_of(pd.DataFrame({at: swapped[:, at].copy() for at in range(4)}).set_axis(names, axis=1))
    assert digest_of(pd.DataFrame(swapped)) == digest_of(pd.DataFrame(np.asfortranarray(swapped))) == other != right


def noted(value: Any, **attributes: Any) -> Any:
    for name, part in attributes.items():
        object.__setattr__(value, name, part)
    return value


NAMED: list[Callable[[], Any]] = [
    lambda: pd.Index(["a"], dtype=object),
    *(lambda kind=kind: pd.Index(["a"], dtype=kind) for kind in TEXT_WITH_NAN),
    lambda: pd.Index(["a"], dtype=pd.StringDtype("pyarrow")),
    lambda: pd.Index(["a"], dtype=pd.StringDtype("python")),
    lambda: pd.Index(["a"], name="n"),
    lambda: pd.Index(["a"], name=("n",)),
    lambda: noted(pd.Index(["a"]), unit="m"),
    lambda: noted(pd.Index(["a"]), unit="s"),
    lambda: pd.CategoricalIndex(["a"]),
]


def test_all_that_the_names_of_columns_are_counts() -> None:
    def digests() -> list[bytes]:
        return [digest_of(pd.DataFrame([[1]], columns=make())) for make in NAMED]

    found = digests()
    assert not [pair for pair in itertools.combinations(range(len(NAMED)), 2) if found[pair[0]] == found[pair[1]]]
    assert digests() == found


def test_names_that_are_changed_in_place_count() -> None:
    frame = pd.DataFrame({"a": [1], "b": [2]})
    before = digest_of(frame)
    view = frame.columns.view()
    assert digest_of(frame.set_axis(view, axis=1)) == before
    view.name = "n"
    assert digest_of(frame.set_axis(view, axis=1)) != before
    frame.columns.name = "n"
    assert digest_of(frame) != before
