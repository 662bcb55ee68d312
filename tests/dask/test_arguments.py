"""What caching() and install() are given: checked at once, with words; a path or a URL opens a cache."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask
import pytest
from workloads import inc

import cacheness_dask as cd
from cacheness import UnifiedCache
from cacheness.errors import CachenessError, ConfigError
from cacheness_dask.policy import Policy

pytestmark = pytest.mark.timeout(120)

WRONG = {
    "which": ["output", "ALL", "", None, 1, ["all"], True],
    "max_value_bytes": ["1 gigabite", "", "GB", "-1GB", -1, 0, 1.5, math.inf, None, True, "nan", [1]],
    "incomplete": ["ignore", "", 1, True],
    "check_inputs": [-0.1, 1.1, math.nan, "1%", None, True],
    "check": [-0.1, 1.1, math.nan, "1%", None, True],
    "queue_bytes": ["much", -1, 2.0, None, False],
}
#: Looked at before anything is done with it.
CLIENT = SimpleNamespace(scheduler_info=dict)
CASES = [(name, value) for name, values in WRONG.items() for value in values]


@pytest.mark.parametrize(("name", "value"), CASES, ids=lambda case: repr(case))
def test_a_wrong_option_is_an_error_that_names_it(cache: UnifiedCache, name: str, value: Any) -> None:
    uses: list[Callable[..., object]] = [cd.caching, lambda cache, **options: cd.install(CLIENT, cache, **options)]
    for use in uses:
        with pytest.raises(ConfigError, match=name) as raised:
            use(cache, **{name: value})
        assert repr(value) in str(raised.value)


@pytest.mark.parametrize("text", ["1GB", "1 GB", "1000MB", "1e9", 1_000_000_000])
def test_sizes_may_be_text(text: int | str) -> None:
    assert Policy.checked("auto", text, "0") == Policy(max_value_bytes=10**9, queue_bytes=0)


def test_the_limit_that_was_given_as_text_holds(cache: UnifiedCache) -> None:
    with cd.caching(cache, scheduler="sync", max_value_bytes="1kiB") as run:
        for size in (100, 100_000):
            dask.delayed(bytes)(size).compute()
    assert [record.stored for record in run.history] == [1, 0]


@pytest.mark.parametrize("wrong", [None, 1, dict, {}, b"./cache", ["cache"]], ids=repr)
def test_what_is_no_cache_is_an_error(wrong: Any) -> None:
    for use in (cd.caching, lambda cache: cd.install(CLIENT, cache)):
        with pytest.raises(ConfigError, match="the path of a directory"):
            use(wrong)


def test_install_says_which_argument_is_the_client(cache: UnifiedCache) -> None:
    with pytest.raises(ConfigError, match=r"install\(client, cache\)"):
        cd.install(cache, cache)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_opens_a_cache_for_the_block(tmp_path: Path, kind: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        with cd.caching(kind("results"), scheduler="sync") as run:
            assert dask.delayed(inc)(1).compute() == 2
        with pytest.raises(CachenessError, match="closed"):
            run.cache.get(x=1)
        assert run.history[0].stored == run.history[0].misses  # counted before it was closed
    assert run.history[0].hits == 1
    with UnifiedCache(cache_dir=tmp_path / "results") as cache:
        assert len(cache.list_entries()) == 1
    assert [row.status for row in cd.explain(dask.delayed(inc)(1), kind("results"))] == ["hit"]
    picture = cd.visualize(dask.delayed(inc)(1), "picture.svg", kind("results"))
    assert "inc" in picture.svg


def test_a_cache_that_was_given_open_stays_open(cache: UnifiedCache) -> None:
    with cd.caching(cache):
        pass
    cd.explain(dask.delayed(inc)(1), cache)
    assert cache.get(x=1) is None


def test_a_url_takes_the_rest_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHENESS_BLOB_STORE", "memory://blobs")
    monkeypatch.setenv("CACHENESS_ALLOW_UNSIGNED", "1")
    monkeypatch.setenv("CACHENESS_CONNECT_TIMEOUT", "0.2")
    url = "postgresql://nobody@127.0.0.1:1/none"
    with pytest.warns(cd.CacheUnavailable), cd.caching(url, scheduler="sync") as run:
        assert dask.delayed(inc)(1).compute() == 2
    assert (run.cache.config.metadata_backend, run.cache.config.blob_store) == (url, "memory://blobs")


def test_a_url_of_no_database_says_which_there_are() -> None:
    with pytest.raises(ConfigError, match="postgresql://"), cd.caching("mongodb://host/db"):
        raise AssertionError
