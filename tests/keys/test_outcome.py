"""What becomes of files while a body runs: replaced by others, written by the body, appended to, read in a folder."""

from __future__ import annotations

import asyncio
import io
import json
import operator
import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

import fsspec
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from cacheness import File, UnifiedCache
from cacheness.keys import Observed, Outcome, covers, make_key, outcome, still_left
from cacheness.keys.code.writers import effects_of, writes_to


@pytest.fixture(autouse=True)
def here(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    pathlib.Path("in.txt").write_text("first")
    pathlib.Path("old.txt").write_text("old")
    pathlib.Path("folder").mkdir()
    pathlib.Path("folder/a.txt").write_text("first")
    return tmp_path


@pytest.fixture
def cache(here: pathlib.Path) -> Iterator[UnifiedCache]:
    with UnifiedCache(cache_dir=here / ".kept") as cache:
        yield cache


def run(fn: Callable[..., Any], **args: Any) -> Outcome:
    with Observed(make_key(args=args, function=fn).inputs, fn) as observed:
        value = fn(**args)
    return observed.outcome(value)


def told(found: Outcome) -> set[tuple[str, str, str]]:
    assert not found.not_stored
    records = json.loads(found.outputs) if found.outputs else []
    return {(record["arg"], record["name"], record["kind"]) for record in records}


def by_another(command: str) -> None:
    subprocess.run([sys.executable, "-c", command], check=True)


# replaced by others

OTHERS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "name": (lambda: "in.txt", lambda: pathlib.Path("in.txt").write_text("other")),
    "path": (lambda: pathlib.Path("in.txt"), lambda: pathlib.Path("in.txt").write_text("other")),
    "File": (lambda: File("in.txt"), lambda: pathlib.Path("in.txt").write_text("other")),
    "pattern": (lambda: File("*.txt"), lambda: pathlib.Path("third.txt").write_text("other")),
    "within": (lambda: {"files": ["./in.txt"]}, lambda: os.replace("old.txt", "in.txt")),
    "same size and time": (lambda: "in.txt", lambda: replaced_alike("in.txt")),
    "folder": (lambda: pathlib.Path("folder"), lambda: pathlib.Path("folder/b.txt").write_text("other")),
    "lazy": (lambda: pl.scan_csv("in.txt"), lambda: pathlib.Path("in.txt").write_text("other")),
    "gone": (lambda: "in.txt", lambda: os.remove("in.txt")),
    "remote": (lambda: fsspec.open("memory://outcome/a"), lambda: remote("other")),
    "made": (lambda: "new.txt", lambda: pathlib.Path("new.txt").write_text("other")),
}


def replaced_alike(name: str) -> None:
    before = os.stat(name)
    pathlib.Path(name).write_text("FIRST")
    os.utime(name, ns=(before.st_atime_ns, before.st_mtime_ns))


def remote(text: str) -> None:
    fsspec.filesystem("memory").pipe("/outcome/a", text.encode())


@pytest.mark.parametrize("what", OTHERS)
def test_what_others_replaced_meanwhile_is_not_stored(cache: UnifiedCache, what: str) -> None:
    remote("first")
    make, change = OTHERS[what]
    changes = [change]

    @cache.cached
    def body(_: Any) -> int:
        if changes:
            thread = threading.Thread(target=changes.pop())  # what another thread does is not the body's
            thread.start()
            thread.join()
        return len(changes)

    body(make())
    assert cache.list_entries() == []


def test_what_nobody_touched_is_stored(cache: UnifiedCache) -> None:
    remote("first")
    for make, _ in OTHERS.values():
        cache.get_or_compute(len, [make()])
    assert len(cache.list_entries()) == len(OTHERS) - 2  # three are one name


def test_a_coroutine_is_observed_from_its_beginning_to_its_end(cache: UnifiedCache) -> None:
    @cache.cached
    async def body(path: str, change: bool) -> str:
        await asyncio.sleep(0)
        if change:
            await asyncio.to_thread(by_another, "open('in.txt', 'w').write('other')")
        return f"{path} was read"

    asyncio.run(body("in.txt", True))
    assert cache.list_entries() == []
    asyncio.run(body("in.txt", False))
    assert len(cache.list_entries()) == 1


