"""Early cut-off: what is downstream of an edit that changes no value is not computed, and never wrong."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import workloads
from dask._task_spec import Task, TaskRef
from workloads import WORKLOADS, each, inc, ran, shown, traces, write_inputs

import cacheness_dask as cd
from cacheness import UnifiedCache
from cacheness_dask.fingerprint import fingerprints
from tests.conftest import World

pytestmark = pytest.mark.timeout(120)

SOURCE = """
from workloads import ran
def load(seed):
    import collections, datetime, decimal, numpy as np, pandas as pd, pathlib, types
    ran("load")
    {body}
def train(x, factor=2):
    ran("train")
    return (type(x).__name__, factor, {shown})
def told(trained):
    ran("told")
    return [trained, 1]
"""
#: A number, because a text such as 0.5 may be the name of a file.
SHOWN = "int.from_bytes(repr(x.to_dict() if hasattr(x, 'to_dict') else x).encode())"
#: A value, one that differs from it, and whether its digest is its own: only then can a task be cut.
VALUES: dict[str, tuple[str, str, bool]] = {
    "none": ("None", "0", True),
    "bool": ("True", "1", True),
    "int": ("3", "4", True),
    "float": ("0.5", "-0.5", True),
    "zero": ("0.0", "-0.0", True),
    "text": ("'a b'", "'a  b'", True),
    "bytes": ("b'ab'", "b'ac'", True),
    "list": ("[3, 1, 2]", "[1, 2, 3]", True),
    "tuple": ("(1, 2)", "[1, 2]", True),
    "dict": ("{'a': 1, 'b': 2}", "{'b': 2, 'a': 1}", True),
    "set": ("{1, 2}", "{1, 3}", True),
    "nested": ("[{'a': (1, [2])}]", "[{'a': (1, [3])}]", True),
    "decimal": ("decimal.Decimal('1.0')", "decimal.Decimal('1.00')", True),
    "time": ("datetime.date(2020, 1, 1)", "datetime.date(2020, 1, 2)", True),
    "array": ("np.arange(6.0)", "np.arange(6.0, dtype='f4')", True),
    "matrix": ("np.ones((2, 3))", "np.ones((3, 2))", True),
    "frame": ("pd.DataFrame({'a': [1, 2]})", "pd.DataFrame({'a': [2, 1]})", True),
    "series": ("pd.Series([1.0, None], name='s')", "pd.Series([1.0, None], name='t')", True),
    "many members": ("[0] * 300", "[0] * 301", False),
    "name of a file": ("'data/of.csv'", "'data/off.csv'", False),
    "object": ("types.SimpleNamespace(a=1)", "types.SimpleNamespace(a=2)", False),
}


def functions(body: str, shown: str = SHOWN, module: str = "edited") -> dict[str, Any]:
    scope: dict[str, Any] = {"__name__": module}
    exec(SOURCE.format(body=body, shown=shown), scope)
    return scope


def graph_of(scope: dict[str, Any]) -> Any:
    return dask.delayed(scope["told"])(dask.delayed(scope["train"])(dask.delayed(scope["load"])(1)))


def cached(cache: UnifiedCache, collection: Any, **options: Any) -> tuple[Any, Any]:
    traces()
    with cd.caching(cache, **{"which": "all", "scheduler": "sync", **options}) as run:
        (value,) = dask.compute(collection)
    return value, run.history[-1]


@pytest.mark.parametrize("name", VALUES)
def test_an_edit_that_changes_no_value_runs_one_task_and_one_that_does_runs_all(cache: UnifiedCache, name: str) -> None:
    value, other, is_closed = VALUES[name]
    edits = [f"return {value}", f"value = {value}; return value", f"value = [{value}]; return value[0]"]
    expected = graph_of(functions(edits[0])).compute(scheduler="sync")
    ran = []
    for body in edits:
        found, record = cached(cache, graph_of(functions(body)))
        assert repr(found) == repr(expected)
        ran.append((traces(), record.cut))
    following = ({"load": 1}, 2) if is_closed else ({"load": 1, "train": 1}, 1)
    assert ran == [({"load": 1, "train": 1, "told": 1}, 0), following, following]
    again, record = cached(cache, graph_of(functions(edits[2])))
    assert (repr(again), traces(), record.hits, record.skipped, record.misses) == (repr(expected), {}, 1, 2, 0)
    changed = graph_of(functions(f"return {other}"))
    assert repr(cached(cache, changed)[0]) == repr(changed.compute(scheduler="sync"))


def _inc_edited(x: Any, by: Any = 1) -> Any:
    if not isinstance(x, np.ndarray) or x.size > 1:
        ran()
    added = by
    return x + added


def _inc_changed(x: Any, by: Any = 1) -> Any:
    if not isinstance(x, np.ndarray) or x.size > 1:
        ran()
    return x + by + by


#: On the database and the bucket of a team there are enough of each kind to see that they are no other.
FEW = (
    "delayed_nested",
    "delayed_in_globals",
    "bag_pipeline",
    "array_overlap",
    "frame_map_partitions",
    "xarray_dataset",
)


@pytest.mark.slow
def test_no_workload_comes_out_otherwise_after_an_edit(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_inputs(tmp_path)
    shared = world.config.blob_store is not None
    names = FEW if shared else sorted(name for name in WORKLOADS if not name.startswith("p2p"))  # these need a cluster
    computed, plain, cut = Counter[Any](), Counter[Any](), Counter[Any]()
    for edit in (inc, _inc_edited, _inc_changed):
        edit.__name__, edit.__qualname__, edit.__module__ = "inc", "inc", workloads.__name__
        monkeypatch.setattr(workloads, "inc", edit)
        for name, collection in each(list(names), tmp_path):
            traces()
            (expected,) = dask.compute(collection, scheduler="sync")
            plain[edit] += traces().total()
            with cd.caching(world.cache, which="all", scheduler="sync") as run:
                (found,) = dask.compute(WORKLOADS[name](tmp_path))
            assert shown(found) == shown(expected), (name, edit)
            computed[edit] += traces().total()
            cut[edit] += sum(record.cut for record in run.history)
    assert computed[_inc_edited] < plain[_inc_edited]
    assert cut[_inc_edited] > cut[inc]


@pytest.mark.parametrize("scheduler", ["threads", "processes", "distributed", "own"])
def test_it_works_on_every_scheduler(cache: UnifiedCache, scheduler: str, request: pytest.FixtureRequest) -> None:
    chosen: Any = scheduler
    if scheduler == "distributed":
        chosen = request.getfixturevalue("client")
    if scheduler == "own":
        chosen = lambda dsk, keys, **kwargs: dask.get(dsk, keys, **kwargs)
    edits = ["return [3, 1, 2]", "value = [3, 1, 2]; return value", "return [1, 2, 3]"]
    found = [(*cached(cache, graph_of(functions(body)), scheduler=chosen), traces()["train"]) for body in edits]
    one, other = (int.from_bytes(repr(value).encode()) for value in ([3, 1, 2], [1, 2, 3]))
    assert [(value[0][2], record.cut, ran) for value, record, ran in found] == [(one, 0, 1), (one, 2, 0), (other, 0, 1)]


def test_code_and_literals_of_the_task_itself_count(cache: UnifiedCache) -> None:
    def ran_with(scope: dict[str, Any], factor: int) -> dict[str, int]:
        task = dask.delayed(scope["train"])(dask.delayed(scope["load"])(1), factor=factor)
        assert cached(cache, task)[0] == task.compute(scheduler="sync")
        cached(cache, task)
        return dict(traces())

    cached(cache, graph_of(functions("return 3")))
    edited = functions("value = 3; return value")
    assert cached(cache, dask.delayed(edited["train"])(dask.delayed(edited["load"])(1), factor=3))[0][1] == 3
    assert traces()["train"] == 1
    other = functions("number = 3; return number", shown=f"({SHOWN}) + 0")
    assert cached(cache, graph_of(other))[1].cut == 1  # that which is told of the same result
    assert traces() == {"load": 1, "train": 1}
    assert ran_with(other, 3) == {}


def test_a_task_that_changes_what_it_is_given_is_always_computed(cache: UnifiedCache) -> None:
    source = (
        "def load():\n    {body}\n"
        "def smallest(items):\n    items.sort()\n    return items[0]\n"
        "def first(items, after):\n    return [items[0], after, list(items)]\n"
        "def popped(table):\n    return table.pop('a')\n"
        "def left(table, after):\n    return sorted(table), after\n"
    )

    def graphs(body: str) -> list[Any]:
        scope: dict[str, Any] = {"__name__": "edited"}
        exec(source.format(body=body), scope)
        made = {name: dask.delayed(scope[name]) for name in ("load", "smallest", "first", "popped", "left")}
        items, table = made["load"]()[0], made["load"]()[1]
        return [made["first"](items, made["smallest"](items)), made["left"](table, made["popped"](table))]

    for body in ("return [3, 1, 2], {'a': 1, 'b': 2}", "made = [3, 1, 2], {'a': 1, 'b': 2}\n    return made"):
        for number in range(2):
            expected = graphs(body)[number].compute(scheduler="sync")
            assert cached(cache, graphs(body)[number])[0] == expected
            assert cached(cache, graphs(body)[number])[0] == expected


def test_only_outputs_and_marks_are_cut_where_only_these_are_stored(cache: UnifiedCache) -> None:
    for body, is_new in (("return 3", True), ("value = 3; return value", False)):
        value, record = cached(cache, graph_of(functions(body)), which="outputs")
        assert (value[1], record.cut) == (1, not is_new)
        assert traces() == {"load": 1, "train": 1, **({"told": 1} if is_new else {})}


def test_a_long_chain_runs_its_edited_task_and_afterwards_loads_what_is_asked_for(cache: UnifiedCache) -> None:
    def chain(body: str) -> Any:
        last = dask.delayed(functions(body)["load"])(1)
        for _ in range(200):
            last = dask.delayed(inc)(last)
        return last

    assert cached(cache, chain("return 3"))[0] == 203
    value, record = cached(cache, chain("value = 3; return value"))
    assert (value, record.cut, traces()) == (203, 200, {"load": 1})
    lookups = []
    with pytest.MonkeyPatch.context() as patch:
        find = cache._store.metadata.find
        patch.setattr(cache._store.metadata, "find", lambda *key: lookups.append(key) or find(*key))
        value, record = cached(cache, chain("value = 3; return value"))
    assert (value, record.hits, record.skipped, record.misses, traces()) == (203, 1, 200, 0, {})
    assert len(lookups) <= 2


def test_explain_says_that_inputs_came_out_the_same(cache: UnifiedCache) -> None:
    cached(cache, graph_of(functions("return 3")))
    cached(cache, graph_of(functions("value = 3; return value")))
    rows = {row.name: row.why for row in cd.explain(graph_of(functions("value = 3; return value")), cache)}
    assert "inputs came out the same as for entry " in rows["told"]
    assert "only hits need it" in rows["load"]


def test_it_is_deleted_with_the_entry_that_it_names(cache: UnifiedCache) -> None:
    value, _ = cached(cache, graph_of(functions("return 3")))
    cached(cache, graph_of(functions("value = 3; return value")))
    links = [entry for entry in cache.iter_entries() if entry.link is not None]
    assert len(links) == 2
    assert list(cache.verify_integrity(deep=True)) == []
    for link in links:
        assert cache.lookup(link.cache_key) is not None
        assert cache.invalidate((link.link or b"").hex())
    assert [entry for entry in cache.iter_entries() if entry.link is not None] == []
    assert list(cache.verify_integrity()) == []
    assert cache.stats()["entries"] == len(cache.list_entries())
    assert cached(cache, graph_of(functions("value = 3; return value")))[0] == value


@pytest.mark.parametrize("column", ["alias", "link"])
def test_what_somebody_points_elsewhere_in_the_database_is_not_obeyed(
    cache: UnifiedCache, tmp_path: Path, column: str
) -> None:
    cached(cache, graph_of(functions("return 3")))
    cached(cache, graph_of(functions("return 4")))
    if column == "link":
        cached(cache, graph_of(functions("value = 3; return value")))
    with closing(sqlite3.connect(tmp_path / "cache" / "metadata.sqlite")) as database, database:
        own = "SELECT alias, key FROM entries WHERE function = 'told' AND link IS NULL ORDER BY created_at"
        (three, _), (_, four) = database.execute(own)
        if column == "alias":  # the result for 4 passes for that for 3
            database.execute("UPDATE entries SET alias = NULL WHERE alias = ?", (three,))
            changed = database.execute("UPDATE entries SET alias = ? WHERE key = ?", (three, four))
        else:
            changed = database.execute(
                "UPDATE entries SET link = ? WHERE link IS NOT NULL AND alias = ?", (four, three)
            )
        assert changed.rowcount == 1
    assert cached(cache, graph_of(functions("value = 3; return value")))[0][0][2] == int.from_bytes(b"3")
    assert traces()["told"] == (column == "alias")  # a link is written anew


def test_which_input_a_step_takes_counts_in_a_fused_task() -> None:
    def own(left: str, right: str) -> bytes:
        sources = {name: Task(name, np.arange, number) for number, name in enumerate(("x", "y"), 3)}
        one, two = Task("one", inc, TaskRef(left)), Task("two", inc, TaskRef(right), 2)
        fused = Task.fuse(one, two, Task("out", np.subtract, TaskRef("one"), TaskRef("two")), key="out")
        fused.args = (*fused.args[:2], tuple("xy"), TaskRef("x"), TaskRef("y"))
        prints = fingerprints({**sources, "out": fused}, ["out"])
        found = prints.inputs_of("out")
        assert found is not None
        assert len(found.places) == 2
        return found.own

    assert own("x", "y") == own("x", "y")
    assert own("x", "y") != own("y", "x")


def test_a_disputed_result_is_named_by_nobody(cache: UnifiedCache) -> None:
    cached(cache, graph_of(functions("return 3")))
    for entry in list(cache.iter_entries()):
        if entry.function in ("train", "told"):
            assert cache.dispute(entry, None, None, "it came out differently")
    _, record = cached(cache, graph_of(functions("value = 3; return value")))
    assert (record.cut, traces()) == (0, {"load": 1, "train": 1, "told": 1})


def test_results_that_another_run_stored_since_the_plan_stay(
    cache: UnifiedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    value, _ = cached(cache, graph_of(functions("return 3")))
    with monkeypatch.context() as patch:  # as if this run had been planned before
        patch.setattr(UnifiedCache, "present", lambda *_: {})
        assert cached(cache, graph_of(functions("return 3")))[0] == value
    assert traces() == {"load": 1}
    _, record = cached(cache, graph_of(functions("return 3")))
    assert (record.hits, record.misses, traces()) == (1, 0, {})
