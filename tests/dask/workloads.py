"""One collection of every kind, made anew at each call, so that two processes can compare them."""

from __future__ import annotations

import functools
import operator
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import xarray as xr

WORKLOADS: dict[str, Callable[[Path], Any]] = {}


def workload(make: Callable[[Path], Any]) -> Callable[[Path], Any]:
    WORKLOADS[make.__name__] = make
    return make


def ran(name: str = "x") -> None:
    """Leave a trace that a task has run, in the file that COUNT_FILE names."""
    with open(os.environ["COUNT_FILE"], "a") as trace:
        trace.write(f"{name}\n")


def traces() -> Counter[str]:
    """Which traces there are, since the last time that somebody asked."""
    path = Path(os.environ["COUNT_FILE"])
    found = Counter(path.read_text().splitlines() if path.exists() else [])
    path.unlink(missing_ok=True)
    return found


def runs() -> int:
    """How many traces there are, since the last time that somebody asked."""
    return traces().total()


def inc(x: Any, by: Any = 1) -> Any:
    if not isinstance(x, np.ndarray) or x.size > 1:  # Dask calls it with less, to learn the type
        ran()
    return x + by


def total(*parts: Any) -> Any:
    ran()
    return sum(sum(p.values()) if isinstance(p, dict) else sum(p) if not isinstance(p, int) else p for p in parts)


class Model:
    def __init__(self, slope: int) -> None:
        self.slope = slope

    def predict(self, x: int) -> int:
        ran()
        return self.slope * x

    def __call__(self, x: int) -> int:
        ran()
        return self.slope + x


class Holder:
    """What Dask does not look into."""

    def __init__(self, *inside: Any) -> None:
        self.inside = inside


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {"a": range(24), "b": [f"g{i % 5}" for i in range(24)], "c": [i / 7 for i in range(24)]},
        index=pd.date_range("2020-01-01", periods=24, freq="h"),
    )


def ddf(npartitions: int = 3) -> dd.DataFrame:
    return dd.from_pandas(frame(), npartitions=npartitions)


# delayed


@workload
def delayed_plain(tmp: Path) -> Any:
    return dask.delayed(total)([dask.delayed(inc)(i) for i in range(4)])


@workload
def delayed_pure(tmp: Path) -> Any:
    return dask.delayed(total, pure=True)([dask.delayed(inc, pure=True)(i) for i in range(4)])


@workload
def delayed_nested(tmp: Path) -> Any:
    one, two = dask.delayed(inc)(1), dask.delayed(inc)(2)
    return dask.delayed(total)({"a": one, "b": two}, [one, 3], (two, one), 5)


@workload
def delayed_set(tmp: Path) -> Any:
    return dask.delayed(total)({dask.delayed(inc)(i) for i in (10, 20, 30)}, {"x", "y", "z"} and {1, 2, 3})


@workload
def delayed_lambda(tmp: Path) -> Any:
    return dask.delayed(lambda x: (ran(), x * 2)[1])(dask.delayed(lambda: 21)())


@workload
def delayed_partial(tmp: Path) -> Any:
    return dask.delayed(functools.partial(inc, by=5))(dask.delayed(functools.partial(operator.add, 2))(3))


@workload
def delayed_instance(tmp: Path) -> Any:
    return dask.delayed(Model(3))(4) + dask.delayed(Model(5).predict)(6)


@workload
def delayed_methods(tmp: Path) -> Any:
    return dask.delayed("a,b,c").split(",")[1].upper()


lazily_inc = dask.delayed(inc)
seven = dask.delayed(inc)(dask.delayed(inc)(5))


def use_globals(x: int) -> int:
    ran()
    return x + int(lazily_inc(x).compute(scheduler="sync")) + int(seven.compute(scheduler="sync"))


@workload
def delayed_in_globals(tmp: Path) -> Any:
    return dask.delayed(use_globals)(lazily_inc(1))


@workload
def delayed_in_arguments(tmp: Path) -> Any:
    return dask.delayed(lambda holder: (ran(), len(vars(holder)))[1])(Holder(lazily_inc, seven))


# bags


@workload
def bag_pipeline(tmp: Path) -> Any:
    return db.from_sequence(range(12), npartitions=3).map(inc).filter(lambda x: x % 2).map(lambda x: x * x)


@workload
def bag_fold(tmp: Path) -> Any:
    return db.from_sequence(range(12), npartitions=3).map(inc).fold(operator.add, initial=0)