# written by the body


def by_open(target: str) -> None:
    with open(target, "w") as file:
        file.write("new")


def by_path(target: Any) -> None:
    pathlib.Path(target).write_text("new")


def aside(target: Any) -> None:
    with open(f"{target}.part", "w") as file:
        file.write("new")
    os.replace(f"{target}.part", target)


def by_copy(target: Any) -> None:
    shutil.copy("in.txt", target)


def by_library(target: Any) -> None:
    pl.DataFrame({"a": [1]}).write_parquet(target)


def by_result(target: Any) -> list[str]:
    by_another(f"open({str(target)!r}, 'w').write('new')")
    return [str(target)]


WRITERS = [by_open, by_path, aside, by_copy, by_library, by_result]


@pytest.mark.parametrize("make", [str, pathlib.Path])
@pytest.mark.parametrize("target", ["new.txt", "old.txt"])
@pytest.mark.parametrize("fn", WRITERS)
def test_what_the_body_wrote_is_an_output(fn: Callable[..., Any], target: str, make: type) -> None:
    found = run(fn, target=make(target))
    assert (found.as_text, told(found)) == ({"target"}, {("target", target, "file")})
    assert still_left(found.outputs)
    pathlib.Path(target).write_text("wen")
    assert not still_left(found.outputs)
    pathlib.Path(target).unlink()
    assert not still_left(found.outputs)


def test_a_record_holds_again_when_the_content_is_back() -> None:
    found = run(by_open, target="new.txt")
    pathlib.Path("new.txt").write_text("else")
    pathlib.Path("new.txt").write_text("new")
    assert still_left(found.outputs)


def test_the_other_files_of_an_argument_are_recorded_with_it() -> None:
    def body(paths: list[str]) -> None:
        by_open(paths[1])

    found = run(body, paths=["in.txt", "new.txt", "later.txt"])
    assert told(found) == {("paths", "in.txt", "file"), ("paths", "new.txt", "file")}
    pathlib.Path("in.txt").write_text("other")
    assert not still_left(found.outputs)


def test_a_record_covers_every_file_of_the_arguments_that_count_as_text() -> None:
    found = run(by_open, target="new.txt")
    key = make_key(args={"target": "new.txt"}, function=by_open)
    assert covers(found.outputs, key.inputs, {"target"})
    assert not covers("", key.inputs, {"target"})


def test_of_many_arguments_all_count_as_text_when_two_were_written() -> None:
    def body(a: str, b: str, c: str, d: str) -> None:
        by_open(a)
        by_open(b)

    for name in "abcd":
        pathlib.Path(f"{name}.txt").write_text(name)
    args = {name: f"{name}.txt" for name in "abcd"}
    key = make_key(args=args, function=body)
    found = run(body, **args)
    assert found.as_text in key.as_text()
    assert covers(found.outputs, key.inputs, found.as_text)


def test_another_file_than_the_written_one_must_not_have_changed() -> None:
    def body(source: str, target: str) -> None:
        by_another("open('in.txt', 'w').write('other')")
        pl.DataFrame({"a": [1]}).write_parquet(target)

    assert "in.txt changed" in run(body, source="in.txt", target="new.txt").not_stored


def in_place(path: str) -> None:
    text = pathlib.Path(path).read_text()
    pathlib.Path(path).write_text(text + "!")


def in_place_by_handle(path: str) -> None:
    with open(path, "r+") as file:
        file.write("F")


def in_a_database(path: str) -> None:
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE t (a)")
    database.close()


@pytest.mark.parametrize(
    ("fn", "path"), [(in_place, "in.txt"), (in_place_by_handle, "in.txt"), (in_a_database, "empty.db")]
)
def test_what_is_read_and_then_changed_is_not_stored(fn: Callable[..., Any], path: str) -> None:
    pathlib.Path("empty.db").touch()
    assert "is read and changed" in run(fn, path=path).not_stored


def test_writing_the_same_content_again_changes_nothing() -> None:
    pathlib.Path("new.txt").write_text("new")
    assert run(by_open, target="new.txt") == Outcome()


