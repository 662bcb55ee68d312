"""What names a file counts by its content: in strings by the conditions of the rule, and behind lazy readers."""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
import pathlib
import types
from collections.abc import Callable, Iterator
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from dask.utils import methodcaller
from pyarrow import csv

from cacheness import File, UnhashableArgument, UnifiedCache, register
from cacheness.keys import Inputs, digest_of, inputs, make_key


@pytest.fixture(autouse=True)
def here(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cache(here: pathlib.Path) -> Iterator[UnifiedCache]:
    with UnifiedCache(cache_dir=here / ".kept") as cache:
        yield cache


def body(*_: Any) -> int:
    return 1


def key(value: Any) -> Any:
    return make_key(args={"value": value}, function=body)


def write(text: str) -> None:
    pathlib.Path("table.csv").write_text(text)
    pathlib.Path("train").write_text(text)
    pathlib.Path("folder/deep").mkdir(parents=True, exist_ok=True)
    pathlib.Path("folder/deep/a.txt").write_text(text)
    pathlib.Path("store/deep").mkdir(parents=True, exist_ok=True)
    pathlib.Path("store/zarr.json").write_text("{}")
    pathlib.Path("store/deep/0").write_text(text)


def depends(make: Callable[[], Any]) -> bool:
    """Whether a key is another one after the files were rewritten, and the first one when they are as before."""
    keys = []
    for text in ("a\n1\n", "a\n22\n", "a\n1\n"):
        write(text)
        keys.append(key(make()))
    assert keys[0] == keys[2]
    return bool(keys[0] != keys[1])


@dataclasses.dataclass
class Settings:
    where: Any


class Own(type(pathlib.Path())):  # type: ignore[misc]  # as libraries of paths make it
    pass


class Like:
    def __fspath__(self) -> str:
        return "table.csv"


def absolute(name: str) -> str:
    return os.path.abspath(name)


LONG = ("table.csv", "x" * 10_000)
FILES: dict[str, Callable[[], Any]] = {
    "a suffix": lambda: "table.csv",
    "a separator": lambda: "./train",
    "absolute": lambda: absolute("train"),
    "a url": lambda: "file://" + absolute("table.csv"),
    "a url on localhost": lambda: "file://localhost" + absolute("table.csv"),
    "a quoted url": lambda: "file://" + absolute("table.csv").replace("table", "%74able"),
    "a chain of urls": lambda: "simplecache::file://" + absolute("table.csv"),
    "list in a tuple": lambda: (["table.csv"],),
    "set": lambda: {"b", "table.csv", "c"},
    "value of a dict": lambda: {"path": "table.csv"},
    "deque": lambda: collections.deque(["table.csv"]),
    "ordered dict": lambda: collections.OrderedDict(path="table.csv"),
    "attribute": lambda: Settings("table.csv"),
    "attribute of an attribute": lambda: types.SimpleNamespace(inner=Settings(["table.csv"])),
    "value that is a key as well": lambda: {LONG: 1, "other": LONG},
    "partial": lambda: functools.partial(body, "table.csv"),
    "numpy's text": lambda: np.array(["table.csv"])[0],
    "subclass of str": lambda: type("Name", (str,), {})("table.csv"),
    "the last that is looked at": lambda: ["b"] * (inputs.MOST_STRINGS - 1) + ["table.csv"],
    "data set in a folder": lambda: "./store",
    "path of a folder": lambda: pathlib.Path("folder"),
    "path": lambda: pathlib.Path("table.csv"),
    "path within": lambda: Settings([pathlib.Path("table.csv")]),
    "subclass of Path": lambda: Own("table.csv"),
    "path-like": lambda: Like(),
    "File": lambda: File("table.csv"),
    "fsspec": lambda: fsspec.open("table.csv"),
    "fsspec, many": lambda: fsspec.open_files("*.csv"),
    "fsspec, within": lambda: {"files": [fsspec.open("file://" + absolute("table.csv"), "rt")]},
    "mapper": lambda: fsspec.get_mapper("folder"),
    "lazy csv": lambda: pl.scan_csv("table.csv").filter(pl.col("a") > 0),
    "lazy pattern": lambda: pl.scan_csv("*.csv"),
    "lazy join": lambda: pl.LazyFrame({"a": [1]}).join(pl.scan_csv("table.csv"), on="a"),
    "data set": lambda: ds.dataset("table.csv", format="csv"),
    "union of data sets": lambda: ds.dataset([ds.dataset("table.csv", format="csv")] * 2),
    "fragment": lambda: next(iter(ds.dataset("table.csv", format="csv").get_fragments())),
}
TEXTS: dict[str, Callable[[], Any]] = {
    "a word": lambda: "train",
    "folder": lambda: "./folder",
    "key of a dict": lambda: {"table.csv": 1},
    "array": lambda: np.array(["table.csv"], object),
    "array of tuples": lambda: np.array([("table.csv",), 1], object),
    "frame": lambda: pd.DataFrame({"a": ["table.csv"]}),
    "series of polars": lambda: pl.Series(["table.csv"]),
    "column of a frame": lambda: pd.DataFrame({"table.csv": [1]}),
    "one too late": lambda: ["b"] * inputs.MOST_STRINGS + ["table.csv"],
    "pure path": lambda: pathlib.PurePosixPath("table.csv"),
    "another machine's": lambda: "s3://bucket/table.csv",
}


@pytest.mark.parametrize("what", FILES)
def test_a_file_counts_by_its_content(what: str) -> None:
    assert depends(FILES[what])


def test_how_the_files_of_a_data_set_are_read_counts() -> None:
    write("a\n1\n2\n")
    forms = [
        {},
        {"parse_options": csv.ParseOptions(delimiter=";")},
        {"read_options": csv.ReadOptions(skip_rows_after_names=1)},
        {"read_options": csv.ReadOptions(skip_rows_after_names=2)},
        {"convert_options": csv.ConvertOptions(null_values=["2"])},
        {"convert_options": csv.ConvertOptions(column_types={"a": pa.int64()}, null_values=["2"])},
    ]
    whole = pa.schema([("a", pa.int64())])
    sets = [[ds.dataset("table.csv", whole, ds.CsvFileFormat(**form)) for form in forms] for _ in range(2)]
    fragments = [next(iter(one.get_fragments())) for one in sets[0]]
    assert [key(one) for one in sets[0]] == [key(one) for one in sets[1]]
    assert len({key(one).hex for one in [*sets[0], *fragments]}) == 2 * len(forms)


@pytest.mark.parametrize("what", TEXTS)
def test_what_is_no_name_of_a_file_counts_by_its_text(what: str) -> None:
    assert not depends(TEXTS[what])


def test_names_that_a_user_gives_by_hand_are_labels(cache: UnifiedCache) -> None:
    write("1")
    cache.put("kept", table="table.csv")
    write("2")
    assert cache.get(table="table.csv") == "kept"


class Table:
    def __init__(self, name: str) -> None:
        self.name = name


def test_what_is_registered_counts_as_it_says() -> None:
    register(Table, lambda table: table.name)
    assert not depends(lambda: Table("table.csv"))


def test_the_option_key_counts_as_it_says(cache: UnifiedCache) -> None:
    asked = cache.cached(key=lambda path: path)(body)
    write("1")
    before = asked.key("table.csv")
    write("2")
    assert asked.key("table.csv") == before


def test_two_names_of_one_content_are_two_strings() -> None:
    write("1")
    assert key("table.csv") != key("./table.csv")
    assert key(pathlib.Path("table.csv")) == key(pathlib.Path("train"))


def test_an_entry_can_be_found_by_its_arguments(cache: UnifiedCache) -> None:
    write("1")
    cached = cache.cached(body)
    cached("table.csv")
    [entry] = cache.list_entries()
    assert cache.get(**entry["args"]) == 1


@pytest.mark.parametrize(
    "name", ["/proc/self/status", "/proc/self/fd/0", "/dev/null", "nowhere.csv", "./\0", "a\ud800.csv"]
)
def test_what_is_no_regular_file_counts_by_its_text(name: str) -> None:
    known = Inputs()
    assert digest_of(name, inputs=known) == digest_of(name)
    assert not known.found


def test_a_pipe_is_not_waited_for() -> None:
    os.mkfifo("pipe.csv")
    assert digest_of("./pipe.csv", inputs=Inputs()) == digest_of("./pipe.csv")


def test_what_is_too_large_to_read_counts_by_its_text_and_is_listed(
    cache: UnifiedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("12345")
    monkeypatch.setattr(inputs, "MOST_BYTES", 4)
    asked = cache.cached(body)
    before = asked.key("table.csv")
    write("67890")
    assert asked.key("table.csv") == before
    assert asked.explain("table.csv").text == ("arg `_`: table.csv",)


def test_what_cannot_be_read_counts_by_its_text_and_is_listed(
    cache: UnifiedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("12345")

    def refuse(path: str, flags: int) -> int:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("cacheness.keys.values.files._open_at_once", refuse)
    asked = cache.cached(body)
    assert asked("table.csv") == 1
    assert asked.explain("table.csv").text == ("arg `_`: table.csv",)


def test_a_data_set_with_very_many_files_counts_by_its_name(
    cache: UnifiedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("1")
    monkeypatch.setattr(inputs, "MOST_CHUNKS", 1)
    told = cache.cached(body).explain("./store")
    assert (told.files, told.folders, told.text) == ((), ("arg `_`: ./store",), ("arg `_`: ./store",))


def test_explain_names_files_and_folders(cache: UnifiedCache) -> None:
    write("1")
    asked = cache.cached(body)
    told = str(asked.explain(["table.csv", "./folder", "./store", "train"]))
    assert "counts by its content: arg `_`: table.csv" in told
    assert "names a folder: arg `_`: ./folder" in told
    assert "counts by its content: arg `_`: ./folder" not in told
    assert "counts by its content: arg `_`: ./store" in told
    assert "train" not in told


def test_a_file_that_was_never_seen_is_another_file(cache: UnifiedCache) -> None:
    write("1")
    pathlib.Path("other.csv").write_text("1")
    asked = cache.cached(body)
    for kind in (str, pathlib.Path):
        asked(kind("table.csv"))
        told = str(asked.explain(kind("other.csv")))
        assert ("another file: other.csv, where the nearest entry had table.csv" in told) == (kind is str)
        assert "`_`: no file, where the nearest entry had table.csv" in str(asked.explain(kind("absent.csv")))
    write("2")
    assert "file table.csv changed" in str(asked.explain("table.csv"))
    pathlib.Path("table.csv").unlink()
    assert "`_`: no file, where the nearest entry had table.csv" in str(asked.explain("table.csv"))


def test_what_cannot_be_seen_is_refused() -> None:
    write("a\n1\n")
    with fsspec.open("table.csv") as opened:
        for value in (fsspec.open("table.csv", "wb"), opened, ds.dataset("table.csv", format="csv").scanner()):
            with pytest.raises(UnhashableArgument):
                key(value)


def test_a_remote_file_counts_by_what_its_store_says() -> None:
    system = fsspec.filesystem("memory")
    keys = []
    for content in (b"1", b"2", b"1"):
        system.pipe("/bucket/a", content)
        keys.append((key(fsspec.open("memory://bucket/a")), key(fsspec.get_mapper("memory://bucket"))))
    system.store.clear()
    assert keys[0] == keys[2]
    assert keys[0][0] != keys[1][0]
    assert keys[0][1] != keys[1][1]


@pytest.mark.parametrize("value", [methodcaller("shift"), np.ma.MaskedArray, functools.partial(pd.read_csv, sep=";")])
def test_names_of_a_librarys_things_are_no_names_of_files(value: object) -> None:
    found = Inputs()
    digest_of(value, inputs=found)
    assert not found


@pytest.fixture
def tables() -> None:
    for name in ("data/a.csv", "data/b.csv", "data/note.txt", "c.csv"):
        pathlib.Path(name).parent.mkdir(exist_ok=True)
        pathlib.Path(name).write_text("1")


PATTERNS: dict[str, Callable[[str], Any]] = {
    "a string": str,
    "absolute": os.path.abspath,
    "a url": lambda text: f"file://{os.path.abspath(text)}",
    "in a list": lambda text: {"tables": [text]},
    "a path": pathlib.Path,
    "an attribute": Settings,
}


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("make", PATTERNS.values(), ids=PATTERNS)
def test_a_pattern_counts_by_what_matches_it(make: Callable[[str], Any]) -> None:
    def found() -> Any:
        return key(make("data/*.csv"))

    first = found()
    pathlib.Path("data/note.txt").write_text("another")
    pathlib.Path("c.csv").write_text("another")
    assert found() == first
    pathlib.Path("data/a.csv").write_text("2")
    changed = found()
    pathlib.Path("data/a.csv").write_text("1")
    assert found() == first
    pathlib.Path("data/c.csv").write_text("1")
    added = found()
    pathlib.Path("data/c.csv").rename("data/d.csv")
    assert len({first, changed, added, found()}) == 4


@pytest.mark.usefixtures("tables")
def test_patterns_of_one_set_of_files_are_two_strings() -> None:
    assert len({key("data/*.csv"), key("data/[ab].csv"), key("data/?.csv")}) == 3


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(
    "text",
    ["data/*.parquet", r"data/\d+[.]csv", "*", "[a-z]+", "nowhere/*.csv", "What is a/b? It is no pattern.", "a**b"],
)
def test_a_text_that_nothing_matches_is_text(text: str) -> None:
    before = key(text)
    write("another")
    assert key(text) == before
    assert key(text) == make_key(args={"value": text}, function=body)


def test_a_file_with_brackets_in_its_name_is_that_file() -> None:
    pathlib.Path("part[1].csv").write_text("a")
    pathlib.Path("part1.csv").write_text("a")
    before = key("part[1].csv")
    pathlib.Path("part1.csv").write_text("b")
    assert key("part[1].csv") == before
    pathlib.Path("part[1].csv").write_text("b")
    assert key("part[1].csv") != before


@pytest.mark.usefixtures("tables")
def test_patterns_that_are_not_followed_are_listed(cache: UnifiedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    @cache.cached
    def read(pattern: str) -> int:
        return len(pattern)

    assert read.explain("data/**/*.csv").text == ("arg `pattern`: data/**/*.csv",)
    monkeypatch.setattr(inputs, "MOST_MATCHES", 1)
    assert read.explain("data/*.csv").text == ("arg `pattern`: data/*.csv",)


@pytest.mark.usefixtures("tables")
def test_a_call_with_a_pattern_is_served_while_its_files_are_as_they_were(cache: UnifiedCache) -> None:
    calls = []

    @cache.cached(ignore=("log",))
    def read(pattern: str, log: Any) -> list[str]:
        log.append(pattern)
        return [path.read_text() for path in sorted(pathlib.Path().glob(pattern))]

    assert read("data/*.csv", calls) == read("data/*.csv", calls) == ["1", "1"]
    assert len(calls) == 1
    assert "data/a.csv" in str(read.explain("data/*.csv", calls))
    pathlib.Path("data/b.csv").write_text("2")
    assert read("data/*.csv", calls) == ["1", "2"]
    pathlib.Path("data/c.csv").write_text("3")
    assert read("data/*.csv", calls) == ["1", "2", "3"]
    assert len(calls) == 3


def test_a_function_that_writes_what_a_pattern_matches_is_served_with_its_files(cache: UnifiedCache) -> None:
    calls = []

    @cache.cached(ignore=("log",))
    def split(pattern: str, log: Any) -> int:
        log.append(pattern)
        for number in range(2):
            pathlib.Path(pattern.replace("*", str(number))).write_text("made")
        return 2

    pathlib.Path("out").mkdir()
    for _ in range(3):
        assert split("out/*.csv", calls) == 2
    assert len(calls) <= 2
    pathlib.Path("out/1.csv").write_text("spoiled")
    split("out/*.csv", calls)
    assert pathlib.Path("out/1.csv").read_text() == "made"
