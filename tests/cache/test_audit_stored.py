"""`cache.audit` and `cacheness audit`: stored calls are made again, whatever time they take."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cacheness import NotAudited, UnifiedCache
from cacheness.cli.commands import app
from cacheness.cli.endings import CouldNot, Misuse
from tests.conftest import World

made: list[Any] = []


def hidden() -> float:
    return float(os.environ.get("NEDDIH"[::-1], "1"))


@pytest.fixture(autouse=True)
def _nothing_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HIDDEN", raising=False)
    made.clear()


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[UnifiedCache]:
    with UnifiedCache(tmp_path / "cache", incomplete="serve") as cache:
        yield cache


def test_calls_are_made_again_and_what_differs_is_disputed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = world.cache

    @cache.cached(incomplete="serve")
    def rated(x: int) -> float:
        made.append(x)
        return x * hidden()

    for number in range(30):
        cache.put(number * 1.0, rated.key(number), compute_seconds=3600.0)  # too long for check=
    found = cache.audit(rated, sample=20)
    assert (found.results, found.equal, found.disputed) == (30, 20, {})
    assert found.sentence() == "20 equal calls: at most 13.9 % of such calls differ, at 95 %"
    assert len(set(made)) == 20
    monkeypatch.setenv("HIDDEN", "2")
    found = cache.audit(rated, sample=40)
    assert found.sentence() == "29 of 30 calls came out differently"  # 0 is 0 twice
    assert {one.cache_key for one in cache.disputes()} == set(found.disputed or ())
    assert all("`environ` in the code of `" in detail for detail in (found.disputed or {}).values())
    assert rated(1) == 2.0
    assert cache.find(rated.key(0)) is not None
    with pytest.raises(NotAudited, match="none of its 1 results could be compared"):
        cache.settle(rated.key(1), keep="new")
        cache.invalidate(rated.key(0))
        cache.put(3.0, rated.key(1))
        for key in found.disputed or ():
            cache.invalidate(key)
        cache.put(3.0, rated.key(5))
        cache.dispute(cache.find(rated.key(5)), None, None, "by hand")
        cache.audit(rated)


def test_what_is_within_a_call_is_served(cache: UnifiedCache) -> None:
    @cache.cached
    def inner(x: int) -> int:
        made.append("inner")
        return x + 1

    @cache.cached
    def outer(x: int) -> int:
        made.append("outer")
        return int(inner(x)) * 2

    assert outer(1) == 4
    assert cache.audit(outer).equal == 1
    assert made == ["outer", "inner", "outer"]


@dataclass
class Settings:
    rate: int = 1


def test_arguments_are_loaded_where_they_are_results_and_counted_where_they_cannot_be(cache: UnifiedCache) -> None:
    @cache.cached
    def load(n: int) -> np.ndarray:
        return np.arange(n * 1000)

    @cache.cached
    def total(array: np.ndarray) -> int:
        made.append(len(array))
        return int(array.sum())

    @cache.cached
    def settled(x: int, settings: Settings) -> int:
        return x * settings.rate

    for number in (1, 2, 3):
        total(load(number))
        settled(number, Settings())
    cache.invalidate(load.key(3))
    found = cache.audit(total)
    assert (found.results, found.equal) == (3, 2)
    (why,) = found.skipped or ()
    assert why.startswith("were given what was not kept whole (array")
    with pytest.raises(NotAudited, match=r"none of its 3 results could be compared: 3 were given .*settings"):
        cache.audit(settled)


def test_what_is_never_called_again_is_said_in_a_sentence(cache: UnifiedCache, tmp_path: Path) -> None:
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise RuntimeError("no comparison")

        __hash__ = None

    def writing(x: int, to: str) -> int:
        Path(to).write_text(str(x))
        return x

    def odd(x: int) -> int:
        return x

    def failing(x: int) -> int:
        if hidden() != 1:
            raise OSError("no network")
        return x

    def broken(stored: int, computed: int) -> bool:
        raise RuntimeError("no comparison")

    made: Any = cache.cached
    for function, words in (
        (made(writing), "it writes files"),
        (made(odd, check=0), "it has check=0"),
        (made(odd, key=lambda x: x), "its key= replaces its arguments"),
        (made(odd, prefix="nothing"), "no result is stored that its code of today made"),
        (made(odd, same=broken), "its results cannot be compared: its same= failed"),
    ):
        made(odd)(1)
        with pytest.raises(NotAudited, match=words):
            cache.audit(function)
    fails = made(failing)
    fails(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HIDDEN", "2")
        with pytest.raises(NotAudited, match=r"1 fail when they are made again \(OSError\)"):
            cache.audit(fails)
    assert cache.disputes() == []
    for wrong in (0, True, 1.5, "all"):
        with pytest.raises(ValueError, match="is not a number of calls to compare"):
            cache.audit(fails, sample=wrong)


def test_coroutines_are_audited_on_a_running_loop_too(cache: UnifiedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    @cache.cached
    async def rated(x: int) -> float:
        return x * hidden()

    async def work() -> None:
        await rated(3)
        assert cache.audit(rated).equal == 1

    asyncio.run(work())
    monkeypatch.setenv("HIDDEN", "2")
    assert len(cache.audit(rated).disputed or ()) == 1


PIPELINE = """\
import os
import cacheness
cache = cacheness.UnifiedCache({folder!r}, incomplete="serve")
@cache.cached
def clean(x): return x * float(os.environ.get("NEDDIH"[::-1], "1"))
@cache.cached
def load(x): return [x]
@cache.cached(check=0)
def chosen(x): return x
"""


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    Path("pipeline_audited.py").write_text(PIPELINE.format(folder=str(tmp_path / "cache")))
    importlib.invalidate_caches()
    yield importlib.import_module("pipeline_audited")
    sys.modules.pop("pipeline_audited", None)


def audited(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["audit", *map(str, arguments), "-d", "cache"])
    assert done.exit_code == code, done.output
    return done.output


def test_the_command_says_what_came_out(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1, 6):
        pipeline.clean(number), pipeline.load(number), pipeline.chosen(number)
    pipeline.cache.close()
    told = audited("pipeline_audited", "--sample", 4)
    assert "pipeline_audited:clean  4 equal calls: at most 52.7 % of such calls differ, at 95 %" in told
    assert "pipeline_audited:chosen  pipeline_audited.chosen is not audited: it has check=0" in told
    monkeypatch.setenv("HIDDEN", "2")
    (found,) = json.loads(audited("pipeline_audited.clean", "--json", code=1))
    assert (found["results"], found["equal"], len(found["disputed"])) == (5, 0, 5)
    with UnifiedCache("cache") as cache:
        assert len(cache.disputes()) == 5


def test_bad_input_is_one_sentence(pipeline: Any) -> None:
    pipeline.chosen(1), pipeline.load(1)
    pipeline.cache.close()

    def error_of(*arguments: object) -> BaseException | None:
        return CliRunner().invoke(app, ["audit", *map(str, arguments), "-d", "cache"]).exception

    for arguments, words, kind in (
        (["pipeline_audited", "--sample", 0], "--sample 0 is not a number of calls", Misuse),
        (["elsewhere"], "no function of elsewhere has results", CouldNot),
    ):
        error = error_of(*arguments)
        assert isinstance(error, kind)
        assert words in str(error)
    assert "it has check=0" in str(error_of("pipeline_audited.chosen"))
    Path("pipeline_audited.py").write_text("raise OSError('no network')\n")
    assert "cannot be imported: OSError: no network" in str(error_of("pipeline_audited.load"))