# appended to


def log(path: Any) -> None:
    with open(path, "a") as file:
        file.write("line\n")


@pytest.mark.parametrize("name", ["in.txt", "new.log"])
@pytest.mark.parametrize("make", [str, pathlib.Path])
def test_what_is_only_appended_to_is_text_for_good(name: str, make: type) -> None:
    found = run(log, path=make(name))
    assert (found.as_text, told(found)) == ({"path"}, {("path", name, "log")})
    log(name)
    assert still_left(found.outputs)


def test_a_log_that_is_read_is_none() -> None:
    def body(path: str) -> int:
        lines = pathlib.Path(path).read_text().count("\n")
        log(path)
        return lines

    assert "is read and changed" in run(body, path="in.txt").not_stored


def test_a_log_that_others_wrote_anew_is_none() -> None:
    def body(path: str) -> None:
        by_another("open('in.txt', 'w').write('other')")
        log(path)

    assert told(run(body, path="in.txt")) == {("path", "in.txt", "file")}


# named by the result


@pytest.mark.parametrize("wrap", [str, pathlib.Path, lambda p: [p], lambda p: (1, {"a": [pathlib.Path(p)]})])
def test_a_new_file_that_the_result_names_is_an_output(wrap: Callable[[str], Any]) -> None:
    def body(x: int) -> Any:
        np.save("made.npy", np.arange(x))
        return wrap("made.npy")

    found = run(body, x=3)
    assert (found.as_text, told(found)) == (frozenset(), {("", "made.npy", "file")})
    os.remove("made.npy")
    assert not still_left(found.outputs)


def test_an_old_file_that_the_result_names_is_none() -> None:
    os.utime("old.txt", (0, 0))
    before = run(lambda x: "nothing.txt", x=1)
    assert told(before) == set()


def test_a_copy_that_kept_its_old_time_is_new() -> None:
    os.utime("old.txt", (0, 0))
    assert told(run(lambda x: shutil.copy2("old.txt", "copied.txt"), x=1)) == {("", "copied.txt", "file")}


# folders that count by their names


def test_what_is_read_and_listed_in_a_named_folder_is_recorded() -> None:
    def body(folder: str) -> list[str]:
        return [pathlib.Path(folder, name).read_text() for name in os.listdir(folder)]

    found = run(body, folder="./folder")
    assert told(found) == {("folder", "./folder", "file"), ("folder", "./folder", "names")}
    assert still_left(found.outputs)
    pathlib.Path("folder/b.txt").write_text("second")
    assert not still_left(found.outputs)
    os.remove("folder/b.txt")
    assert still_left(found.outputs)
    pathlib.Path("folder/a.txt").write_text("other")
    assert not still_left(found.outputs)


def test_what_is_written_in_a_named_folder_is_recorded() -> None:
    def body(folder: str) -> None:
        pathlib.Path(folder, "made.txt").write_text("made")

    found = run(body, folder="./folder")
    assert told(found) == {("folder", "./folder", "file")}
    os.remove("folder/made.txt")
    assert not still_left(found.outputs)


def test_a_folder_that_is_made_is_an_output() -> None:
    def body(folder: str) -> None:
        pathlib.Path(folder).mkdir()
        pathlib.Path(folder, "part.0").write_text("made")

    found = run(body, folder="./made")
    assert told(found) == {("folder", "./made", "folder")}
    pathlib.Path("made/part.0").write_text("other")
    assert not still_left(found.outputs)


def test_more_files_than_a_record_holds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome, "MOST_FILES", 0)
    assert (
        "counts by its name"
        in run(lambda folder: pathlib.Path(folder, "a.txt").read_text(), folder="./folder").not_stored
    )


# the edges


def test_a_call_within_is_seen_from_without_and_the_cache_itself_is_not(cache: UnifiedCache) -> None:
    inner = cache.cached(by_open)

    def body(folder: str, target: str) -> None:
        inner(target)

    found = run(body, folder="./", target="new.txt")
    assert told(found) == {("target", "new.txt", "file"), ("folder", "./", "file")}


