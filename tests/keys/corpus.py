"""Values whose digests must be the same for everybody, for ever: the golden ones.

`python -m tests.keys.corpus` prints them as JSON. When a change of the encoding is wanted,
`FORMAT` in `cacheness/keys/encode.py` is raised, and golden.json is written anew from that.
"""
# ruff: noqa: DTZ001, E501 - a table of values; some have no zone, and wide lines read better here

from __future__ import annotations

import collections
import datetime as dt
import decimal
import enum
import fractions
import json
import pathlib
import sys
import uuid
import zoneinfo
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import scipy.sparse as sp

from cacheness.keys import Digest, File, digest_of, make_key

IS_PANDAS_3 = not pd.__version__.startswith("2.")
#: Types of text in which NaN is what is missing.
TEXT_WITH_NAN: list[Any] = (
    [pd.StringDtype("pyarrow", np.nan), pd.StringDtype("python", np.nan)]
    if IS_PANDAS_3
    else [pd.StringDtype("pyarrow_numpy")]  # type: ignore[arg-type]  # stubs are of pandas 3
)
DATE = dt.datetime(2024, 2, 29, 12, 30, 15, 123456)
CYCLE: list[Any] = [1]
CYCLE.append(CYCLE)


def values(folder: pathlib.Path) -> dict[str, Any]:
    """The corpus. Files are made in `folder`, whose name does not count."""
    (folder / "tree" / "sub").mkdir(parents=True, exist_ok=True)
    (folder / "tree" / "a.txt").write_bytes(b"a")
    (folder / "tree" / "sub" / "b.txt").write_bytes(b"b")
    return (
        PLAIN
        | ARRAYS
        | {
            "path": folder / "tree" / "a.txt",
            "directory": folder / "tree",
            "file": File(str(folder / "tree" / "a.txt")),
            "glob": File(str(folder / "tree" / "**" / "*.txt")),
        }
    )


PLAIN: dict[str, Any] = {
    "none": None, "true": True, "int": 42, "negative": -1, "huge": 10**50, "float": 0.1, "zero": 0.0, "minus zero": -0.0,
    "nan": float("nan"), "inf": float("inf"), "complex": 1 - 2j, "text": "héllo", "surrogate": "\ud800", "bytes": b"\0\xff",
    "bytearray": bytearray(b"x"), "long text": "x" * 100_000, "long list": list(range(50_000)),
    "tuple": (1, "a", (2.5,)), "list": [1, [2, [3]]], "dict": {"b": 1, "a": [2], 3: None, (1, 2): "t"},
    "set": {"x", "y", 1, (2, "z")}, "frozenset": frozenset({"x", "y", frozenset({1})}), "cycle": CYCLE,
    "ordered": collections.OrderedDict(b=1, a=2), "counter": collections.Counter("abca"), "deque": collections.deque([1], 3),
    "default": collections.defaultdict(list, a=[1]), "range": range(1, 10, 2), "slice": slice(None, 3), "ellipsis": ...,
    "decimal": decimal.Decimal("1.10"), "fraction": fractions.Fraction(1, 3), "uuid": uuid.UUID(int=7), "digest": Digest(bytes(32)),
    "date": DATE.date(), "time": DATE.time(), "naive": DATE, "utc": DATE.replace(tzinfo=dt.UTC),
    "zone": DATE.replace(tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"), fold=1), "delta": dt.timedelta(days=-1, microseconds=3),
    "pure path": pathlib.PurePosixPath("a/b"), "type": int, "function": len, "exception": ValueError("x", 1),
    "flag": enum.FlagBoundary.STRICT,
}  # fmt: skip
ARRAYS: dict[str, Any] = {
    "floats": np.linspace(0, 1, 7), "matrix": np.arange(12, dtype="i4").reshape(3, 4), "transposed": np.arange(12.0).reshape(3, 4).T,
    "large": np.arange(300_000.0), "bools": np.array([True, False]), "objects": np.array(["a", None, 1, "b"], dtype=object),
    "texts": np.array(["a", "bcd"]), "days": np.array(["2020-01-01", "NaT"], dtype="M8[D]"), "nans": np.array([np.nan, -np.nan]),
    "struct": np.array([(1, 2.0)], dtype=[("a", "i2"), ("b", "f8")]), "scalar": np.float32(1.5), "dtype": np.dtype("u2"),
    "empty": np.zeros((0, 3)), "sparse": sp.csr_array(np.eye(3)),
    "frame": pd.DataFrame({"n": [1, 2], "x": [0.5, None], "t": pd.to_datetime(["2020-01-01", None]).as_unit("ns")}),
    "series": pd.Series([1, 2], name="s", index=[5, 6]), "category": pd.Series(["a", "b", "a"], dtype="category"),
    "timestamp": pd.Timestamp("2020-01-01", tz="UTC").as_unit("ns"), "multi": pd.MultiIndex.from_tuples([(1, "a"), (2, "b")]),
    "table": pa.table({"i": [1, None], "s": ["x", None], "l": [[1], []], "b": [True, None]}),
    "polars": pl.DataFrame({"i": [1, None], "s": ["x", None], "d": [DATE.date(), None]}),
}  # fmt: skip


def digests(folder: pathlib.Path) -> dict[str, str]:
    """The digest of each value, and the key of them all."""
    found = {name: digest_of(value).hex() for name, value in values(folder).items()}
    found["key"] = make_key(args=PLAIN, prefix="p", version="1").hex
    return found


if __name__ == "__main__":
    print(json.dumps(digests(pathlib.Path(sys.argv[1])), indent=1))
