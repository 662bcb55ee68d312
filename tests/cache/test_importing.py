"""Results of joblib and diskcache are taken over under today's keys, where they are those of the code of today."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import diskcache
import joblib
import numpy as np
import pytest
from typer.testing import CliRunner

from cacheness import UnifiedCache
from cacheness.cli.commands import app
from cacheness.cli.endings import CouldNot, Misuse
from cacheness.cli.importing import taken_over_in

CODE = """
import numpy as np

def scale(x, factor=2, *, note=None):
    return x * factor

def mean(values):
    return float(np.mean(values))
"""


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    (tmp_path / "moved_pipeline.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("moved_pipeline")
    del sys.modules["moved_pipeline"]


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[UnifiedCache]:
    with UnifiedCache(tmp_path / "cache") as opened:
        yield opened


def take_over(cache: UnifiedCache, source: str, folder: Path, *names: str, check: int = 20) -> list[dict[str, Any]]:
    functions = [f"moved_pipeline:{name}" for name in names]
    return taken_over_in(cache, {"source": source, "folder": str(folder), "functions": functions, "check": check})


@pytest.mark.parametrize("kind", [str, Path])
def test_what_joblib_has_is_a_hit(kind: Any, pipeline: ModuleType, cache: UnifiedCache, tmp_path: Path) -> None:
    memory = joblib.Memory(kind(tmp_path / "old"), verbose=0)
    old_scale, old_mean = memory.cache(pipeline.scale), memory.cache(pipeline.mean)
    old_scale(1), old_scale(2, factor=3), old_scale("ab", 2, note=[None, 1.5]), old_mean(np.arange(3))
    scaled, meant = take_over(cache, "joblib", tmp_path / "old", "scale", "mean")
    assert (scaled["imported"], scaled["there"], scaled["checked"], scaled["left_out"], scaled["refused"]) == (
        3,
        0,
        3,
        {},
        "",
    )
    scale = cache.cached(pipeline.scale)
    assert [scale.explain(1).hit, scale.explain(2, 3).hit, scale.explain("ab", note=[None, 1.5]).hit] == [True] * 3
    assert scale.explain(3).hit is False
    assert cache.get(scale.key("ab", note=[None, 1.5])) == "abab"
    assert (meant["imported"], list(meant["left_out"].values())) == (0, [1])  # an array is kept as text
    assert take_over(cache, "joblib", tmp_path / "old", "scale")[0]["there"] == 3


def test_what_joblib_has_of_other_source_is_refused(pipeline: ModuleType, cache: UnifiedCache, tmp_path: Path) -> None:
    joblib.Memory(tmp_path / "old", verbose=0).cache(pipeline.scale)(1)
    (tmp_path / "moved_pipeline.py").write_text(CODE.replace("x * factor", "x + factor"))
    importlib.reload(pipeline)
    [scaled] = take_over(cache, "joblib", tmp_path / "old", "scale")
    assert "another source" in scaled["refused"]
    assert cache.stats()["entries"] == 0


@pytest.mark.parametrize("kind", [diskcache.Cache, diskcache.FanoutCache])
@pytest.mark.parametrize("typed", [False, True])
def test_what_diskcache_has_is_a_hit(
    kind: Any, typed: bool, pipeline: ModuleType, cache: UnifiedCache, tmp_path: Path
) -> None:
    with kind(str(tmp_path / "old")) as old:
        remembered = old.memoize(typed=typed, expire=3600)(pipeline.scale)
        remembered(1), remembered(2, factor=3), remembered("a", note=None), remembered(5, 6)
        old.set("another", "thing")
    [scaled] = take_over(cache, "diskcache", tmp_path / "old", "scale")
    assert (scaled["imported"], scaled["left_out"], scaled["refused"]) == (4, {}, "")
    scale = cache.cached(pipeline.scale)
    assert [scale.explain(*args).hit for args in [(1,), (2, 3), ("a",), (5, 6), (7,)]] == [True] * 4 + [False]
    entry = cache.find(scale.key(5, 6))
    assert entry is not None
    assert entry.expires_at is not None


def test_results_that_the_code_of_today_does_not_return_are_refused(
    pipeline: ModuleType, cache: UnifiedCache, tmp_path: Path
) -> None:
    with diskcache.Cache(str(tmp_path / "old")) as old:
        remembered = old.memoize()(pipeline.scale)
        old.set(remembered.__cache_key__(1), 99)
    [scaled] = take_over(cache, "diskcache", tmp_path / "old", "scale")
    assert "returns another value for 1" in scaled["refused"]
    assert cache.stats()["entries"] == 0
    [scaled] = take_over(cache, "diskcache", tmp_path / "old", "scale", check=0)
    assert (scaled["imported"], cache.get(cache.cached(pipeline.scale).key(1))) == (1, 99)


def test_what_is_not_there_is_said(pipeline: ModuleType, cache: UnifiedCache, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    assert "has no results" in take_over(cache, "joblib", tmp_path / "old", "scale")[0]["refused"]
    assert "not a folder of diskcache" in take_over(cache, "diskcache", tmp_path / "old", "scale")[0]["refused"]
    assert "gone" in take_over(cache, "joblib", tmp_path / "old", "gone")[0]["refused"]


def test_from_the_command_line(pipeline: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    joblib.Memory("old", verbose=0).cache(pipeline.scale)(1)
    asked = ["import", "joblib", "old", "moved_pipeline:scale", "-d", "new"]
    done = CliRunner().invoke(app, asked)
    assert (done.exit_code, done.output) == (
        0,
        "moved_pipeline:scale  1 taken over, 0 were there already, 1 made again and equal\n",
    )
    with UnifiedCache("new") as cache:
        assert cache.cached(pipeline.scale).explain(1).hit
    for words, error, why in (
        (["prefect", "old"], Misuse, "arguments are not kept"),
        (["joblib", "old"], Misuse, "name the functions"),
        (["joblib", "nowhere", "a:b"], CouldNot, "not a directory"),
    ):
        with pytest.raises(error, match=why):
            CliRunner().invoke(app, ["import", *words], catch_exceptions=False)
