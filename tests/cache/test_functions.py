"""What is kept of the code that made results: once a fingerprint, signed for by each entry, told when it is gone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from typer.testing import CliRunner

from cacheness import UnifiedCache
from cacheness.cli.commands import app
from cacheness.errors import StoreUnavailable
from cacheness.keys import FunctionCode
from cacheness.maintenance.copying import copy
from cacheness.records import CODE_KEPT, DAY

SOURCE = """
import json, textwrap
RATE = {rate}
def helper(x): return textwrap.dedent(x) * RATE
def clean(x): return helper(x)
def evaluated(x): return eval(x)
"""


def pipeline(rate: int = 2) -> dict[str, Any]:
    scope: dict[str, Any] = {"__name__": "pipeline"}
    exec(SOURCE.format(rate=rate), scope)
    return scope


def entry_of(cache: UnifiedCache, function: Callable[..., Any]) -> Any:
    [entry] = cache.iter_entries(function=function)
    return entry


def written(cache: UnifiedCache, monkeypatch: pytest.MonkeyPatch) -> list[list[FunctionCode]]:
    seen: list[list[FunctionCode]] = []
    note = cache._store.metadata.note_functions

    def noting(namespace: str, functions: list[FunctionCode]) -> None:
        seen.append(list(functions))
        note(namespace, functions)

    monkeypatch.setattr(cache._store.metadata, "note_functions", noting)
    return seen


def test_an_entry_keeps_its_arguments_and_names_a_row_with_the_code(world):
    clean = world.cache.cached(pipeline()["clean"])
    clean("a")
    entry = entry_of(world.cache, clean)
    assert list(json.loads(entry.components)) == ["args"]
    code = world.cache.code_of([entry])[entry.fn]
    assert (code.name, code.module) == ("pipeline:clean", "pipeline")
    assert code.as_dict()["reached"] == ["pipeline.clean", "pipeline.helper"]
    assert "pipeline.RATE" in code.data["values"]
    assert code.data["fingerprint"] == entry["args"]["function"].digest.hex()


def test_what_counts_by_no_code_names_no_row(world):
    world.cache.put(1, x=1)
    world.cache.put(1, x=1, function=pipeline()["clean"], version="3")
    assert [entry.fn for entry in world.cache.iter_entries()] == [None, None]
    assert [entry["code"] for entry in world.cache.list_entries()] == [None, None]


def test_it_is_written_before_a_put_once_a_process_fingerprint_and_day(world, monkeypatch):
    cache = world.cache
    seen = written(cache, monkeypatch)
    clean, evaluated = (cache.cached(pipeline()[name]) for name in ("clean", "evaluated"))
    for text in ("1", "2", "3"):
        clean(text), evaluated(text)
    assert [[code.name for code in codes] for codes in seen] == [["pipeline:clean"], ["pipeline:evaluated"]]
    with cache.write_batch():
        cache.cached(pipeline(3)["clean"])("1")
        cache.cached(pipeline(4)["clean"])("1")
    assert len(seen) == 3
    assert len(seen[2]) == 2
    cache.put(1, x=1)
    now = cache._store.metadata.now
    monkeypatch.setattr(cache._store.metadata, "now", lambda: now() + DAY)
    monkeypatch.setattr(cache._store.metadata, "measure_clock", lambda: None)
    if cache.config.metadata_backend == "sqlite":  # a server refuses a clock that is a day off
        clean("4"), clean("5")
        assert len(seen) == 4


def test_a_put_whose_code_cannot_be_kept_fails_like_any_put_and_the_next_tries_again(world, monkeypatch):
    cache = world.cache
    clean = cache.cached(pipeline()["clean"])
    with monkeypatch.context() as patch:

        def fail(*_: Any) -> None:
            raise StoreUnavailable("down")

        patch.setattr(cache._store.metadata, "note_functions", fail)
        assert clean("a") == "aa"
        assert cache.list_entries() == []
    clean("a")
    assert cache.list_entries()[0]["code"]["reached"]


def test_text_that_is_not_what_the_entry_was_signed_with_counts_as_none(world):
    cache = world.cache
    clean = cache.cached(pipeline()["clean"])
    clean("a")
    entry = entry_of(cache, clean)
    genuine = cache.code_of([entry])[entry.fn]
    forged = FunctionCode("pipeline:clean", "pipeline", '{"code":{"pipeline.evil":"1"}}')
    rows = {entry.fn: forged}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache._store.metadata, "function_codes", lambda _, digests: {d: rows[d] for d in digests})
        assert cache.code_of([entry]) == {}
        assert cache.list_entries()[0]["code"] is None
        rows[forged.digest] = forged
        # Nor is that of a row that says of itself which code made it.
        assert cache.code_of([replace(entry, fn=forged.digest)]) == {}
    assert cache.code_of([entry]) == {entry.fn: genuine}


def test_the_code_is_told_when_its_function_is_gone(world):
    cache = world.cache
    cache.cached(pipeline()["evaluated"])("[1]")
    world.reopen()
    [listed] = world.cache.list_entries()
    assert listed["code"]["reached"] == ["pipeline.evaluated"]
    assert listed["code"]["versions"]["python"]
    assert any("eval" in line for line in listed["code"]["not_followed"])


def test_show_and_list_tell_the_code(tmp_path):
    with UnifiedCache(tmp_path) as cache:
        cache.cached(pipeline()["evaluated"])("[1]")
        cache.cached(pipeline()["clean"])("a")
        keys = {entry.function: entry.cache_key for entry in cache.iter_entries()}
    place = ["--cache-dir", str(tmp_path)]
    shown = CliRunner().invoke(app, ["show", keys["pipeline:evaluated"], *place])
    assert shown.exit_code == 0, shown.output
    told = dict(line.split(None, 1) for line in shown.output.replace(" reached", "-reached").splitlines() if line)
    assert told["code-reached"] == "pipeline.evaluated"
    assert "eval" in shown.output.partition("not followed")[2].splitlines()[0]
    assert "python 3." in shown.output.partition("libraries")[2].splitlines()[0]
    listed = json.loads(CliRunner().invoke(app, ["list", "--json", *place]).output)
    assert {tuple(entry["code"]["reached"]) for entry in listed} == {
        ("pipeline.evaluated",), ("pipeline.clean", "pipeline.helper"),
    }  # fmt: skip
    as_json = json.loads(CliRunner().invoke(app, ["show", keys["pipeline:clean"], "--json", *place]).output)
    assert as_json["code"]["reached"] == ["pipeline.clean", "pipeline.helper"]


def test_explain_and_plan_name_the_helper_that_changed(world):
    cache = world.cache
    cache.cached(pipeline()["clean"])("a")
    world.reopen()
    changed = world.cache.cached(pipeline(3)["clean"])
    assert "value of `pipeline.RATE` changed" in str(changed.explain("a"))
    [plan] = world.cache.plan(changed)
    assert (plan.state, plan.changes) == ("changed", ("value of `pipeline.RATE` changed",))


@pytest.mark.parametrize("backend", ["sqlite", "json"])
def test_a_copy_takes_the_code_along(world, tmp_path, backend):
    clean = world.cache.cached(pipeline()["clean"])
    clean("a"), clean("b")
    world.cache.put(1, x=1)
    with UnifiedCache(cache_dir=tmp_path / "target", metadata_backend=backend, namespace="other") as target:
        copy(world.cache._store, target._store, world.cache.iter_entries())
    with UnifiedCache(cache_dir=tmp_path / "target", metadata_backend=backend, namespace="other") as target:
        codes = target.code_of(target.iter_entries(function=clean))
        assert codes == world.cache.code_of(world.cache.iter_entries(function=clean))
        assert len(codes) == 1


def test_an_adopted_store_keeps_the_code(world):
    world.cache.cached(pipeline()["clean"])("a" * 100_000)
    world.cache.adopt()
    assert world.cache.list_entries()[0]["code"]["reached"] == ["pipeline.clean", "pipeline.helper"]


def test_code_that_no_entry_names_for_ninety_days_is_forgotten(world, monkeypatch):
    cache = world.cache
    for rate in (2, 3, 4):
        cache.cached(pipeline(rate)["clean"])("a")
    first, second, third = sorted(cache.iter_entries(), key=lambda entry: entry.created_at)
    cache.invalidate(first.cache_key), cache.invalidate(third.cache_key)
    asked = cache._store.metadata.forget_functions
    seen: list[int] = []

    def later(namespace: str, age: int, most: int) -> int:
        seen.append(age)
        return asked(namespace, age - CODE_KEPT - DAY, most) if len(seen) == 1 else 0

    cache.evict()
    assert len(cache._store.metadata.function_codes(cache.namespace, [e.fn for e in (first, second, third)])) == 3
    monkeypatch.setattr(cache._store.metadata, "forget_functions", later)
    cache.evict()
    assert seen == [CODE_KEPT, CODE_KEPT]
    assert set(cache._store.metadata.function_codes(cache.namespace, [e.fn for e in (first, second, third)])) == {
        second.fn
    }


def test_a_process_that_puts_looks_at_old_code_now_and_then(world, monkeypatch):
    cache = world.cache
    seen: list[int] = []
    monkeypatch.setattr(
        cache._store.metadata,
        "forget_functions",
        lambda _, age, most: seen.append(age) or (most if len(seen) == 1 else 0),
    )
    evictor = cache._opened.evictor
    for n in range(4):
        evictor._looked_at, evictor._cleaned_at = 0.0, float("-inf") if n == 0 else 0.0
        cache.put(n, n=n)
    # The first put of a process leaves it to others; a full slice has a next one; then it waits.
    assert seen == [CODE_KEPT, CODE_KEPT]