@pytest.mark.parametrize("record", ["x", "[1]", '[{"kind":"file"}]', '[{"kind":"other","at":"in.txt","digest":""}]'])
def test_a_record_that_cannot_be_read_does_not_hold(record: str) -> None:
    assert not still_left(record)


def by_a_helper(source: str, target: str) -> None:
    _save(source, target)


def _save(source: str, target: str) -> None:
    place = pathlib.Path(target) / "x"
    np.save(place, np.load(source))


def only_reads(source: str) -> Any:
    return source.replace("a", "b"), np.load(source)


def test_code_tells_which_parameters_it_writes_to() -> None:
    assert writes_to(by_library) == {"target"}
    assert "target" in writes_to(_save)
    assert writes_to(by_a_helper) == {"target"}
    assert writes_to(only_reads) == frozenset()
    assert writes_to(len) == frozenset()


def _frame(x: Any) -> Any:
    return x


OUT = pathlib.Path("out")


class Exporter:
    def save(self, frame: Any, place: Any) -> None:
        self._to(frame, place / "x")

    def _to(self, frame: Any, path: Any) -> None:
        frame.to_feather(f"{path}.feather")

    def size(self, frame: Any) -> int:
        return len(frame)


def hands_on(frame: Any, path: Any) -> None:
    frame.to_parquet(path, index=False)


UNSEEN: list[Any] = [
    lambda frame: frame.to_parquet(OUT / "x", index=False),
    lambda frame: frame.to_parquet(path=_frame("x")),
    lambda frame, folder: frame.to_parquet(f"{folder}/x"),
    lambda frame, settings: frame.write_csv(settings.out),
    lambda table: pq.write_table(table, os.path.join("a", "b")),
    lambda frame: hands_on(frame, OUT / "x"),
    lambda frame: Exporter().save(frame, OUT),
    lambda values, h5py: h5py.File(f"{OUT}/x", "w"),
]
SEEN: list[Any] = [
    lambda frame, path: frame.to_parquet(path, index=False),
    lambda frame, path: hands_on(frame, path),
    lambda frame: frame.to_parquet(),
    lambda frame: frame.to_parquet(index=False),
    lambda frame: frame.to_parquet(io.BytesIO()),
    lambda frame: Exporter().size(frame),
    lambda path, h5py: h5py.File(f"{OUT}/x", "r"),
    lambda frame: frame.to_csv(f"{OUT}/x"),  # Python opens it
    lambda xarray, values: xarray.Dataset({"t": ("w", values)}),
    lambda frame: to_scratch(frame),
]


def to_scratch(frame: Any) -> bytes:
    handle, path = tempfile.mkstemp()
    os.close(handle)
    frame.to_parquet(path)
    data = pathlib.Path(path).read_bytes()
    os.remove(path)
    return data


@pytest.mark.parametrize("fn", UNSEEN)
def test_code_tells_what_it_writes_that_no_hook_sees_and_no_argument_names(fn: Any) -> None:
    assert effects_of(fn).unseen


@pytest.mark.parametrize("fn", SEEN)
def test_what_an_argument_names_what_a_hook_sees_and_what_stays_in_memory_is_not_unseen(fn: Any) -> None:
    assert effects_of(fn).unseen == ""


def test_methods_of_what_a_function_is_given_are_read() -> None:
    assert effects_of(lambda exporter, frame: exporter.save(frame, OUT), [Exporter(), 1]).unseen == "to_feather"
    assert effects_of(operator.methodcaller("save", 1, OUT), [Exporter()]).unseen == "to_feather"
    assert effects_of(operator.methodcaller("save", 1, path=OUT), [Exporter()]).unseen == "to_feather"
    assert effects_of(operator.methodcaller("save", frame=1, path=OUT), [Exporter()]).unseen == "to_feather"
    assert effects_of(operator.methodcaller("size", 1), [Exporter()]).unseen == ""
    assert effects_of(Exporter().save).unseen == "to_feather"
    assert effects_of(operator.methodcaller("save"), [1]) == effects_of(len)


# through the cache

calls: list[Any] = []


def report(source: str, target: Any) -> int:
    calls.append(target)
    text = pathlib.Path(source).read_text().upper()
    return pathlib.Path(target).write_text(text)


