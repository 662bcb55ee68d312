"""What a graph reads counts by content; what it writes is written every time; what has no content is refused."""

from __future__ import annotations

import functools
import gc
import inspect
import os
import pickle
import random
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import fsspec
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from dask.utils import SerializableLock
from distributed import Client
from test_fingerprints import digest
from workloads import ddf, inc, ran, runs

import cacheness_dask as cd
from cacheness import File, UnifiedCache
from cacheness.keys import digest_of
from cacheness_dask.sources_and_sinks import file_at, noting_files


def compute(cache: UnifiedCache, collection: Any, **options: Any) -> tuple[Any, cd.Record]:
    with cd.caching(cache, scheduler="sync", **options) as run:
        (value,) = dask.compute(collection)
    return value, run.history[-1]


def read(path: Any) -> str:
    ran()
    with open(path) as file:
        return file.read()


def counted(df: pd.DataFrame) -> pd.DataFrame:
    if len(df) > 2:
        ran()
    return df


def table(start: int) -> pd.DataFrame:
    return pd.DataFrame({"a": range(start, start + 5), "b": [f"x{i}" for i in range(5)]})


READERS: dict[str, tuple[str, Callable[[pd.DataFrame, Path], Any], Callable[[Path], Any]]] = {
    "parquet": (
        "parquet",
        lambda df, path: df.to_parquet(path),
        lambda tmp: dd.read_parquet(str(tmp / "*.parquet")).map_partitions(counted).a.sum(),
    ),
    "parquet-arrow": (
        "parquet",
        lambda df, path: df.to_parquet(path),
        lambda tmp: dd.read_parquet(str(tmp), filesystem="arrow").map_partitions(counted).a.sum(),
    ),
    "csv": (
        "csv",
        lambda df, path: df.to_csv(path, index=False),
        lambda tmp: dd.read_csv(str(tmp / "*.csv")).map_partitions(counted).a.sum(),
    ),
    "text": (
        "csv",
        lambda df, path: df.to_csv(path, index=False),
        lambda tmp: db.read_text(str(tmp / "*.csv")).map_partitions(lambda lines: [(ran(), len(list(lines)))[1]]),
    ),
    "from_map": (
        "csv",
        lambda df, path: df.to_csv(path, index=False),
        lambda tmp: dd.from_map(
            lambda path: counted(pd.read_csv(path)), sorted(map(str, tmp.glob("*.csv"))), meta=table(0).iloc[:0]
        ).a.sum(),
    ),
    "delayed": (
        "csv",
        lambda df, path: df.to_csv(path, index=False),
        lambda tmp: dask.delayed(list)([dask.delayed(read)(str(path)) for path in sorted(tmp.glob("*.csv"))]),
    ),
    "path": (
        "csv",
        lambda df, path: df.to_csv(path, index=False),
        lambda tmp: dask.delayed(list)([dask.delayed(read)(path) for path in sorted(tmp.glob("*.csv"))]),
    ),
    "File": (
        "csv",
        lambda df, path: df.to_csv(path, index=False),
        lambda tmp: dask.delayed(list)([dask.delayed(read)(File(path)) for path in sorted(tmp.glob("*.csv"))]),
    ),
    "nested": (
        "csv",
        lambda df, path: df.to_csv(path, index=False),
        lambda tmp: dask.delayed(list)(
            [dask.delayed(lambda d: read(d["where"][0]))({"where": [str(p)]}) for p in sorted(tmp.glob("*.csv"))]
        ),
    ),
    "partial": (
        "csv",
        lambda df, path: df.to_csv(path, index=False),
        lambda tmp: dask.delayed(list)(
            [dask.delayed(functools.partial(read, str(p)))() for p in sorted(tmp.glob("*.csv"))]
        ),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_a_rewritten_file_runs_its_own_descendants_only(cache: UnifiedCache, tmp_path: Path, reader: str) -> None:
    suffix, write, collection = READERS[reader]
    data = tmp_path / "data"
    data.mkdir()
    for number in range(4):
        write(table(10 * number), data / f"{number}.{suffix}")
    first, _ = compute(cache, collection(data), which="all")
    runs()
    again, record = compute(cache, collection(data), which="all")
    assert (runs(), record.misses, record.refused) == (0, 0, 0)
    assert again == first
    write(table(1000), data / f"2.{suffix}")
    changed, record = compute(cache, collection(data), which="all")
    assert (runs(), record.refused) == (1, 0)  # Dask's Arrow reader takes small files together, two in a task
    assert changed == compute(UnifiedCache(cache_dir=tmp_path / "other"), collection(data))[0]
    assert (changed == first) == (reader == "text")  # counts lines, and there are as many


def column(number: int) -> pd.DataFrame:
    return pd.DataFrame({"a": np.arange(number, 90, 3)[::-1], "b": number})


@pytest.mark.parametrize("parts", ["delayed", "parquet"])
def test_a_sorted_frame_is_found_by_what_it_holds_whatever_dask_calls_it(
    cache: UnifiedCache, tmp_path: Path, parts: str
) -> None:
    for number in range(3):
        column(number).to_parquet(tmp_path / f"{number}.parquet")

    def frame() -> dd.DataFrame:
        if parts == "parquet":
            return dd.read_parquet(str(tmp_path / "*.parquet"))
        return dd.from_delayed([dask.delayed(column)(number) for number in range(3)], meta=column(0).iloc[:0])

    names, sorted_frames = [], []
    with cd.caching(cache, scheduler="sync", which="all") as run:
        for turn in range(2):
            os.utime(tmp_path / "1.parquet", (turn, turn))
            names.append(frame()._name)
            before = len(run.history)
            ordered = frame().set_index("a", npartitions=2)
            sorted_frames.append((ordered.divisions, ordered.compute()))
    assert names[0] != names[1]
    assert sum(record.misses for record in run.history[before:]) == 0
    assert sorted_frames[0][0] == sorted_frames[1][0]
    pd.testing.assert_frame_equal(sorted_frames[0][1], sorted_frames[1][1])


def test_a_file_that_changes_while_it_is_read_leaves_no_entry(cache: UnifiedCache, tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_text("old")

    def change_and_read(where: str) -> str:
        other = threading.Thread(target=Path(where).write_text, args=("newer",))  # nobody sees the task write
        other.start()
        other.join()
        return Path(where).read_text()

    value, _ = compute(cache, dask.delayed(change_and_read)(str(path)), which="all")
    assert value == "newer"
    assert cache.list_entries() == []


def test_text_that_names_no_file_is_text(cache: UnifiedCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").write_text("a file by chance called like a column")
    compute(cache, dask.delayed(str.upper)("src"))
    (tmp_path / "src").write_text("changed")
    _, record = compute(cache, dask.delayed(str.upper)("src"))
    assert record.misses == 0


class Table:
    """Something in a database."""

    version = 1

    def __init__(self, name: str) -> None:
        self.name = name


def rows_of(table: Table) -> int:
    return 10


def test_a_registered_source_counts_by_its_identity(cache: UnifiedCache) -> None:
    cd.register_source(Table, lambda table: [table.name, Table.version])
    misses = []
    for version in (1, 1, 2):
        Table.version = version
        misses.append(compute(cache, dask.delayed(rows_of)(Table("prices")))[1].misses)
    assert misses == [1, 0, 1]


# sinks


def saved(value: int, where: str) -> int:
    Path(where).write_text(str(value))
    return value


SINKS: dict[str, Callable[[Path], Any]] = {
    "to_parquet": lambda out: ddf().to_parquet(str(out / "frame"), compute=False),
    "to_csv": lambda out: ddf().to_csv(str(out / "frame-*.csv"), compute=False),
    "to_json": lambda out: ddf()[["a"]].to_json(str(out / "frame-*.json"), date_format="iso", compute=False),
    "to_textfiles": lambda out: db.from_sequence(["a", "b"]).to_textfiles(str(out / "*.txt"), compute=False),
    "to_npy_stack": lambda out: dask.delayed(np.save)(str(out / "a.npy"), np.arange(3)),
    "pandas method": lambda out: dask.delayed(table(0)).to_csv(str(out / "a.csv")),
    "registered": lambda out: dask.delayed(inc)(dask.delayed(cd.register_sink(saved))(3, str(out / "a"))),
}


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # Dask itself uses it
@pytest.mark.parametrize("sink", SINKS)
def test_sinks_write_every_time(cache: UnifiedCache, tmp_path: Path, sink: str) -> None:
    for _ in range(2):
        out = tmp_path / "out"
        out.mkdir()
        _, record = compute(cache, SINKS[sink](out), which="all")
        assert [path for path in out.rglob("*") if path.is_file()]
        assert any(reason.startswith("sink: ") for reason in record.reasons.values())
        for path in sorted(out.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        out.rmdir()


def test_storing_an_array_stores_every_time(cache: UnifiedCache) -> None:
    for _ in range(2):
        target = np.zeros(4)
        with cd.caching(cache, scheduler="sync", which="all") as run:
            da.store(da.ones(4, chunks=2), target)
        assert target.tolist() == [1, 1, 1, 1]
        assert run.history[-1].refused > 0


# chance


def from_module() -> float:
    return random.random()


def from_numpy() -> float:
    return float(np.random.rand())  # noqa: NPY002


def unseeded_generator() -> float:
    return float(np.random.default_rng().random())


def unique() -> str:
    return uuid.uuid4().hex


def helper() -> float:
    return from_module() + 1


def imported_inside() -> int:
    from random import randint

    return randint(0, 10**9)


GENERATOR = np.random.default_rng(0)


def from_global() -> float:
    return float(GENERATOR.random())


class Simulation:
    """Draws a number in a method that others call, and in none that its users name."""

    def __call__(self, x: Any = None) -> float:
        return self._draw()

    def _draw(self) -> float:
        return random.random()


SIMULATION = Simulation()
LAZY = dask.delayed(from_module)
PARTLY = functools.partial(random.uniform, 0)


def from_instance() -> float:
    return SIMULATION()


def from_delayed() -> float:
    return float(LAZY().compute(scheduler="sync"))


def from_partial() -> float:
    return PARTLY(1)


def from_default(source: Any = random) -> float:
    return float(source.random())


def run_it(simulation: Simulation) -> float:
    return simulation()


def seeded(seed: int) -> float:
    return float(np.random.default_rng(seed).random())


def seeded_state(seed: int) -> float:
    np.random.seed(seed)  # noqa: NPY002
    return float(np.random.rand())  # noqa: NPY002


@pytest.mark.parametrize(
    "function",
    [
        from_module,
        from_numpy,
        unseeded_generator,
        unique,
        helper,
        imported_inside,
        from_global,
        random.random,
        from_instance,
        from_delayed,
        from_partial,
        from_default,
        Simulation(),
        functools.partial(run_it, Simulation()),
    ],
)
def test_unseeded_randomness_never_hits(cache: UnifiedCache, function: Callable[[], Any]) -> None:
    values = set()
    for _ in range(2):
        value, record = compute(cache, dask.delayed(function)(), which="all")
        values.add(value)
        assert "unseeded randomness" in next(iter(record.reasons.values()))
    assert len(values) == 2


@pytest.mark.parametrize("function", [seeded, seeded_state])
def test_seeded_randomness_hits(cache: UnifiedCache, function: Callable[[int], float]) -> None:
    assert compute(cache, dask.delayed(function)(1))[1].misses == 1
    assert compute(cache, dask.delayed(function)(1))[1].misses == 0
    assert compute(cache, dask.delayed(function)(2))[1].misses == 1


def test_arrays_of_unseeded_numbers_never_hit_one_another(cache: UnifiedCache) -> None:
    first, _ = compute(cache, da.random.default_rng().normal(size=4, chunks=2), which="all")
    second, record = compute(cache, da.random.default_rng().normal(size=4, chunks=2), which="all")
    assert record.hits == 0
    assert not np.array_equal(first, second)


# what has no content


async def coroutine() -> int:
    return 1


REFUSED: dict[str, Callable[[Path], Any]] = {
    "an open file": lambda tmp: dask.delayed(lambda file: 1)(open(tmp / "file", "w+")),  # noqa: SIM115
    "a lock": lambda tmp: dask.delayed(lambda lock: 1)(threading.Lock()),
    "a lock ": lambda tmp: dask.delayed(lambda lock: 1)(SerializableLock("name")),
    "an iterator": lambda tmp: dask.delayed(lambda numbers: 1, traverse=False)(x for x in range(3)),
    "coroutine": lambda tmp: dask.delayed(coroutine)(),
    "cannot be hashed": lambda tmp: dask.delayed(lambda holder: 1)(Holder(threading.Lock())),
    "stateful": lambda tmp: dask.delayed(cd.register_stateful(lambda: 1))(),
}


class Holder:
    def __init__(self, inside: Any) -> None:
        self.inside = inside


@pytest.mark.filterwarnings("ignore:coroutine")
@pytest.mark.filterwarnings("ignore:unclosed file")
@pytest.mark.parametrize("what", REFUSED)
def test_what_has_no_content_is_computed_and_explained(cache: UnifiedCache, tmp_path: Path, what: str) -> None:
    collection = dask.delayed(lambda x: (x, 1)[1])(REFUSED[what](tmp_path))
    rows = cd.explain(collection, cache)
    refused = [row for row in rows if row.status == "refused"]
    assert len(refused) == 2
    assert what.strip() in refused[0].why
    assert refused[1].why.startswith("downstream of ")
    assert compute(cache, collection, which="all")[0] == 1
    assert cache.list_entries() == []
    del collection, rows, refused
    gc.collect()  # what is left open is collected here, and in no other test


def test_scattered_data_passes_through_and_explain_says_why(cache: UnifiedCache, client: Client) -> None:
    scattered = client.scatter(5)
    with cd.caching(cache) as run:
        assert dask.delayed(inc)(scattered).compute() == 6
        assert "has not seen" in cd.explain(dask.delayed(inc)(scattered))[0].why
    assert run.history[0].refused == 1
    assert cache.list_entries() == []


class Counter:
    def __init__(self) -> None:
        self.n = 0

    def next(self) -> int:
        self.n += 1
        return self.n


def test_actors_are_left_alone(cache: UnifiedCache, client: Client) -> None:
    cd.install(client, cache)
    try:
        counter = client.submit(Counter, actor=True).result()
        assert [counter.next().result() for _ in range(2)] == [1, 2]
        assert client.submit(coroutine).result() == 1
    finally:
        cd.uninstall(client)
    assert cache.list_entries() == []


def test_none_and_iterators_are_never_stored(cache: UnifiedCache) -> None:
    compute(cache, dask.delayed(lambda: None)(), which="all")
    compute(cache, dask.delayed(list)(dask.delayed(iter)([1, 2])), which="all")
    assert {entry["function"] for entry in cache.list_entries()} <= {"list"}


def test_tasks_can_be_pickled_with_their_cache(cache: UnifiedCache) -> None:
    from cacheness_dask.computing import Compute
    from cacheness_dask.loading import Load
    from cacheness_dask.policy import Policy
    from cacheness_dask.worker import Store

    store = Store(cache.config, Policy())
    for task in (Compute(inc, store, bytes(32), "inc", True), Load(store, "0" * 64, "inc", None)):
        assert pickle.loads(pickle.dumps(task)).__name__ == "inc"
    assert inspect.iscoroutinefunction(Compute(coroutine, store, bytes(32), "c", True)) is False


def test_sources_and_handles_inside_of_other_arguments_are_seen(cache: UnifiedCache, tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_text("one")
    digests = []
    for content in ("one", "one", "two"):
        path.write_text(content)
        holder = Holder(fsspec.open(str(path)))
        digests.append(digest(dask.delayed(lambda h: 1)(holder)))
    assert digests[0] == digests[1] != digests[2]
    assert digest_of(fsspec.open(str(path))) == digest_of(fsspec.open(str(path)))  # the core has learnt it, too
    (row,) = cd.explain(dask.delayed(lambda h: 1)(Holder(SerializableLock())), cache)
    assert row.status == "refused"
    assert "a lock" in row.why


def test_handles_count_outside_of_graphs_as_they_did_before_a_graph_was_planned(cache: UnifiedCache) -> None:
    fsspec.filesystem("memory").pipe("/handles/a", b"1")
    before = digest_of(fsspec.open("memory://handles/a"))
    compute(cache, dask.delayed(inc)(1))
    assert digest_of(fsspec.open("memory://handles/a")) == before
    fsspec.filesystem("memory").pipe("/handles/a", b"2")
    assert digest_of(fsspec.open("memory://handles/a")) != before


def test_one_file_in_many_tasks_is_read_once(cache: UnifiedCache, tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_text("x" * 1000)
    with noting_files() as files:
        assert len({file_at(str(path)) for _ in range(5)}) == 1
        path.write_text("changed while the graph was looked at")
        file_at(str(path))
    assert files[str(path)][0] == 1000  # so that the change is noticed when the results are there


def test_xarray_files_count_by_their_content(cache: UnifiedCache, tmp_path: Path) -> None:
    seen = []
    for start in (0.0, 0.0, 1.0):
        if len(seen) != 1:
            xr.Dataset({"t": ("x", start + np.arange(4.0))}).to_netcdf(tmp_path / "a.nc", engine="scipy")
        with xr.open_dataset(tmp_path / "a.nc", engine="scipy", chunks={"x": 2}) as data:
            value, record = compute(cache, data.t.sum())
        seen.append((float(value), record.misses > 0, record.refused))
    assert seen == [(6.0, True, 0), (6.0, False, 0), (10.0, True, 0)]


class Service:
    def __init__(self) -> None:
        self.lock = threading.Lock()


def test_a_refusal_names_what_there_is_for_graphs(cache: UnifiedCache) -> None:
    for without_content in (Service(), threading.Lock(), iter([1])):
        (row,) = cd.explain(dask.delayed(len)([without_content]), cache)
        assert row.status == "refused"
        assert "register_source(type, identity)" in row.why
        assert "ignore=" not in row.why
