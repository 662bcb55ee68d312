"""Files that tasks name: known wherever the name stands, checked where the task runs, and what is never stored."""

from __future__ import annotations

import dataclasses
import io
import itertools
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import types
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dask.utils import SerializableLock
from distributed import Client

import cacheness_dask as cd
from cacheness import UnifiedCache
from cacheness_dask.columns import _may_hold_texts, names_in


@pytest.fixture(autouse=True)
def here(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def compute(cache: UnifiedCache, collection: Any, **options: Any) -> tuple[Any, cd.Run]:
    with cd.caching(cache, **{"scheduler": "sync", "which": "all", **options}) as run:
        (value,) = dask.compute(collection)
    return value, run


@dataclasses.dataclass(frozen=True)
class Settings:
    path: Any


def number(where: Any) -> int:
    where = where.path if isinstance(where, Settings) else where
    where = where[0] if isinstance(where, list | tuple) else where
    where = str(where).removeprefix("file://")
    return int(pathlib.Path(where).read_text())


NAMES: dict[str, Callable[[pathlib.Path], Any]] = {
    "no separator": lambda here: dask.delayed(number)("n.txt"),
    "url": lambda here: dask.delayed(number)(f"file://{here}/n.txt"),
    "attribute": lambda here: dask.delayed(number)(Settings("n.txt")),
    "path in an attribute": lambda here: dask.delayed(number)(Settings(here / "n.txt")),
    "tuple": lambda here: dask.delayed(number)(("n.txt", 1)),
    "keyword": lambda here: dask.delayed(number)(where="n.txt"),
    "an item of a bag": lambda here: db.from_sequence(["n.txt", "n.txt"], npartitions=2).map(number).sum(),
    "a value on its own": lambda here: dask.delayed(number)(dask.delayed("n.txt")),
    "a value within another": lambda here: dask.delayed(number)([dask.delayed("n.txt")]),
}


@pytest.mark.parametrize("what", NAMES)
def test_a_name_counts_by_the_content_of_its_file(cache: UnifiedCache, here: pathlib.Path, what: str) -> None:
    seen = []
    for text in ("1", "2", "2"):
        pathlib.Path("n.txt").write_text(text)
        value, run = compute(cache, NAMES[what](here))
        seen.append((value, run.history[-1].hits))
    times = 2 if "bag" in what else 1
    assert [value for value, _ in seen] == [times, 2 * times, 2 * times]
    assert [hits for _, hits in seen] == [0, 0, 1]


@pytest.mark.parametrize("value", ["train", {"n.txt": 1}])
def test_words_and_keys_are_no_files(cache: UnifiedCache, value: Any) -> None:
    pathlib.Path("train").write_text("1")
    pathlib.Path("n.txt").write_text("1")
    compute(cache, dask.delayed(repr)(value))
    pathlib.Path("train").write_text("2")
    pathlib.Path("n.txt").write_text("2")
    assert compute(cache, dask.delayed(repr)(value))[1].history[-1].hits == 1


def test_a_relative_name_is_checked_where_the_task_runs(
    client: Client, cache: UnifiedCache, here: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    pathlib.Path("n.txt").write_text("1")
    (elsewhere / "n.txt").write_text("2")
    before = client.run(os.getcwd)
    client.run(os.chdir, str(elsewhere))
    try:
        value, run = compute(cache, dask.delayed(number)("n.txt"), scheduler=client)
        assert (value, run.history[-1].stored) == (2, 0)
        assert "where the task runs" in str(run)
        (elsewhere / "n.txt").write_text("1")
        value, run = compute(cache, dask.delayed(number)("n.txt"), scheduler=client)
        assert (value, run.history[-1].stored) == (1, 1)
    finally:
        for worker, folder in before.items():
            client.run(os.chdir, folder, workers=[worker])


def replaced(path: str) -> int:
    before = number(path)
    subprocess.run([sys.executable, "-c", f"open({path!r}, 'w').write('7')"], check=True)
    return before


def test_what_others_replaced_while_a_task_ran_is_not_stored(cache: UnifiedCache) -> None:
    pathlib.Path("n.txt").write_text("1")
    _, run = compute(cache, dask.delayed(replaced)("n.txt"))
    assert run.history[-1].stored == 0
    assert "n.txt changed while it was computed" in str(run)


# what is never stored


def opened(path: str) -> Any:
    return open(path)


def closed(file: Any) -> str:
    with file:
        return str(file.read())


def mapped() -> Any:
    return {"map": np.load("m.npy", mmap_mode="r")}


HANDLES: dict[str, tuple[Callable[[], Any], str]] = {
    "file": (lambda: closed_in_a_task(), "an open file"),
    "lock in a list": (lambda: dask.delayed(lambda: [1, dask.utils.SerializableLock()])(), "a lock"),
    "map": (lambda: dask.delayed(mapped)(), "mapped from a file"),
    "None": (lambda: dask.delayed(lambda: None)(), "None"),
    "too large": (lambda: dask.delayed(lambda: bytes(2000))(), "too large"),
}


def closed_in_a_task() -> Any:
    pathlib.Path("n.txt").write_text("1")
    return dask.delayed(closed)(dask.delayed(opened)("n.txt"))


@pytest.mark.parametrize("what", HANDLES)
def test_what_cannot_be_stored_is_said_and_known_when_it_is_planned_again(cache: UnifiedCache, what: str) -> None:
    np.save("m.npy", np.arange(3))
    make, why = HANDLES[what]
    task = make()
    with cd.caching(cache, scheduler="sync", which="all", max_value_bytes=1000) as run:
        task.compute()
        run.flush()
        assert [reason for whys in run.unstored.values() for reason in whys if why in reason]
        task.compute()
        assert not run.history[-1].refused or why in str(run.history[-1].reasons)
        assert run.history[-1].hits + run.history[-1].refused == 1
        assert why in str(run)


targets: dict[str, Any] = {}


def target(name: str) -> Any:
    targets[name] = np.zeros(4)
    return targets[name]


def half(whole: Any) -> Any:
    return whole[:4]


MADE: dict[str, Callable[[], Any]] = {
    "itself": lambda: dask.delayed(target)("mine"),
    "what another task makes of it": lambda: dask.delayed(half)(dask.delayed(target)("mine")),
}


@pytest.mark.parametrize("what", MADE)
def test_what_a_task_writes_to_is_made_each_time(cache: UnifiedCache, what: str) -> None:
    for _ in range(2):
        targets.clear()
        with cd.caching(cache, scheduler="sync", which="all"):
            da.store(da.ones(4, chunks=2), MADE[what]())
        assert targets["mine"].tolist() == [1, 1, 1, 1]


def test_a_target_that_stands_there_already_is_written_to_each_time(cache: UnifiedCache) -> None:
    for _ in range(2):
        array = np.zeros(4)
        with cd.caching(cache, scheduler="sync", which="all"):
            da.store(da.ones(4, chunks=2), array)
        assert array.sum() == 4


@pytest.fixture
def installed(client: Client, cache: UnifiedCache) -> Iterator[Client]:
    cd.install(client, cache, which="all")
    yield client
    cd.uninstall(client)


counter = itertools.count()


def again(path: str) -> int:
    with open(path, "a") as file:
        file.write("x")
        return file.tell()


def test_what_is_submitted_as_impure_runs_each_time(installed: Client, here: pathlib.Path) -> None:
    path = str(here / "impure.log")
    assert [installed.submit(again, path, pure=False).result() for _ in range(3)] == [1, 2, 3]
    assert installed.gather(installed.map(again, [path], pure=False)) == [4]
    cd.uninstall(installed)
    assert installed.submit(again, path, pure=False).result() == 5


def test_what_follows_an_impure_call_runs_each_time_too(installed: Client, here: pathlib.Path) -> None:
    path = str(here / "impure.log")
    results = [installed.submit(str, installed.submit(again, path, pure=False)).result() for _ in range(2)]
    assert results == ["1", "2"]


def test_a_file_that_was_never_seen_is_another_file(cache: UnifiedCache) -> None:
    for name in ("january.txt", "february.txt", "march.txt"):
        pathlib.Path(name).write_text("1")
        os.utime(name, (0, 0))
    compute(cache, dask.delayed(number)("january.txt"))
    [row] = cd.explain(dask.delayed(number)("february.txt"), cache)
    assert row.why.startswith("another input: february.txt, where the nearest entry had january.txt, ")
    compute(cache, dask.delayed(number)("march.txt"))
    pathlib.Path("january.txt").write_text("2")
    [row] = cd.explain(dask.delayed(number)("january.txt"), cache)
    assert row.why.startswith("input january.txt changed since")


def test_files_within_an_argument_are_named_too(cache: UnifiedCache) -> None:
    for name in ("january", "february", "march"):
        pd.DataFrame({"a": [len(name)]}).to_parquet(f"{name}.parquet")
    compute(cache, dask.delayed(len)(["january.parquet", "march.parquet"]))
    [row] = cd.explain(dask.delayed(len)(["february.parquet", "march.parquet"]), cache)
    assert row.why.startswith("another input: february.parquet, where the nearest entry had january.parquet, march.p")
    pd.DataFrame({"a": [1]}).to_parquet("march.parquet")
    [row] = cd.explain(dask.delayed(len)(["january.parquet", "march.parquet"]), cache)
    assert row.why.startswith("one of the inputs january.parquet, march.parquet changed since")
    compute(cache, dd.read_parquet("january.parquet"))
    here = os.getcwd()
    row = cd.explain(dd.read_parquet("february.parquet"), cache)[0]
    assert row.why.startswith(f"another input: {here}/february.parquet, where the nearest entry had {here}/january.")
    pd.DataFrame({"a": [5]}).to_parquet("january.parquet")
    row = cd.explain(dd.read_parquet("january.parquet"), cache)[0]
    assert row.why.startswith(f"input {here}/january.parquet changed since")


def test_very_many_files_are_no_reason_to_call_one_of_them_another(cache: UnifiedCache) -> None:
    names = [f"{number}.txt" for number in range(20)]
    for name in names:
        pathlib.Path(name).write_text(name)
    compute(cache, dask.delayed(len)(names))
    pathlib.Path(names[-1]).write_text("new")
    [row] = cd.explain(dask.delayed(len)(names), cache)
    assert "another input" not in row.why
    assert "changed since" in row.why


# what leaves something behind


def to_a_constant(x: int) -> int:
    with open("report.txt", "w") as file:
        file.write(str(x))
    return x


REPORT = pathlib.Path("report.txt")


def to_a_global(x: int) -> int:
    REPORT.write_text(str(x))
    return x


def by_a_helper(x: int) -> int:
    return to_a_constant(x)


def to_a_computed_name(x: int) -> int:
    np.save(f"report-{x}", np.arange(x))
    return x


def to_a_joined_name(x: int) -> int:
    with open(os.path.join(os.getcwd(), f"report-{x}.txt"), "w") as file:
        file.write(str(x))
    return x


def to_a_name_in_a_list(x: int) -> int:
    with pathlib.Path(*[str(pathlib.Path.cwd()), "report.txt"]).open(mode="w") as file:
        file.write(str(x))
    return x


def copied(x: int) -> int:
    shutil.copy("n.txt", f"report{x}.txt")
    return x


def linked(x: int) -> int:
    pathlib.Path(f"report{x}.txt").unlink(missing_ok=True)
    os.link("n.txt", f"report{x}.txt")
    return x


def zipped(x: int) -> int:
    with zipfile.ZipFile(f"report-{x}.zip", "w") as file:
        file.writestr("x", str(x))
    return x


def by_a_library(x: int) -> int:
    path = f"report-{x}.parquet"
    pd.DataFrame({"x": [x]}).to_parquet(path)
    return x


class Exporter:
    def __init__(self, name: str) -> None:
        self.name = name

    def save(self, x: int) -> int:
        pq.write_table(pa.table({"x": [x]}), f"{self.name}-{x}")  # type: ignore[no-untyped-call]
        return x


def by_a_method(x: int) -> int:
    return Exporter("report").save(x)


WRITING = [to_a_constant, to_a_global, by_a_helper, to_a_computed_name, to_a_joined_name, to_a_name_in_a_list, copied]


@pytest.mark.parametrize("fn", [*WRITING, linked, zipped, by_a_library, by_a_method])
def test_what_writes_elsewhere_runs_each_time_with_what_follows(
    cache: UnifiedCache, caplog: pytest.LogCaptureFixture, fn: Callable[[int], int]
) -> None:
    pathlib.Path("n.txt").write_text("1")
    for _ in range(2):
        for path in pathlib.Path().glob("report*"):
            path.unlink()
        _, run = compute(cache, dask.delayed(repr)(dask.delayed(fn)(3)))
        assert list(pathlib.Path().glob("report*"))
        assert run.history[-1].hits == 0
    assert f"{fn.__name__} runs every time" in caplog.text
    with cd.caching(cache, scheduler="sync", which="all") as run:
        dask.delayed(fn)(3).compute()
        run.flush()
        dask.delayed(fn)(3).compute()
        assert run.history[-1].refused == 1
        assert "sink" in str(run.history[-1].reasons)


def scratch(x: int) -> int:
    np.save("scratch.npy", np.arange(x))
    total = int(np.load("scratch.npy").sum())
    os.remove("scratch.npy")
    return total


def logged(x: int) -> int:
    with open("a.log", "a") as file:
        file.write("ran\n")
    return x


def renamed(x: int) -> str:
    return f"a/b{x}".replace("a/b", "c.d")


def in_memory(x: int) -> bytes:
    buffer = io.BytesIO()
    pd.DataFrame({"x": [x]}).to_parquet(buffer)
    return buffer.getvalue()


def by_a_library_with_a_cache(x: int) -> int:
    os.makedirs(os.path.expanduser("~/.fonts-of-a-library"))
    return x


@pytest.mark.parametrize("fn", [scratch, logged, renamed, in_memory, by_a_library_with_a_cache])
def test_what_leaves_nothing_behind_or_logs_is_stored(
    cache: UnifiedCache, fn: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", os.getcwd())
    first, _ = compute(cache, dask.delayed(fn)(3))
    again, run = compute(cache, dask.delayed(fn)(3))
    assert (first, run.history[-1].hits) == (again, 1)


# what a task itself writes


def process(source: str, target: str) -> str:
    with open(source) as lines, open(target, "w") as out:
        out.write(lines.read().upper())
    return target


def text_of(path: str) -> str:
    return pathlib.Path(path).read_text()


def written() -> Any:
    return dask.delayed(process)(dask.delayed(process)("n.txt", "a.txt"), "b.txt")


def chain() -> Any:
    return dask.delayed(text_of)(written())


def test_what_a_task_wrote_is_there_when_it_hits(cache: UnifiedCache) -> None:
    pathlib.Path("n.txt").write_text("one")
    assert compute(cache, chain())[0] == "ONE"
    _, run = compute(cache, chain())
    assert (run.history[-1].misses, run.history[-1].refused) == (0, 0)
    for path in ("a.txt", "b.txt"):
        os.remove(path)
    assert compute(cache, chain())[0] == "ONE"  # what follows needs no file to be loaded
    assert compute(cache, written())[0] == "b.txt"
    assert text_of("b.txt") == "ONE"
    pathlib.Path("b.txt").write_text("else")
    compute(cache, written())
    assert text_of("b.txt") == "ONE"
    pathlib.Path("n.txt").write_text("three")
    assert compute(cache, chain())[0] == "THREE"
    compute(cache, chain())
    value, run = compute(cache, chain())
    assert (value, run.history[-1].misses) == ("THREE", 0)


def appended(x: int, path: str) -> int:
    with open(path, "a") as file:
        file.write(f"{x}\n")
    return x


def test_a_log_that_grows_is_text(cache: UnifiedCache) -> None:
    for _ in range(2):
        total = dask.delayed(sum)([dask.delayed(appended)(x, "a.log") for x in (1, 2)])
        assert compute(cache, total)[0] == 3
    assert compute(cache, total)[1].history[-1].misses == 0


@pytest.mark.parametrize("which", ["all", "marked"])
def test_workers_tell_what_changes_its_arguments_in_place(cache: UnifiedCache, client: Client, which: Any) -> None:
    def grow(items: list[int]) -> int:
        items.append(1)
        return len(items)

    task = dask.delayed(grow, pure=True)(dask.delayed(sorted, pure=True)((3, 2)))
    with cd.caching(cache, scheduler=client, which=which, check_inputs=1) as run:
        assert task.compute(optimize_graph=False) == 3
    (counted,) = (whys for name, whys in run.unstored.items() if name.endswith("grow"))
    assert counted == {"in place: it changes argument 1 (list)": 1}


LISTED: dict[str, Callable[[list[str]], Any]] = {
    "blocks of an array": lambda names: da.from_array(names, chunks=1).map_blocks(sizes_in, dtype=int),
    "an array of objects": lambda names: dask.delayed(sizes_in)(np.array(names, dtype=object)),
    "texts of numpy's own": lambda names: dask.delayed(sizes_in)(np.array(names, dtype=np.dtypes.StringDType())),
    "a series": lambda names: dask.delayed(sizes_in)(pd.Series(names)),
    "an index": lambda names: dask.delayed(sizes_in)(pd.Index(names, dtype=object)),
    "a column": lambda names: (
        dd.from_pandas(pd.DataFrame({"n": [1, 2, 3], "path": names}), npartitions=3)
        .map_partitions(lambda part: pd.Series(sizes_in(part.path)), meta=("size", int))
        .sum()
    ),
}


def sizes_in(names: Any) -> Any:
    return np.array([os.path.getsize(name) for name in names])


@pytest.mark.parametrize("where", LISTED)
def test_names_in_arrays_and_columns_are_files(cache: UnifiedCache, where: str) -> None:
    names = ["a.img", "b.img", "c.img"]
    for name in names:
        pathlib.Path(name).write_text(name)
    make = LISTED[where]
    first, _ = compute(cache, make(names))
    _, run = compute(cache, make(names))
    assert run.history[-1].misses == 0
    pathlib.Path("b.img").write_text("longer than it was")
    changed, _ = compute(cache, make(names))
    assert np.sum(changed) == np.sum(first) + 13


def test_texts_in_columns_are_no_names_of_files(cache: UnifiedCache) -> None:
    pathlib.Path("train").write_text("a file without a suffix")
    pathlib.Path("v.1").write_text("a text that only a later row names")
    frame = pd.DataFrame({"kind": ["train"] * 40 + ["v.1"], "v.1": range(41)})
    compute(cache, dask.delayed(len)(frame))
    for name in ("train", "v.1"):
        pathlib.Path(name).write_text("else")
    assert compute(cache, dask.delayed(len)(frame))[1].history[-1].misses == 0


def test_names_are_looked_for_while_another_thread_imports_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", types.ModuleType("pandas"))
    assert names_in(np.array(["a/b.csv"])) == ["a/b.csv"]
    assert names_in([1]) == []


class OnDisk:
    """As readers of HDF5 give it to `da.from_array`: it says where to look, and reads what it is asked for."""

    shape, ndim, dtype = (4,), 1, np.dtype("i8")

    def __init__(self, path: str) -> None:
        self.path = path

    def __getitem__(self, index: Any) -> Any:
        return np.load(self.path)[index]


@pytest.mark.parametrize("lock", [True, threading.Lock(), SerializableLock()], ids=["dasks", "threads", "named"])
@pytest.mark.parametrize("inline", [False, True])
def test_who_waits_for_whom_at_a_file_does_not_count(cache: UnifiedCache, lock: Any, inline: bool) -> None:
    seen = []
    for value in (1, 1, 2):
        np.save("x.npy", np.full(4, value))
        array = da.from_array(OnDisk("x.npy"), chunks=2, lock=lock, inline_array=inline)
        found, run = compute(cache, array[1:].sum())
        record = run.history[-1]
        seen.append((int(found), record.misses > 0, record.refused))
    assert seen == [(3, True, 0), (3, False, 0), (6, True, 0)]


def total_of(pattern: str) -> int:
    return sum(int(path.read_text()) for path in pathlib.Path().glob(pattern))


@pytest.mark.parametrize("give", [str, pathlib.Path, lambda text: [text], lambda text: np.array([text, "x"])])
def test_a_pattern_counts_by_what_matches_it(cache: UnifiedCache, give: Callable[[str], Any]) -> None:
    def read(patterns: Any) -> int:
        return sum(
            total_of(str(pattern)) for pattern in ([patterns] if isinstance(patterns, str | pathlib.Path) else patterns)
        )

    seen = []
    for name, text in (("n1.txt", "1"), ("n1.txt", "1"), ("n1.txt", "2"), ("n2.txt", "5"), ("other.csv", "7")):
        pathlib.Path(name).write_text(text)
        value, run = compute(cache, dask.delayed(read, pure=True)(give("n*.txt")))
        seen.append((value, run.history[-1].hits))
    assert seen == [(1, 0), (1, 1), (2, 0), (7, 0), (7, 1)]


def test_a_frame_is_searched_for_names_if_any_column_holds_objects() -> None:
    kinds: dict[str, Any] = {
        "numbers": [1, 2],
        "texts": pd.array(["a", "b"], dtype="str"),
        "objects": pd.Series(["a", 1], dtype=object),
        "categories": pd.Categorical(["a", "b"]),
        "nullable": pd.array([1, None], dtype="Int64"),
        "times": pd.date_range("2020", periods=2, tz="UTC"),
        "periods": pd.period_range("2020", periods=2),
        "spans": pd.arrays.IntervalArray.from_breaks([0, 1, 2]),
        "sparse": pd.arrays.SparseArray([0, 1]),
    }
    for names in itertools.combinations(kinds, 2):
        frame = pd.DataFrame({name: kinds[name] for name in names})
        assert _may_hold_texts(frame) is any(dtype.kind == "O" for dtype in frame.dtypes)
    assert not _may_hold_texts(pd.DataFrame())