@workload
def bag_groupby(tmp: Path) -> Any:
    return db.from_sequence(range(12), npartitions=3).map(inc).foldby(lambda x: x % 3, operator.add, 0)


@workload
def bag_frequencies(tmp: Path) -> Any:
    return (
        db.from_sequence(["a", "b", "a", "c", "b", "a"], npartitions=2)
        .map(lambda w: (ran(), w)[1])
        .frequencies(sort=True)
    )


@workload
def bag_text(tmp: Path) -> Any:
    return db.read_text(str(tmp / "text-*.txt")).map(str.strip).map(lambda line: (ran(), len(line))[1])


# arrays


def ints() -> np.ndarray:
    return np.arange(48.0).reshape(6, 8)


@workload
def array_from_array(tmp: Path) -> Any:
    return (da.from_array(ints(), chunks=(3, 4)) + 1).map_blocks(inc).sum(axis=0)


@workload
def array_seeded(tmp: Path) -> Any:
    return da.random.default_rng(7).normal(size=(8, 6), chunks=(4, 3)).map_blocks(inc)


@workload
def array_random_state(tmp: Path) -> Any:
    return da.random.RandomState(7).uniform(size=(8,), chunks=4).map_blocks(inc)


@workload
def array_overlap(tmp: Path) -> Any:
    return da.from_array(ints(), chunks=(3, 4)).map_overlap(lambda x: (ran(), x + 1)[1], depth=1, boundary="reflect")


@workload
def array_rechunk(tmp: Path) -> Any:
    return da.from_array(ints(), chunks=(3, 4)).map_blocks(inc).rechunk((2, 8)).sum(axis=1)


@workload
def array_tensordot(tmp: Path) -> Any:
    a = da.from_array(ints(), chunks=(3, 4)).map_blocks(inc)
    return da.tensordot(a, a.T, axes=1)


@workload
def array_svd(tmp: Path) -> Any:
    return da.linalg.svd(da.from_array(ints() % 7, chunks=(3, 8)).map_blocks(inc))[1]


@workload
def array_fancy(tmp: Path) -> Any:
    a = da.from_array(ints(), chunks=(3, 4)).map_blocks(inc)
    return a[[0, 5, 2]][:, np.array([1, 7])] + a[a > 20].sum()


@workload
def array_gufunc(tmp: Path) -> Any:
    def spread(x: Any) -> Any:
        ran()
        return x.max(axis=-1) - x.min(axis=-1)

    return da.apply_gufunc(spread, "(i)->()", da.from_array(ints(), chunks=(3, 8)), output_dtypes=float)


@workload
def array_reductions(tmp: Path) -> Any:
    a = da.from_array(ints(), chunks=(2, 2)).map_blocks(inc)
    return da.stack([a.mean(), a.std(), a.max()])


# data frames


@workload
def frame_map_partitions(tmp: Path) -> Any:
    return ddf().map_partitions(lambda df: (ran(), df.assign(d=df.a * 2))[1]).d.sum()


@workload
def frame_groupby(tmp: Path) -> Any:
    return ddf().map_partitions(_seen).groupby("b").agg({"a": ["sum", "mean"], "c": "std"})


@workload
def frame_custom_aggregation(tmp: Path) -> Any:
    spread = dd.Aggregation(
        "spread",
        lambda g: (g.max(), g.min()),
        lambda high, low: (high.max(), low.min()),
        lambda high, low: high - low,
    )
    return ddf().map_partitions(_seen).groupby("b").agg({"a": spread})


@workload
def frame_merge(tmp: Path) -> Any:
    right = dd.from_pandas(pd.DataFrame({"b": [f"g{i}" for i in range(5)], "w": range(5)}), npartitions=2)
    return ddf().map_partitions(_seen).merge(right, on="b", shuffle_method="tasks").w.sum()


@workload
def frame_shuffle_tasks(tmp: Path) -> Any:
    return ddf().map_partitions(_seen).shuffle("b", shuffle_method="tasks").map_partitions(len)


@workload
def frame_shuffle_disk(tmp: Path) -> Any:
    return ddf().map_partitions(_seen).shuffle("b", shuffle_method="disk").map_partitions(len)


@workload
def p2p_shuffle(tmp: Path) -> Any:
    return ddf().map_partitions(_seen).shuffle("b", shuffle_method="p2p").map_partitions(len)


