"""The plan: which results the code of today serves, and what an edit costs."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from cacheness import UnifiedCache
from cacheness.cli.commands import app
from cacheness.cli.endings import CouldNot, Misuse
from cacheness.errors import CachenessError
from cacheness.memoize import plan as plans

BEFORE = """\
import os
import cacheness
cache = cacheness.UnifiedCache({folder!r})
RATE = 2
def helper(x): return x * RATE
@cache.cached
def clean(x): return helper(x)
@cache.cached
def load(x): return x
@cache.cached(version="1")
def pinned(x): return x
@cache.cached
def lost(x): return x
print("something that an import prints")
"""
AFTER = BEFORE.replace("x * RATE", "x * RATE + 1").replace("def lost", "def other").replace("version=", "version=")


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def load(source: str) -> ModuleType:
        Path("pipeline.py").write_text(source.format(folder=str(tmp_path / "cache")))
        sys.modules.pop("pipeline", None)
        importlib.invalidate_caches()
        return importlib.import_module("pipeline")

    yield load
    sys.modules.pop("pipeline", None)


def fill(module: Any) -> None:
    for number in range(3):
        module.clean(number), module.load(number), module.pinned(number)
    module.lost(1)


def test_a_plan_tells_what_is_served_what_is_stale_and_why(pipeline: Callable[[str], Any]) -> None:
    fill(pipeline(BEFORE))
    changed = pipeline(AFTER.replace("def pinned(x): return x", "def pinned(x): return -x"))
    changed.clean(7)
    cache: UnifiedCache = changed.cache
    clean, load, pinned, other = cache.plan(changed.clean, changed.load, changed.pinned, changed.other)
    assert (clean.function, clean.state) == ("pipeline:clean", "changed")
    assert (clean.results, clean.stale, clean.replaced) == (1, 3, 0)
    assert clean.changes == ("code of `pipeline.helper` changed",)
    assert clean.stale_bytes > 0
    assert clean.stale_seconds > 0
    assert (load.state, load.results, load.stale, load.changes) == ("unchanged", 3, 0, ())
    assert (pinned.state, pinned.results) == ("unchanged", 3)
    assert (other.state, other.results, other.stale) == ("new", 0, 0)
    assert cache.plan(changed.clean.__wrapped__) == [clean]
    cache.close()


@pytest.mark.parametrize("at_once", [1, 2, 1000])
def test_what_was_computed_again_is_not_stale_any_more(
    pipeline: Callable[[str], Any], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "AT_ONCE", at_once)
    fill(pipeline(BEFORE))
    changed = pipeline(AFTER)
    changed.clean(1)
    cache: UnifiedCache = changed.cache
    (plan,) = cache.plan(changed.clean)
    assert (plan.state, plan.results, plan.stale, plan.replaced) == ("changed", 1, 2, 1)
    for number in range(3):
        changed.clean(number)
    (plan,) = cache.plan(changed.clean)
    assert (plan.state, plan.changes, plan.results, plan.stale, plan.replaced) == ("unchanged", (), 3, 0, 3)
    cache.close()


def test_methods_of_each_kind_are_planned_under_their_own_names(tmp_path: Path) -> None:
    cache = UnifiedCache(tmp_path / "of_methods")

    class Model:
        @classmethod
        @cache.cached
        def of_class(cls, x: int) -> int:
            return x

        @staticmethod
        @cache.cached
        def static(x: int) -> int:
            return x

        @cache.cached
        def plain(self, x: int) -> int:
            return x

    Model.of_class(1), Model.static(1), Model().plain(1)
    plans = cache.plan(Model.of_class, Model.static, Model.plain, Model().plain)
    assert [(plan.function.rpartition(".")[2], plan.results) for plan in plans] == [
        *(("of_class", 1), ("static", 1), ("plain", 1), ("plain", 1))
    ]
    cache.close()


def test_what_a_look_up_does_not_serve_is_no_result_that_a_plan_counts_as_served(
    pipeline: Callable[[str], Any], tmp_path: Path
) -> None:
    source = BEFORE + "import pathlib\n@cache.cached\ndef written(path):\n    pathlib.Path(path).write_text('1')\n"
    module = pipeline(source)
    fill(module)
    module.written("left.txt")
    (tmp_path / "left.txt").write_text("other")
    cache: UnifiedCache = module.cache
    disputed = cache.find(module.load.key(1))
    assert disputed is not None
    assert cache.dispute(disputed, None, None, "1 is stored, 2 was computed")
    load, clean, written = cache.plan(module.load, module.clean, module.written)
    assert (load.state, load.results, load.stale) == ("unchanged", 2, 1)
    assert load.changes == ("disputed: it came out differently (1 result)",)
    assert (clean.results, clean.stale) == (3, 0)
    is_served = cache.lookup(module.written.key("left.txt")) is not None
    assert (is_served, written.results, written.stale) == (False, 0, 1)
    # An edit and a dispute are told apart, whichever comes first.
    edited = pipeline(source.replace("def load(x): return x", "def load(x): return +x"))
    (again,) = edited.cache.plan(edited.load)
    assert (again.state, again.stale, len(again.changes)) == ("changed", 3, 1)
    edited.load(1)
    entry = edited.cache.find(edited.load.key(1))
    assert edited.cache.dispute(entry, None, None, "again")
    (again,) = edited.cache.plan(edited.load)
    assert (again.state, again.results, again.stale, len(again.changes)) == ("changed", 0, 3, 2)
    cache.close(), edited.cache.close()


def test_the_command_imports_what_it_is_named_and_says_what_is_at_stake(
    pipeline: Callable[[str], Any], tmp_path: Path
) -> None:
    module = pipeline(BEFORE)
    fill(module)
    module.cache.put(1, module.cache.key(function=lambda: 1))
    module.cache.close()
    pipeline(AFTER).cache.close()

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["plan", *arguments, "-d", str(tmp_path / "cache")])

    done = run("pipeline", "--json")
    assert done.exit_code == 1
    found = {one["function"]: one for one in json.loads(done.stdout)}
    assert {name: one["state"] for name, one in found.items()} == {
        "pipeline:clean": "changed",
        "pipeline:load": "unchanged",
        "pipeline:lost": "gone",
        "pipeline:pinned": "unchanged",
    }
    assert found["pipeline:lost"]["stale"] == 1
    done = run("pipeline.load", "--markdown")
    assert done.exit_code == 0
    assert "| pipeline:load | unchanged | 3 | 0 |" in done.stdout
    with pytest.raises(Exception, match="no function of elsewhere has results"):
        raise run("elsewhere").exception
    (tmp_path / "pipeline.py").write_text("raise OSError('no network')\n")
    done = run("pipeline:clean", "--json")
    assert [one["state"] for one in json.loads(done.stdout)] == ["not importable"]


AGAIN = BEFORE.replace("def clean(x): return helper(x)", "def clean(x):\n    y = helper(x)\n    return y")


def accept(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["accept", *map(str, arguments), "-d", "cache"])
    assert done.exit_code == code, done.output
    return done.output


def test_the_command_accepts_lists_and_revokes(pipeline: Callable[[str], Any]) -> None:
    module = pipeline(BEFORE)
    for number in range(30):
        module.clean(number), module.load(number)
    module.cache.close()
    module = pipeline(AGAIN)
    assert "Nothing was made by earlier code, or accepted." in accept("--list")
    told = accept("pipeline", "--sample", 20)
    assert "pipeline:clean  20 equal calls: at most 13.9 % of such calls differ, at 95 %" in told
    assert "changed: code of `pipeline.clean` changed" in told
    assert "pipeline:load" not in told  # nothing of it has changed
    (listed,) = json.loads(accept("--list", "--json"))
    assert (listed["state"], listed["function"], listed["equal"]) == ("accepted", "pipeline:clean", 20)
    assert listed["id"] in accept("--list")
    assert sum(module.cache.explain(module.clean, number).hit for number in range(30)) == 30
    accept("--revoke", listed["id"][:4])
    assert "pipeline:clean  revoked: by " in accept("--list")
    assert sum(module.cache.explain(module.clean, number).hit for number in range(30)) == 20
    accept("--revoke", listed["id"][:4], code=1)
    assert "20 equal calls" in accept("pipeline", "--sample", 20)
    assert "20 equal calls" in accept("--list")
    module.cache.close()


def test_the_command_says_in_a_sentence_what_it_does_not_accept(pipeline: Callable[[str], Any]) -> None:
    module = pipeline(BEFORE)
    for number in range(30):
        module.clean(number)
    module.cache.close()
    pipeline(AFTER).cache.close()
    assert "refused: the code of today makes" in accept("pipeline.clean", code=1)
    assert "more than numpy changed: code of `pipeline.helper` changed" in accept("--upgrade", "numpy", code=1)
    assert "python did not change" in accept("pipeline", "--python", code=1)
    for arguments, words in (
        (["--list", "pipeline"], "take nothing else"),
        (["pipeline", "--sample", "0"], "--sample 0 is not a number of calls"),
        (["pipeline", "--renamed", "x"], "--renamed x is not a pair: NEW=OLD"),
        ([], "name a function, a module or a package, or what was upgraded"),
    ):
        error = CliRunner().invoke(app, ["accept", *arguments, "-d", "cache"]).exception
        assert isinstance(error, Misuse)
        assert words in str(error)
    for arguments, words in (
        (["--revoke", "nothing"], "no accepted change begins with nothing"),
        (["elsewhere"], "no function of elsewhere has results"),
        (["pipeline.clean", "--former", "pipeline:was"], "pipeline:was, given as the former name of pipeline.clean"),
    ):
        error = CliRunner().invoke(app, ["accept", *arguments, "-d", "cache"]).exception
        assert isinstance(error, CouldNot | CachenessError)
        assert words in str(error)
    error = CliRunner().invoke(app, ["accept", "pipeline.load", "-d", "cache"]).exception
    assert "was made by earlier code" in str(error)
    assert "nowhere cannot be imported" in accept("nowhere.at_all", code=1)
    Path("pipeline.py").write_text("raise OSError('no network')\n")
    assert "refused: pipeline cannot be imported: OSError: no network" in accept("pipeline.clean", code=1)
    assert json.loads(accept("--list", "--json")) == []