def logging_to(path: str, x: int) -> int:
    calls.append(x)
    log(path)
    return x


def plot(x: int) -> pathlib.Path:
    calls.append(x)
    np.save("plot.npy", np.arange(x))
    return pathlib.Path("plot.npy")


@pytest.fixture(autouse=True)
def nothing_was_called() -> None:
    calls.clear()


@pytest.mark.parametrize("make", [str, pathlib.Path])
@pytest.mark.parametrize("target", ["new.txt", "old.txt"])
def test_a_call_that_writes_a_file_hits_while_the_file_is_as_it_left_it(
    cache: UnifiedCache, make: type, target: str
) -> None:
    cached = cache.cached(report)
    for _ in range(3):
        assert cached("in.txt", make(target)) == 5
    assert len(calls) == 1
    assert cached.explain("in.txt", make(target)).hit
    os.remove(target)
    assert not cached.explain("in.txt", make(target)).hit
    assert cached("in.txt", make(target)) == 5
    assert pathlib.Path(target).read_text() == "FIRST"
    pathlib.Path(target).write_text("else")
    cached("in.txt", make(target))
    assert (pathlib.Path(target).read_text(), len(calls)) == ("FIRST", 3)
    pathlib.Path("in.txt").write_text("second")
    assert cached("in.txt", make(target)) == 6
    assert (pathlib.Path(target).read_text(), len(calls)) == ("SECOND", 4)


def test_a_result_that_names_a_new_file_is_served_while_the_file_is_there(cache: UnifiedCache) -> None:
    cached = cache.cached(plot)
    assert [cached(3), cached(3)] == [pathlib.Path("plot.npy")] * 2
    assert (len(calls), len(cache.present([cached.key(3)]))) == (1, 1)
    os.remove("plot.npy")
    assert cache.present([cached.key(3)]) == {}
    assert cache.lookup(cached.key(3)) is None
    told = cached.explain(3)
    assert "file plot.npy, which the function wrote or read, is not as it was left" in str(told)
    cached(3)
    assert (len(calls), pathlib.Path("plot.npy").exists()) == (2, True)


def test_a_log_that_grows_changes_no_key(cache: UnifiedCache) -> None:
    cached = cache.cached(logging_to)
    assert [cached("a.log", x) for x in (1, 2, 1, 2, 1)] == [1, 2, 1, 2, 1]
    assert calls == [1, 2]


def test_a_file_that_another_made_is_not_taken_for_an_output(cache: UnifiedCache) -> None:
    def body(path: str) -> str:
        calls.append(path)
        return pathlib.Path(path).read_text() if pathlib.Path(path).exists() else ""

    cached = cache.cached(body)
    assert cached("later.txt") == ""
    pathlib.Path("later.txt").write_text("now")
    assert [cached("later.txt"), cached("later.txt")] == ["now", "now"]
    assert len(calls) == 2


def test_a_folder_that_counts_by_its_name_is_read_anew_when_it_changed(cache: UnifiedCache) -> None:
    def body(folder: str) -> list[str]:
        calls.append(folder)
        return [path.read_text() for path in sorted(pathlib.Path(folder).iterdir())]

    cached = cache.cached(body)
    assert [cached("./folder"), cached("./folder")] == [["first"]] * 2
    pathlib.Path("folder/a.txt").write_text("other")
    pathlib.Path("folder/b.txt").write_text("second")
    assert [cached("./folder"), cached("./folder")] == [["other", "second"]] * 2
    assert len(calls) == 2


def test_forgetting_a_call_forgets_it_under_the_names_of_its_files_too(cache: UnifiedCache) -> None:
    cached = cache.cached(report)
    cached("in.txt", "new.txt")
    assert cached.invalidate("in.txt", "new.txt")
    assert cache.list_entries() == []


def test_a_coroutine_that_writes_hits_too(cache: UnifiedCache) -> None:
    @cache.cached
    async def body(target: str) -> int:
        calls.append(target)
        await asyncio.sleep(0)
        by_open(target)
        return 1

    assert [asyncio.run(body("new.txt")) for _ in range(2)] == [1, 1]
    assert len(calls) == 1