@workload
def p2p_merge(tmp: Path) -> Any:
    right = dd.from_pandas(pd.DataFrame({"b": [f"g{i}" for i in range(5)], "w": range(5)}), npartitions=2)
    return ddf().map_partitions(_seen).merge(right, on="b", shuffle_method="p2p").w.sum()


@workload
def p2p_rechunk(tmp: Path) -> Any:
    return da.from_array(ints(), chunks=(3, 4)).map_blocks(inc).rechunk((6, 1), method="p2p") + 1


@workload
def frame_set_index(tmp: Path) -> Any:
    return ddf().map_partitions(_seen).set_index("a", shuffle_method="tasks").c.cumsum()


@workload
def frame_parquet(tmp: Path) -> Any:
    return dd.read_parquet(str(tmp / "table.parquet")).map_partitions(_seen).a.sum()


@workload
def frame_parquet_arrow(tmp: Path) -> Any:
    return dd.read_parquet(str(tmp / "table.parquet"), filesystem="arrow").map_partitions(_seen).groupby("b").c.mean()


@workload
def frame_csv(tmp: Path) -> Any:
    return dd.read_csv(str(tmp / "table-*.csv")).map_partitions(_seen).a.max()


@workload
def frame_csv_with_paths(tmp: Path) -> Any:
    return dd.read_csv(str(tmp / "table-*.csv"), include_path_column="file").file.astype(str).nunique()


@workload
def frame_from_delayed(tmp: Path) -> Any:
    parts = [dask.delayed(read_one)(str(path)) for path in sorted(tmp.glob("table-*.csv"))]
    return dd.from_delayed(parts, meta=frame().reset_index(drop=True).iloc[:0]).a.sum()


@workload
def frame_from_map(tmp: Path) -> Any:
    return dd.from_map(read_one, [str(path) for path in sorted(tmp.glob("table-*.csv"))]).c.mean()


@workload
def frame_resample(tmp: Path) -> Any:
    return ddf().map_partitions(_seen)[["a", "c"]].resample("6h").mean()


@workload
def frame_rolling(tmp: Path) -> Any:
    return ddf().map_partitions(_seen).a.rolling(3).mean()


@workload
def frame_describe(tmp: Path) -> Any:
    return ddf().map_partitions(_seen)[["a", "c"]].describe()


@workload
def frame_value_counts(tmp: Path) -> Any:
    return ddf().map_partitions(_seen).b.value_counts().nlargest(2)


def _seen(df: pd.DataFrame) -> pd.DataFrame:
    if len(df) > 2:  # Dask calls it with none or two, to learn the columns
        ran()
    return df


def read_one(path: str) -> pd.DataFrame:
    ran()
    return pd.read_csv(path)


# xarray


@workload
def xarray_mean(tmp: Path) -> Any:
    data = xr.DataArray(da.from_array(ints(), chunks=(3, 4)).map_blocks(inc), dims=("x", "y"), name="t")
    return (data - data.mean("x")).std("y")


@workload
def xarray_dataset(tmp: Path) -> Any:
    data = xr.Dataset(
        {
            "t": (("x", "y"), da.from_array(ints(), chunks=(3, 4)).map_blocks(inc)),
            "p": ("x", da.from_array(np.arange(6.0), chunks=3)),
        }
    )
    return (data.t * data.p).sum()


def write_inputs(tmp: Path) -> None:
    """The files that the workloads read."""
    table = frame().reset_index(drop=True)
    (tmp / "table.parquet").mkdir()
    for number, part in enumerate(np.array_split(np.arange(len(table)), 3)):
        table.iloc[part].to_parquet(tmp / "table.parquet" / f"part.{number}.parquet")
        table.iloc[part].to_csv(tmp / f"table-{number}.csv", index=False)
        (tmp / f"text-{number}.txt").write_text("".join(f"line {i}\n" for i in part))


def each(names: list[str], tmp: Path) -> Iterator[tuple[str, Any]]:
    for name in names:
        yield name, WORKLOADS[name](tmp)


def shown(value: Any) -> str:
    """A value as text that is equal for equal values."""
    if isinstance(value, pd.DataFrame | pd.Series):
        return value.sort_index(kind="stable").round(10).to_string()
    if isinstance(value, xr.DataArray | xr.Dataset):
        return str(value.to_dict())
    if isinstance(value, np.ndarray | np.generic):
        return str(np.asarray(value).round(10).tolist())
    if isinstance(value, dict | list | tuple | set):
        return str(sorted(map(str, value.items() if isinstance(value, dict) else value)))
    return repr(value)
